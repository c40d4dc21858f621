"""The player's page and its requests over HTTP, for this machine and whoever was told the address.

What guards it, since a browser lets any page on the web send requests to 127.0.0.1:

* the first part of every path is a random token; without it nothing is answered but a refusal;
* ``Host`` must be an address of this server, so that no other name can be made to lead here, and where a browser says
  which page it asks for (``Origin``, ``Sec-Fetch-Site``), that must be this server's own;
* paths are looked up in tables of names. None is ever made of what was sent, and nothing is unpickled;
* a request says how long it is, and is refused unread if that is too much;
* the page may load nothing from elsewhere, and be shown in no other page (``Content-Security-Policy``).

Nothing is encrypted: to play from another machine, forward the port through ssh rather than listening to the world.
"""

import contextlib
import fnmatch
import hmac
import json
import math
import os
import secrets
import socket
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vgen_jax.play.requests import Requests
from vgen_jax.play.sessions import NoRoom, NoSession
from vgen_jax.types import VgenError

READ_TIMEOUT = 60.0  # seconds that a client may take to send a request, or to ask again
PAGE = Path(__file__).parent / "page"
TOKEN_FILE = "token"
MOST_JSON = 2**16  # bytes of a request without a picture
MOST_DISCARDED = 2**28  # bytes that are read of a request that is too long
LOCAL = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "::")
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors"
)
JSON = "application/json"


class Refusal(Exception):
    """A request that is answered with a status and a line."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


def kept_token(folder: Path) -> str:
    """The token of a work directory, readable by its owner alone; made when there is none.

    It stays the same when the player is started again there, so that open pages find it.
    """
    path = folder / TOKEN_FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
    return path.read_text().strip()


class PlayServer(ThreadingHTTPServer):
    """Serves the page; it listens from now on.

    Args:
        address: (host, port); port 0 takes a free one, ``server_port`` says which.
        requests: what can be asked.
        token: the first part of every path.
        max_bytes: of a request with a picture.
        hosts: names under which a proxy may lead here besides, ``*`` for any characters.

    Raises:
        VgenError: if the port is taken, or the host is not this machine's.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], requests: Requests, token: str, max_bytes: int, hosts: tuple[str, ...] = ()
    ):
        self.requests, self.token, self.max_bytes = requests, token, max_bytes
        self._hosts, self._anywhere = hosts, address[0] in EVERYWHERE
        self._host = address[0]
        self._connections: set[socket.socket] = set()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.policy = " ".join([POLICY, "'self'", *(f"https://{name}" for name in hosts)])
        names = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in KINDS}
        self.pages: Mapping[str, bytes] = {"": names["index.html"], **names}
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise VgenError(
                f"cannot listen on {address[0]}:{address[1]} ({error.strerror}): use another play.port or play.host"
            ) from error

    def get_request(self) -> tuple[socket.socket, Any]:
        """Keeps the connection, to end it when the server does: browsers hold theirs open."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stops listening, and ends all connections."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """Where the page is, from this machine."""
        host = "127.0.0.1" if self._anywhere else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/{self.token}/"

    def check_host(self, host: str) -> None:
        """Refuses a request that was sent to another name than this server's."""
        name, _, port = host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "")
        known = name in (*LOCAL, self._host, f"[{self._host}]") and port in (str(self.server_port), "")
        here = self._anywhere and (_is_address(name) or name == socket.gethostname())
        if not (known or here or self._proxy(name)):
            raise Refusal(403, "this is not an address of the player: use the one that it printed")

    def check_origin(self, headers: Any, host: str, method: str) -> None:
        """Refuses what another page sent; a link to this one may be anywhere."""
        origin = urllib.parse.urlsplit(headers.get("Origin", ""))
        if (origin.scheme or origin.path) and origin.netloc != host and not self._proxy(origin.hostname or ""):
            raise Refusal(403, "requests of other pages are refused")
        linked = method == "GET" and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        if headers.get("Sec-Fetch-Site", "none") == "cross-site" and not linked and not self._hosts:
            raise Refusal(403, "requests of other pages are refused")

    def _proxy(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._hosts)

    def place(self, path: str) -> str:
        """What follows the token in a path.

        Raises:
            Refusal: if that is missing or wrong.
        """
        first, slash, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode(), self.token.encode()):
            raise Refusal(403, "the address is not complete: use the whole one that the player printed")
        if not slash:
            raise Refusal(404, "the address ends in a slash")
        return rest


def _is_address(name: str) -> bool:
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        socket.inet_pton(family, name.strip("[]"))
    except OSError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    timeout = READ_TIMEOUT
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms
    server_version, sys_version = "vgen_jax", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _get(self, place: str) -> tuple[str, bytes]:
        if place == "status":
            return JSON, _json(self.server.requests.status())
        if place in self.server.pages:
            return KINDS[Path(place or "index.html").suffix], self.server.pages[place]
        path = self.server.requests.file(place)
        if path is None or not path.is_file():
            raise Refusal(404, "there is nothing of that name")
        return KINDS[path.suffix], path.read_bytes()

    def _post(self, place: str) -> tuple[str, bytes]:
        table = self.server.requests.table
        if place not in table:
            raise Refusal(404, "there is nothing of that name")
        length = self._length(self.server.max_bytes * 4 // 3 + MOST_JSON if place == "begin" else MOST_JSON)
        try:
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "the request is no JSON") from error
        if not isinstance(body, dict):
            raise Refusal(400, "the request is no JSON object")
        return JSON, _json(table[place](body))

    def _length(self, most: int) -> int:
        header = self.headers.get("Content-Length", "")
        if not header.isdecimal():
            raise Refusal(411, "a request needs its Content-Length")
        if int(header) > most:
            self._discard(min(int(header), MOST_DISCARDED))  # a browser hears no answer while it is sending
            sent, taken = (n * 3 / 4 / 1e6 for n in (int(header), most))  # as base64
            raise Refusal(413, f"{sent:.1f} MB are too much: at most {taken:.1f} MB are taken")
        return int(header)

    def _discard(self, length: int) -> None:
        while length > 0 and (part := self.rfile.read(min(length, MOST_JSON))):
            length -= len(part)

    def _answer(self, make: Any) -> None:
        try:
            host = self.headers.get("Host", "")
            self.server.check_host(host)
            self.server.check_origin(self.headers, host, self.command)
            place = self.server.place(self.path.partition("?")[0])
            status, (kind, body) = 200, make(place)
        except Refusal as refusal:
            status, kind, body = refusal.status, JSON, _json({"error": str(refusal)})
        except VgenError as error:
            status, kind, body = _status(error), JSON, _json({"error": str(error)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:  # the player goes on, whatever one request does to it
            line = " ".join(f"{type(error).__name__}: {error}".split())
            self.log_error("%s", line)
            status, kind, body = 500, JSON, _json({"error": f"this should not happen: {line}"})
        self._send(status, kind, body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", self.server.policy)
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            if status >= 400:  # a refused body was perhaps not read, and would be taken for the next request
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            self.wfile.write(body)
        except (ConnectionError, TimeoutError):  # whoever asked has gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a player sends several a second, and the address is a secret."""

    def log_error(self, format: str, *args: Any) -> None:
        """Faults are."""
        print(format % args, flush=True)


def _status(error: VgenError) -> int:
    if isinstance(error, NoRoom):
        return 429
    return 410 if isinstance(error, NoSession) else 400


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(_plain(values), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """What JSON has no word for becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
