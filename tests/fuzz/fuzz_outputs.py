"""Fuzz targets for what tools write and say, and what servers answer."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzz_images import SCRATCH

from romfsfs.convert import Diagnostic, FileOptions, failures, script, stedgeai, vela
from romfsfs.convert.flatbuffer import Model
from romfsfs.devices.bootloader import dfu_util
from romfsfs.errors import RomfsError, printable
from romfsfs.system import runner
from romfsfs.zoo import download

LIMIT = 1 << 20


def summary(data: bytes) -> None:
    """Vela's table of what the model needs."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        Path(name, "model_summary_x.csv").write_bytes(data)
        need = vela.figures(vela.summary(Path(name)), data.decode("latin-1"), 1).sram
    assert need is None or need >= 0


def tool_output(data: bytes) -> None:
    """What a tool said, made into one line for the user."""
    capture = runner._Capture()
    for start in range(0, len(data), 1000):
        capture.add(data[start : start + 1000])
    text = capture.text()
    assert len(text) <= runner.HEAD_BYTES + runner.TAIL_BYTES + 100
    source, status = data[:300], data[0] % 7 - 3 if data else 0
    outcome = runner.Outcome(status, text, status < 0, 1.0)
    told: list[Diagnostic] = [
        script.explain("lib/app.py", source, outcome, portable=status == 1),
        vela.explain(outcome),
        stedgeai.explain(outcome),
        failures.failure("Tool", outcome),
        failures.time_out("Tool", outcome, 3.0),
        *vela.cpu_fallback(text, Model(3, {}, {3: 1}, frozenset(), (), (), 0)),
    ]
    for each in told:
        assert each.message
        assert len(each.message.splitlines()) == 1, each.message
        assert printable(each.message).isprintable()
    dfu_util.percentage(text)


def settings(data: bytes) -> None:
    """The user's profile and memory pool for ST Edge AI, which may come with a model."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        profile, pool = Path(name, "profile.json"), Path(name, "pool.mpool")
        profile.write_bytes(data)
        pool.write_bytes(data[::-1])
        for options in (
            FileOptions(profile=f"default@{profile}"),
            FileOptions(mpool=str(pool)),
        ):
            with contextlib.suppress(stedgeai.SettingsError):
                made = stedgeai.make_settings("default", options)
                assert len(made.profile) + len(made.pool) < 20 * len(data) + (64 << 10)


class _Server:
    """A connection on which the server says the input, whatever it is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def sendall(self, data: bytes) -> None:
        assert b"\r\n\r\n" in data or not data

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._answer))  # type: ignore[arg-type]

    def close(self) -> None: ...
    def settimeout(self, _: float) -> None: ...
    def setsockopt(self, *_: Any) -> None: ...


@contextlib.contextmanager
def _servers(answers: list[bytes]) -> Iterator[None]:
    """Each connection is answered by the next of these, the last ones by silence."""
    rest = iter(answers)

    def connect(address: Any, *_: Any, **__: Any) -> _Server:
        return _Server(next(rest, b""))

    saved, clock = socket.create_connection, download.time
    socket.create_connection = connect  # type: ignore[assignment]
    download.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.create_connection = saved
        download.time = clock
        assert download.time is time


def http(data: bytes) -> None:
    """A server's answers, one for each connection, divided by 0xFD: kept are at most `LIMIT`
    bytes, and nothing but beside the target."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        os.environ.pop(variable, None)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        target = Path(name, "kept", "file")
        target.parent.mkdir()
        with _servers(data.split(b"\xfd")):
            for update in (False, True):
                with contextlib.suppress(RomfsError):
                    got = download.download(
                        "http://zoo.example/models.zip", target, limit=LIMIT, update=update
                    )
                    assert got.size == target.stat().st_size <= LIMIT
        assert os.listdir(name) == ["kept"]
        assert all(each.startswith("file") for each in os.listdir(target.parent))
