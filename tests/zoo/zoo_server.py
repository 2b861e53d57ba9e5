"""The files of a small zoo, and a local server that is as unkind as those that keep real ones."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import itertools
import json
import re
import select
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

PALM = b"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><title>BlazeFace</title></head>
<body>
<h2><a href="https://example.com">BlazeFace</a></h2>
<p>Finds faces &amp; their
landmarks.</p>
<p style="text-align: center;"><img src="../image.gif"></p>
<h2>License</h2><pre>Apache License</pre>
</body>
</html>
"""
FILES = {
    "index.html": b"<html><title>OpenMV</title><p>The zoo.</p></html>",
    "index.csv": b'# path, board\n"face/blaze", "N6|AE3"\n\n"secret", ""\n"small/", "^openmv4p$"\n',
    "google/index.html": b"<html><title>Google</title><p>Models.</p></html>",
    "google/face/blaze/blaze_128.tflite": b"blaze" * 1000,
    "google/face/blaze/blaze_128.txt": b"face\n",
    "google/face/blaze/index.html": PALM,
    "google/objects/small/yolo.v8.tflite": b"yolo" * 500,
    "google/objects/small/yolo.txt": b"cat\ndog\n",
    "st/secret/hidden/hidden.tflite": b"?",
    "st/gestures/hand/hand_96.lite": b"hand" * 200,
    "st/gestures/hand/readme.txt": b"not labels",
}
MODELS = {path for path in FILES if path.endswith(("tflite", "lite"))}


class Asked(NamedTuple):
    """A request: of which host, for what, which range ('' for all), and the answer's status."""

    host: str
    path: str
    range: str
    status: int


class Server:
    """What the server has, how it behaves, and what it was asked.

    assets: paths that are redirected, as those of GitHub's releases, to another host, to an
    address that is good for one GET. The other host knows no ranges from the end, as Azure.
    drop_after: bytes of each answer's body before the connection is cut, one for each of the next
    answers. statuses: what the next requests of files are answered instead. ranges: whether it
    knows Range. etags: whether it names versions.
    """

    def __init__(self, secure: bool) -> None:
        self.secure = secure
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.assets: set[str] = set()
        self.redirects: dict[str, str] = {}
        self.drop_after: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.etags = True
        self.requests: list[Asked] = []
        self.sent = 0
        self._signatures = (f"{n:08x}" for n in itertools.count())
        self._good: set[str] = set()

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Path and range of the requests that got a file's bytes."""
        return [(r.path, r.range) for r in self.requests if r.status in (200, 206)]

    def sign(self, path: str, port: int) -> str:
        signature = next(self._signatures)
        self._good.add(signature)
        return f"{'https' if self.secure else 'http'}://localhost:{port}{path}?sig={signature}"

    def is_good(self, signature: str) -> bool:
        if signature not in self._good:
            return False
        self._good.remove(signature)
        return True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: Server, *args: object) -> None:
        self.state = server
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.plain(403)  # an address is signed for one method

    def do_GET(self) -> None:
        state = self.state
        parts = urlsplit(self.path)
        path = parts.path
        if path in state.redirects:
            return self.plain(302, state.redirects[path])
        at_other_host = self.headers["Host"].startswith("localhost")
        if path in state.assets and not at_other_host:
            return self.plain(302, state.sign(path, self.server.server_port))  # type: ignore[attr-defined]
        if state.statuses:
            return self.plain(state.statuses.pop(0))
        if at_other_host and not state.is_good("".join(parse_qs(parts.query).get("sig", []))):
            return self.plain(403)
        if path not in state.files:
            return self.plain(404)
        return self.file(path, at_other_host)

    def file(self, path: str, at_other_host: bool) -> None:
        state = self.state
        data = state.files[path]
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")) or None
        if not state.ranges or (wanted and not wanted[1] and at_other_host):
            wanted = None
        first, last = 0, len(data) - 1
        if wanted and wanted[1]:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        elif wanted:
            first = max(0, len(data) - int(wanted[2]))
        if first > last:
            return self.plain(416)
        body = data[first : last + 1]
        self.note(206 if wanted else 200)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        if state.etags:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = state.drop_after.pop(0) if state.drop_after and len(body) > 1 else None
        state.sent += len(body[:cut])  # before: who has read it all may look at once
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
        return None

    def plain(self, status: int, location: str = "") -> None:
        self.note(status)
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def note(self, status: int) -> None:
        host = self.headers["Host"].partition(":")[0]
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        self.state.requests.append(Asked(host, urlsplit(self.path).path, wanted, status))


class _Threads(socketserver.ThreadingTCPServer):
    """A thread for each connection. A client that goes resets its connections: no error of ours."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Web(_Threads, http.server.HTTPServer):
    pass


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    state = Server(context is not None)
    handler = functools.partial(Handler, state)
    with _Web(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        state.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        with _served(server):
            yield state


class Proxy(_Threads):
    """Passes connections on to where CONNECT says."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        super().__init__(("127.0.0.1", 0), _Tunnel)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        _, where, _ = self.rfile.readline().split()
        while self.rfile.readline().strip():
            pass
        self.server.connected.append(where.decode())
        host, _, port = where.decode().rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {self.connection: other, other: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


@contextlib.contextmanager
def proxy() -> Iterator[Proxy]:
    with Proxy() as server, _served(server):
        yield server


@contextlib.contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(60)


class Published:
    """The releases; `publish` adds one, the newest."""

    def __init__(self, server: Server, make_zip: Callable[..., Path]) -> None:
        self.server = server
        self._make_zip = make_zip

    def publish(self, version: str, firmware: str = "", **images: bytes) -> str:
        """images: `BOARD__N`. The path of the zip, which has the pages and programs too that nobody
        here wants."""
        random = Random(version)
        members = {f"html/page{n}.html": random.randbytes(2000) for n in range(200)}
        members["firmware/OPENMV_N6/firmware.bin"] = random.randbytes(300_000)
        settings = {"firmware_version": firmware or version, "boards": []}
        members["firmware/settings.json"] = json.dumps(settings, indent=4).encode()
        for name, data in images.items():
            board, _, number = name.rpartition("__")
            members[f"firmware/{board}/romfs{number}.img"] = data
        members |= {f"models/{path}": data for path, data in FILES.items()}
        members["tools/program"] = random.randbytes(400_000)  # the end of a zip comes as a whole
        name = f"openmv-ide-resources-{version}.zip"
        path = f"/openmv/openmv-ide/releases/download/v{version}/{name}"
        self.server.files[path] = self._make_zip(members, name).read_bytes()
        self.server.assets.add(path)
        self.server.files["/version-v2.txt"] = f"{version}\n".encode()
        return path
