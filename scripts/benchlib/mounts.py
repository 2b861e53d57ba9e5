"""Mounting ours and the bare loopback for a measurement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import CHECKOUT, ROMFSFS, Bench

LOOPBACK = CHECKOUT / "tests/fs/loopback.py"
_PATIENCE_SECONDS = 60


@contextmanager
def ours(bench: Bench, image: Path, *options: object) -> Iterator[int]:
    """`romfsfs mount IMAGE`; the daemon's process id. Edits are thrown away at the end."""
    bench.run(ROMFSFS, "mount", image, bench.mountpoint, *options)
    try:
        yield daemon_of(bench)
    finally:
        bench.run(ROMFSFS, "umount", "--discard", bench.mountpoint)


def daemon_of(bench: Bench) -> int:
    """Who serves the mount, as the session's lock says."""
    for lock in (bench.place / "state/sessions").glob("*/lock"):
        found = re.search(r'"pid": (\d+)', lock.read_text())
        if found and str(bench.mountpoint) in lock.read_text():
            return int(found[1])
    raise RuntimeError("no session is mounted")


@contextmanager
def loopback(bench: Bench) -> Iterator[float]:
    """The loopback over an empty folder; seconds from its start until it could be listed."""
    root = bench.place / "loopback-root"
    root.mkdir()
    before = bench.mountpoint.stat().st_dev
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(LOOPBACK), str(root), str(bench.mountpoint)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while bench.mountpoint.stat().st_dev == before:
        if process.poll() is not None or time.perf_counter() - started > _PATIENCE_SECONDS:
            said = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"the loopback did not mount: {said}")
        time.sleep(0.001)
    os.listdir(bench.mountpoint)
    taken = time.perf_counter() - started
    try:
        yield taken
    finally:
        program = shutil.which("fusermount3") or "fusermount"
        subprocess.run([program, "-u", str(bench.mountpoint)], check=True)
        process.wait(_PATIENCE_SECONDS)
        if process.stderr:
            process.stderr.close()
        shutil.rmtree(root)


def cpu_seconds(pid: int) -> float:
    """What a running process has used so far, user and system, its ended children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """The most memory a running process has held so far, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def drop_names() -> None:
    """Make the kernel forget names and inodes (not pages). Root; else the caches stay warm."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except PermissionError:
        print("  not root: caches stay warm", file=sys.stderr)
