"""A Predictor behind HTTP, for others to adapt: the reference of what ``black_box.client`` talks to.

It computes one request at a time, in batches of one size (short ones are padded), so that one compilation serves all.
Meant for localhost or a trusted network: the token keeps strangers from computing, but nothing here encrypts.
"""

import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jax
import numpy as np

from vgen_jax.black_box.ask import Ask, answer
from vgen_jax.black_box.wire import pack_answer, unpack_question
from vgen_jax.types import PredictionKind, VgenError

READ_TIMEOUT = 60.0  # seconds that a client may take to send its question


class Refused(Exception):
    """A request that is answered with a status and a line."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


class PredictorServer(ThreadingHTTPServer):
    """Serves an ``Ask``; see ``black_box.client`` for the requests.

    Args:
        address: (host, port); port 0 takes a free one, ``server_port`` says which.
        batch: rows of a request at most.
        max_bytes: of a request.
        token: that requests must carry; empty for none.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], ask: Ask, kind: PredictionKind, batch: int, max_bytes: int, token: str = ""
    ):
        self.about = {"kind": kind, "batch": batch}
        self._ask, self._batch, self._max_bytes, self._token = ask, batch, max_bytes, token
        self._one_at_a_time = threading.Lock()
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise VgenError(
                f"cannot listen on {address[0]}:{address[1]} ({error.strerror}); use another port"
            ) from error

    def check(self, authorization: str) -> None:
        """Refuses a request without the token."""
        expected = f"Bearer {self._token}".encode()
        if self._token and not hmac.compare_digest(authorization.encode(), expected):
            raise Refused(401, "the token is missing or wrong")

    def check_length(self, header: str | None) -> int:
        """The length of a request's body, refused if it is unknown or too large."""
        if header is None or not header.isdigit():
            raise Refused(411, "a request needs its Content-Length")
        if int(header) > self._max_bytes:
            raise Refused(413, f"a request of {header} bytes, at most {self._max_bytes} are taken")
        return int(header)

    def predict(self, body: bytes) -> bytes:
        """The answer to a question, both packed."""
        try:
            x_t, t, condition = unpack_question(body)
        except VgenError as error:
            raise Refused(400, str(error)) from error
        rows = len(t)
        if not 0 < rows <= self._batch:
            raise Refused(413, f"a request of {rows} rows, 1 to {self._batch} are taken")
        padded = jax.tree.map(
            lambda a: np.concatenate([a, np.repeat(a[-1:], self._batch - rows, 0)]), (x_t, t, condition)
        )
        with self._one_at_a_time:
            value = answer(self._ask, *padded)
        return pack_answer(value[:rows], str(self.about["kind"]))


class _Handler(BaseHTTPRequestHandler):
    server: PredictorServer
    timeout = READ_TIMEOUT
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond("/about", lambda: json.dumps(self.server.about).encode())

    def do_POST(self) -> None:
        self._respond("/predict", self._predict)

    def _predict(self) -> bytes:
        length = self.server.check_length(self.headers.get("Content-Length"))
        return self.server.predict(self.rfile.read(length))

    def _respond(self, path: str, make: Any) -> None:
        try:
            self.server.check(self.headers.get("Authorization", ""))
            if self.path != path:
                raise Refused(404, f"{self.command} {self.path}: there is only GET /about and POST /predict")
            status, body = 200, make()
        except Refused as refusal:
            status, body = refusal.status, str(refusal).encode()
        except Exception as error:  # the service goes on, whatever its network makes of one question
            status, body = 500, " ".join(f"{type(error).__name__}: {error}".split()).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        if status != 200:  # a refused body was perhaps not read, and would be taken for the next request
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a training sends thousands."""
