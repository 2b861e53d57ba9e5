"""The files of a small zoo, and a local HTTP server that can misbehave."""

from __future__ import annotations

import hashlib
import http.server
import re

FILES = {
    "index.html": b"<html>the zoo</html>",
    "index.csv": b'# path, board\n"face/blaze", "N6|AE3"\n\n"secret", ""\n"small/", "^openmv4p$"\n',
    "google/face/blaze/blaze_128.tflite": b"blaze" * 1000,
    "google/face/blaze/blaze_128.txt": b"face\n",
    "google/face/blaze/index.html": b"<html>about</html>",
    "google/objects/small/yolo.v8.tflite": b"yolo" * 500,
    "google/objects/small/yolo.txt": b"cat\ndog\n",
    "st/secret/hidden/hidden.tflite": b"?",
    "st/gestures/hand/hand_96.lite": b"hand" * 200,
    "st/gestures/hand/readme.txt": b"not labels",
}
MODELS = {path for path in FILES if path.endswith(("tflite", "lite"))}


class Server:
    """What the server has, how it behaves, and what it was asked.

    drop_after: bytes of each answer's body before the connection is cut, one for each of the next
    answers. ranges: whether it knows Range. etags: whether it names versions.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.drop_after: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.etags = True
        self.lengths = True
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.state = server
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        wanted = self.headers.get("Range")
        state.asked.append((self.path, wanted))
        if state.statuses:
            return self.plain(state.statuses.pop(0))
        if self.path in state.redirects:
            self.send_response(302)
            self.send_header("Location", state.redirects[self.path])
            return self.end_headers()
        if self.path not in state.files:
            return self.plain(404)
        data = state.files[self.path]
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if state.etags and self.headers.get("If-None-Match") == etag:
            return self.plain(304)
        start = 0
        if wanted and state.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if state.etags:
            self.send_header("ETag", etag)
        if state.lengths:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + state.drop_after.pop(0) if state.drop_after else len(data)
        self.wfile.write(data[start:end])
        return None

    def plain(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()
