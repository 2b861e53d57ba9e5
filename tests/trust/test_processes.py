"""Several processes at once, of which each is told exactly what it would be told alone."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import until
from real_mount import LONG, ROUND, RealMount
from worker import FOLDERS, PART, PROCESSES, RECORD

SECONDS = LONG or 1  # of each binding
WORKER = Path(__file__).with_name("worker.py")


def prepare(folder: Path) -> None:
    for name in FOLDERS:
        (folder / name).mkdir()
    (folder / "shared").write_bytes(bytes(PROCESSES * PART))
    (folder / "journal").touch()
    (folder / "counter").touch()


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_each_finds_what_it_left(
    mounted: RealMount, record_property: Callable[[str, object], None]
) -> None:
    prepare(mounted.mnt)
    running = [
        subprocess.Popen(
            [sys.executable, WORKER, mounted.mnt, str(SECONDS), str(100 * ROUND + number),
             str(number)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    reports = [json.loads(each.communicate(timeout=SECONDS + 60)[0]) for each in running]
    record_property("operations", sum(report["operations"] for report in reports))
    assert [report["wrong"] for report in reports] == [[]] * PROCESSES
    for folder in (mounted.mnt, mounted.work):
        _is_what_they_know(folder, reports)


def test_what_is_being_written_stays_in_memory(mounted: RealMount) -> None:
    """The kernel that drops pages in the middle of a write reads back what was there before."""
    path = mounted.mnt / "f"
    path.write_bytes(b"x" * 5 * mmap.PAGESIZE)
    with path.open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as mapping:
        sum(mapping[:: mmap.PAGESIZE])
        for number in range(3):
            file.write(b"%d" % number)
            path.stat()  # the new time of change is known
            assert in_memory(mapping) == 5, number
            path.open("rb").close()
            assert in_memory(mapping) == 5, number
    # A file that nobody has open for writing may have been changed in the work tree itself.
    (mounted.work / "f").write_bytes(b"y" * 5 * mmap.PAGESIZE)
    until(lambda: path.read_bytes() == b"y" * 5 * mmap.PAGESIZE)


def in_memory(mapping: mmap.mmap) -> int:
    """How many of its pages the kernel has."""
    pages = ctypes.create_string_buffer(len(mapping) // mmap.PAGESIZE)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapping)))
    assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mapping)), pages) == 0
    return sum(each & 1 for each in pages.raw)


def _is_what_they_know(folder: Path, reports: list[dict[str, object]]) -> None:
    files: dict[str, object] = {}
    for report in reports:
        files |= report["files"]  # type: ignore[arg-type]
    found = {
        f"{name}/{entry.name}": _digest(entry)
        for name in FOLDERS for entry in (folder / name).iterdir()
    }  # fmt: skip
    found.pop("two/three")
    assert found == files
    shared = (folder / "shared").read_bytes()
    parts = [shared[start : start + PART] for start in range(0, len(shared), PART)]
    assert [hashlib.sha256(part).hexdigest() for part in parts] == [
        report["part"] for report in reports
    ]
    lines = (folder / "journal").read_text().splitlines(keepends=True)
    for number, report in enumerate(reports):
        mine = [line for line in lines if line.startswith(f"{number:03} ")]
        assert mine == [RECORD % (number, each) for each in range(int(str(report["records"])))]
    assert len(lines) == sum(int(str(report["records"])) for report in reports)
    counted = sum(int(str(report["counted"])) for report in reports)
    assert int((folder / "counter").read_bytes() or b"0") == counted
    assert not [name for name in os.listdir(folder) if name.startswith(".fuse_hidden")]


def _digest(path: Path) -> str | None:
    return None if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
