"""What the player's server refuses, and that what it takes does what it should."""

import base64
import http.client
import io
import json
import socket
import struct
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vgen_jax.files.media import encode_png
from vgen_jax.play.lanes import Progress
from vgen_jax.play.requests import Requests
from vgen_jax.play.server import PlayServer, kept_token
from vgen_jax.types import VgenError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_sessions")]


def send(server: PlayServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """A raw request: its status and what was answered, of JSON its values."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    sent = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content


def ask(server: PlayServer, name: str, **body: Any) -> tuple[int, Any]:
    """A request of the page."""
    return send(server, "POST", f"/{server.token}/{name}", json.dumps(body).encode())


def opened(server: PlayServer) -> str:
    """The name of a new session."""
    status, answer = ask(server, "open", seed=0)
    assert status == 200, answer
    return answer["session"]


def picture(height: int = 24, width: int = 40) -> str:
    rng = np.random.default_rng(0)
    return base64.b64encode(encode_png(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))).decode()


def hollow(side: int) -> bytes:
    """A PNG that says it is so large, and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    begin = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + begin + struct.pack(">I", 100) + b"IDAT" + bytes(100)


def test_the_page_and_all_that_it_names(server: PlayServer) -> None:
    status, page = send(server, "GET", f"/{server.token}/")
    assert status == 200 and b"<!doctype html>" in page and b"http" not in page, "nothing from elsewhere"
    for name in ("style.css", "player.js", "view.js", "link.js", "icon.svg"):
        status, content = send(server, "GET", f"/{server.token}/{name}")
        assert status == 200 and content
    status, now = send(server, "GET", f"/{server.token}/status")
    assert now == {"ready": True, "sessions": 0, "doing": "", "share": 1.0, "seconds": 0.0}


def test_a_session_over_http(server: PlayServer) -> None:
    status, answer = ask(server, "open", seed=5)
    assert status == 200 and answer["run"]["seed"] == 5 and answer["titles"] == ["temp_lora", "none", "real"]
    assert answer["about"]["memories"] == ["none", "context", "anchor", "temp_lora"]
    assert [key["codes"][0] for key in answer["about"]["keys"]] == ["KeyW", "KeyA", "KeyS", "KeyD"]
    session = answer["session"]
    status, step = ask(server, "step", session=session, parent=0, keys=["KeyW"], request=1)
    assert status == 200 and step["text"] == "go" and step["count"] == 2 and step["node"] == 1
    strip = Image.open(io.BytesIO(base64.b64decode(step["videos"][0].partition(",")[2])))
    assert strip.size == (tiny.SIZE, 2 * tiny.SIZE)
    assert ask(server, "step", session=session, parent=0, text="rotate", request=2)[1]["text"] == "rotate"
    resumed = ask(server, "resume", session=session)[1]
    assert resumed["node"] == 2 and [n["node"] for n in resumed["run"]["nodes"]] == [0, 1, 2]
    status, begun = ask(server, "begin", session=session, seed=1, **{"from": "picture"}, picture=picture())
    assert status == 200 and begun["run"]["title"] == "your picture" and begun["node"] == 0
    status, begun = ask(server, "begin", session=session, seed=1, **{"from": "episode"}, episode=2, frame=5)
    assert begun["run"]["title"] == "episode 2, frame 5"
    ask(server, "step", session=session, parent=0, keys=["KeyW"], request=3)
    status, saved = ask(server, "record", session=session, node=1)
    assert status == 200
    for path in saved["files"]:
        assert send(server, "GET", f"/{server.token}/{path}")[0] == 200


@pytest.mark.parametrize("token", ["", "wrong", "x" * 32])
def test_without_the_token_nothing_is_answered(server: PlayServer, token: str) -> None:
    for method, path in (("GET", f"/{token}/"), ("GET", f"/{token}/status"), ("POST", f"/{token}/open"), ("GET", "/")):
        status, answer = send(server, method, path)
        assert status == 403 and "use the whole one that the player printed" in answer["error"]
    assert server.requests.status()["sessions"] == 0


def test_the_token_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    token = kept_token(tmp_path)
    assert len(token) >= 32 and kept_token(tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    assert kept_token(tmp_path / "other") != token


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1:1"}, {"Host": ""}, {"Host": "evil.example:PORT"},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)  # fmt: skip
def test_other_names_and_other_pages_are_refused(server: PlayServer, headers: dict[str, str]) -> None:
    sent = {name: value.replace("PORT", str(server.server_port)) for name, value in headers.items()}
    status, answer = send(server, "POST", f"/{server.token}/open", b'{"seed": 0}', **sent)
    assert status == 403 and server.requests.status()["sessions"] == 0


def test_its_own_names_are_taken(server: PlayServer) -> None:
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.server_port}"
        sent = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert send(server, "POST", f"/{server.token}/open", b'{"seed": 0}', **sent)[0] == 200
    linked = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert send(server, "GET", f"/{server.token}/", **linked)[0] == 200


TRAVERSALS = (
    "../token", "../../token", "..%2ftoken", "%2e%2e/token", "%2e%2e%2ftoken", "..\\token", "..%5ctoken", "....//token",
    "./token", "token", "config.json", "recordings/../token", "recordings/1/../../token",
    "recordings/1/..%2f..%2ftoken",
    "recordings//etc/passwd", "/etc/passwd", "//etc/passwd", "recordings/1/actions.txt%00.png", "page/../server.py",
    "sessions/0/1/frames.bin", "recordings/999999/actions.txt", "file:///etc/passwd", "style.css/../../server.py",
    "~/.ssh/id_rsa",
)  # fmt: skip


def test_no_path_leads_out(server: PlayServer) -> None:
    session = opened(server)
    ask(server, "step", session=session, parent=0, keys=["KeyW"], request=1)
    assert ask(server, "record", session=session, node=1)[0] == 200
    assert len(TRAVERSALS) >= 20
    for place in TRAVERSALS:
        status, answer = send(server, "GET", f"/{server.token}/{place}")
        assert status == 404 and answer == {"error": "there is nothing of that name"}, place
        assert send(server, "POST", f"/{server.token}/{place}", b"{}")[0] == 404, place
        status, answer = ask(server, "step", session=place[:64], parent=0, keys=[], request=2)
        assert status == 410, place
        choice = {"memory": place[:64], "beside": "", "steps": 2, "guidance": 1.0, "real": True}
        status, answer = ask(server, "choose", session=session, **choice)
        assert status == 400 and "is not to be had" in answer["error"], place


def test_an_upload_that_is_no_picture_gets_one_clear_line(server: PlayServer) -> None:
    session = opened(server)

    def uploaded(content: str) -> tuple[int, str]:
        status, answer = ask(server, "begin", session=session, seed=0, **{"from": "picture"}, picture=content)
        return status, answer["error"]

    whole = base64.b64decode(picture())
    pickle = base64.b64encode(b"\x80\x04cos\nsystem\n(S'touch /tmp/no'\ntR.").decode()
    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()
    for content in (base64.b64encode(whole[:200]).decode(), pickle, svg, ""):
        assert uploaded(content) == (
            400, "this is no picture that can be read: give a whole PNG, JPEG, WebP, GIF or BMP"
        )  # fmt: skip
    assert uploaded("!!") == (400, "'picture' is no base64")
    for side in (6_000, 60_000):
        status, line = uploaded(base64.b64encode(hollow(side)).decode())
        assert status == 400 and line == "the picture is too large: give one of at most 32 million pixels"
    status, line = uploaded("A" * (12 * 10**6))
    assert status == 413 and "are too much: at most 8." in line
    assert ask(server, "step", session=session, parent=0, keys=["KeyW"], request=1)[0] == 200, "all goes on"


@pytest.mark.parametrize(
    ("name", "body", "status", "named"),
    [
        ("step", b"[1]", 400, "no JSON object"), ("step", b"{", 400, "no JSON"), ("step", b"", 400, "no JSON"),
        ("step", b"{}", 400, "lacks 'session'"), ("step", b"[" * 60_000, 400, "no JSON"),
        ("step", b'{"session": 7}', 400, "'session' is no text"), ("open", b'{"seed": -1}', 400, "'seed' is no whole"),
        ("open", b'{"seed": 1.5}', 400, "'seed' is no whole"), ("open", b" " * 70_000, 413, "too much"),
        ("nothing", b"{}", 404, "nothing of that name"), ("__class__", b"{}", 404, "nothing of that name"),
    ],
)  # fmt: skip
def test_other_requests_are_refused_in_one_line(
    server: PlayServer, name: str, body: bytes, status: int, named: str
) -> None:
    got, answer = send(server, "POST", f"/{server.token}/{name}", body)
    assert got == status and named in answer["error"] and "\n" not in answer["error"]


def test_what_a_step_may_not_be(server: PlayServer) -> None:
    session = opened(server)
    for body, named in (
        ({"keys": "KeyW"}, "no list"), ({"keys": ["K"] * 99}, "no list"), ({"text": "x" * 3000}, "no text"),
        ({"text": "fly"}, "unknown command 'fly'"), ({"keys": [], "parent": 99}, "no step 99"),
        ({"text": '{"text": "x"}'}, "is not a JSON object"),
        ({"text": '{"text": "", "actions": [[1]]}'}, "2 rows of 2"),
        ({"text": '{"text": "", "actions": [[NaN, 0], [0, 0]]}'}, "does not fit"),
    ):  # fmt: skip
        status, answer = ask(server, "step", **{"session": session, "parent": 0, "request": 1, **body})
        assert status == 400 and named in answer["error"], body


def test_a_request_without_a_length_and_one_that_never_comes(server: PlayServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        request = f"POST /{server.token}/open HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
        connection.sendall(request.encode())
        assert b"411" in connection.recv(100)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(b"POST /")  # and says no more; others are served meanwhile
        assert opened(server)


def test_it_listens_on_this_machine_alone_unless_told(server: PlayServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    taken = server.server_port
    with pytest.raises(VgenError, match=f"cannot listen on 127.0.0.1:{taken} .*: use another play.port"):
        PlayServer(("127.0.0.1", taken), server.requests, "token", 1)


def test_behind_a_proxy_its_names_are_taken(player: Any, tmp_path: Path) -> None:
    requests = Requests(Progress(), player.choices, tmp_path)
    with PlayServer(("127.0.0.1", 0), requests, "token", 1, ("*.example.org",)) as found:
        found.check_host("colab.example.org")
        found.check_origin({"Origin": "https://colab.example.org"}, "127.0.0.1:1", "POST")
        assert "frame-ancestors 'self' https://*.example.org" in found.policy
        with pytest.raises(Exception, match="not an address of the player"):
            found.check_host("example.org.evil.net")


def test_round_trips_are_not_held_back(server: PlayServer) -> None:
    """With Nagle's algorithm each would take 40 ms."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    seconds = []
    for _ in range(20):
        since = time.perf_counter()
        connection.request("GET", f"/{server.token}/status")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - since)
    connection.close()
    assert sorted(seconds)[10] < 0.03


@pytest.mark.parametrize("output", ["read", "lost"])
def test_as_a_program_it_ends_on_sigterm_and_leaves_nothing(folder: Path, tmp_path: Path, output: str) -> None:
    """Also where nobody reads what it prints any more."""
    workdir = folder / f"program_{output}"
    command = tiny.command("play:tiny", workdir, "--config.play.port=0")
    environment = {**tiny.environment(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=tiny.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = iter(process.stdout)
    url = next(line.split()[2] for line in lines if line.startswith("play at "))
    assert next(line for line in lines if line == "ready\n")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("POST", f"{urlsplit(url).path}open", '{"seed": 0}')
    assert connection.getresponse().status == 200
    assert (workdir / "sessions").is_dir()
    if output == "lost":
        process.stdout.close()
    process.terminate()
    process.wait(30)
    assert not (workdir / "sessions").exists() and (workdir / "token").is_file()
