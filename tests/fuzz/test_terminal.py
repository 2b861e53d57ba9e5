"""Names in images and words of cameras reach the terminal as text, never as commands to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzz_camera
import pytest
import unhurried
from seeds import facts_text, image, named, record

import romfsfs.api
from romfsfs.devices.serial_camera import probe, repl
from romfsfs.errors import ImageFormatError
from romfsfs.image.rules import AlignmentRules
from romfsfs.image.writer import encode

ESCAPE = "\x1b]0;evil\x07\x1b[2J"
CHECKOUT = Path(__file__).parents[2]


def shown(tmp_path: Path, data: bytes, *words: str) -> str:
    place = tmp_path / "hostile.img"
    place.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "romfsfs", "-v", *words, str(place)],
        env={**os.environ, "ROMFSFS_STATE_DIR": str(tmp_path / "state")}, cwd=CHECKOUT,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x07" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", [("ls",), ("ls", "-l"), ("info",), ("verify",)])
def test_names_of_an_image(tmp_path: Path, words: tuple[str, ...]) -> None:
    good = image(named(4, ESCAPE, named(5, ESCAPE, record(9, b"") + record(2, b"1"))))
    assert "evil" in shown(tmp_path, good, *words) or words[0] == "info"
    bad = image(named(4, ESCAPE, named(5, ESCAPE, b"")))
    assert "evil" in shown(tmp_path, bad, *words)


def test_an_error_is_one_printable_line() -> None:
    error = ImageFormatError("a\nreason", 1, where=f"{ESCAPE}\udc80\u2028")
    assert error.line.isprintable()


def test_words_of_a_camera() -> None:
    text = facts_text().replace(b"OpenMV N6 with", ascii(ESCAPE)[1:-1].encode())
    parts = (*fuzz_camera.entering(), *fuzz_camera.running(2 * text))
    with fuzz_camera.fuzz_port(b"\0" + fuzz_camera.DIVIDER.join(parts)) as port:
        facts = probe.probe(repl.RawRepl(port))
    assert "evil" in facts.machine
    assert facts.machine.isprintable()


def on_a_terminal(folder: Path, *words: object) -> str:
    """What a command writes to a terminal."""
    here, there = os.openpty()
    process = subprocess.Popen(
        [sys.executable, unhurried.__file__, *map(str, words)],
        env={
            **os.environ, "ROMFSFS_STATE_DIR": str(folder / "state"), "TERM": "xterm",
            "ROMFSFS_CACHE_DIR": str(folder / "cache"), "NO_COLOR": "1", "PAGER": "cat",
        },
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=there, stderr=there,
    )  # fmt: skip
    os.close(there)
    said = b""
    try:
        while data := os.read(here, 4096):
            said += data
    except OSError:  # closed at the other end
        pass
    os.close(here)
    assert process.wait(60) in (0, 1), said
    return said.decode("utf-8", "surrogateescape")


def test_names_and_texts_on_a_terminal(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{ESCAPE}.tflite".replace("/", "")).write_bytes(b"x")
    (models / "\udcff\udc80.tflite").write_bytes(b"x")
    app = tmp_path / "app.img"
    app.write_bytes(image(named(5, "a.txt", record(2, f"{ESCAPE}old\n".encode()))))
    with romfsfs_open(tmp_path, app) as editor:
        (editor.path / "a.txt").write_text(f"{ESCAPE}new\n")
        (editor.path / f"{ESCAPE}.txt").write_text("1")
    for words in (
        ("zoo", "list", "--all", "--from", models), ("diff", app), ("status", app), ("log", app),
        ("revert", app, "--yes"), ("extract", app, tmp_path / ESCAPE), ("sessions",),
    ):  # fmt: skip
        said = on_a_terminal(tmp_path, *words)
        assert "\x1b" not in said, (words, said)
        assert "\x07" not in said
        assert "evil" in said or words[0] in ("log", "sessions"), (words, said)


@contextlib.contextmanager
def romfsfs_open(folder: Path, app: Path) -> Iterator[romfsfs.api.Editor]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ROMFSFS_STATE_DIR", str(folder / "state"))
        patched.setenv("ROMFSFS_CACHE_DIR", str(folder / "cache"))
        with romfsfs.api.open(app) as editor:
            yield editor


def test_a_name_that_verify_finds_fault_with(tmp_path: Path) -> None:
    data = encode({"x": b"1", f"{ESCAPE}\nfake.tflite": b"1234"}, AlignmentRules(4, ()))
    said = shown(tmp_path, data, "verify", "--board", "OPENMV_N6")
    faults = [line for line in said.splitlines() if "not a multiple of 32" in line]
    assert len(faults) == 1
    assert faults[0].startswith("romfsfs: error: ")
