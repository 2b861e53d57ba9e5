"""Names in images and words of cameras reach the terminal as text, never as commands to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fuzz_camera
import pytest
from seeds import facts_text, image, named, record

from romfsfs.devices.serial_camera import probe, repl
from romfsfs.errors import ImageFormatError

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
    parts = (*fuzz_camera.entering(), *fuzz_camera.running(text))
    with fuzz_camera.fuzz_port(b"\0" + fuzz_camera.DIVIDER.join(parts)) as port:
        facts = probe.probe(repl.RawRepl(port))
    assert "evil" in facts.machine
    assert facts.machine.isprintable()
