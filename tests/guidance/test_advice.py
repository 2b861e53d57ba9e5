"""What the status says beyond what stops a commit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from romfsfs.cli import main
from romfsfs.errors import shell_word
from romfsfs.image.writer import encode
from romfsfs.session.plan.advice import misaligned

#: x.bin of 5 bytes at an offset that is no multiple of 16, as mpremote would place it
PEERS = b"\xd2\xcd\x31\x0f\x05\x0d\x05x.bin\x02\x05abcde"


class Session:
    """A session of an image file, edited in its work tree; commands as a user types them."""

    def __init__(self, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.image = image
        self._capsys = capsys

    def begin(self, board: str) -> Path:
        """Mount, and unmount with an edit, so that the session stays; its work tree."""
        folder = self.image.with_name("cam")
        folder.mkdir()
        assert main(["mount", str(self.image), str(folder), "--board", board]) == 0
        try:
            (folder / "edit.txt").write_text("x")
        finally:
            assert main(["umount", str(folder)]) == 0
        self._capsys.readouterr()
        assert main(["sessions", "--json"]) == 0
        return Path(json.loads(self._capsys.readouterr().out)[0]["directory"]) / "work"

    def status(self) -> str:
        self._capsys.readouterr()
        assert main(["status", str(self.image)]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def session(tmp_path: Path, fuse_device: None, capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(tmp_path / "app.img", capsys)


def test_misaligned_data_is_said_and_repaired(session: Session) -> None:
    session.image.write_bytes(PEERS)
    work = session.begin("OPENMV4P")
    assert "x.bin: misaligned in the image: its data is at 0xe" in session.status()
    assert "the next commit repairs it" in session.status()
    (work / "edit.txt").unlink()
    assert f"romfsfs commit --compact {shell_word(str(session.image))}" in session.status()
    assert main(["verify", str(session.image), "--board", "OPENMV4P"]) == 4
    assert main(["commit", "--compact", str(session.image)]) == 0
    assert "misaligned in the image" not in session.status()
    assert main(["verify", str(session.image), "--board", "OPENMV4P"]) == 0


def test_many_misaligned_files_do_not_fill_the_screen() -> None:
    wrong = [(f"{n}.tflite", n * 16 + 4, 16) for n in range(20)]
    problems = misaligned(wrong, "the next commit repairs it")
    assert len(problems) == 6
    assert problems[-1].message.startswith("15 more files")


def test_largest_files_and_duplicates(session: Session) -> None:
    session.image.write_bytes(encode({}))
    work = session.begin("OPENMV2")  # 128 KiB
    (work / "large.dat").write_bytes(os.urandom(70_000))
    (work / "small.dat").write_bytes(os.urandom(10_000))
    text = session.status()
    assert "are left" not in text
    assert "more than once" not in text
    (work / "copy.dat").write_bytes((work / "small.dat").read_bytes())
    assert "10,000 B are stored more than once: copy.dat = small.dat" in session.status()
    (work / "more.dat").write_bytes(os.urandom(35_000))
    text = session.status()
    assert "B are left; the largest files: large.dat 70,000 B, more.dat 35,000 B" in text
