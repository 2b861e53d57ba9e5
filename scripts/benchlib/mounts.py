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
from typing import NamedTuple

from measure import CHECKOUT, Bench, Usage

LOOPBACK = CHECKOUT / "tests/fs/loopback.py"
_PATIENCE_SECONDS = 60


class Mount(NamedTuple):
    """What serves a mount, and what mounting took until it could be listed, its CPU included."""

    pid: int
    taken: Usage

    @property
    def cpu(self) -> float:
        """Processor seconds that it has used so far, its ended children's included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    @property
    def peak_memory(self) -> int:
        """The most memory that it has held so far, bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@contextmanager
def ours(bench: Bench, source: object, *options: object) -> Iterator[Mount]:
    """`romfsfs mount SOURCE`. At the end its tree is left where it is: removing 20,000 files would
    slow whoever makes some on ext4 in the next seconds, ours and the peer (`Bench.put_away`)."""
    started = time.perf_counter()
    usage = bench.ours("mount", source, bench.mountpoint, *options)
    os.listdir(bench.mountpoint)
    seconds = time.perf_counter() - started
    mountpoint, mount = bench.mountpoint, Mount(_daemon_of(bench), usage)
    try:
        yield mount._replace(taken=Usage(seconds, usage.cpu + mount.cpu))
    finally:
        _unmount(mountpoint)
        while Path(f"/proc/{mount.pid}").exists():
            time.sleep(0.001)


def _daemon_of(bench: Bench) -> int:
    """Who serves the mount, as the session's lock says."""
    for lock in (bench.state / "sessions").glob("*/lock"):
        found = re.search(r'"pid": (\d+)', lock.read_text())
        if found and str(bench.mountpoint) in lock.read_text():
            return int(found[1])
    raise RuntimeError("no session is mounted")


@contextmanager
def loopback(bench: Bench) -> Iterator[Mount]:
    """The loopback over an empty folder."""
    root = bench.place / "loopback-root"
    root.mkdir()
    before = bench.mountpoint.stat().st_dev
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(LOOPBACK), str(root), str(bench.mountpoint)], env=bench.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while bench.mountpoint.stat().st_dev == before:
        if process.poll() is not None or time.perf_counter() - started > _PATIENCE_SECONDS:
            said = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"the loopback did not mount: {said}")
        time.sleep(0.001)
    os.listdir(bench.mountpoint)
    seconds = time.perf_counter() - started
    mount = Mount(process.pid, Usage(seconds))
    try:
        yield mount._replace(taken=Usage(seconds, mount.cpu))
    finally:
        _unmount(bench.mountpoint)
        process.wait(_PATIENCE_SECONDS)
        if process.stderr:
            process.stderr.close()
        shutil.rmtree(root)


def _unmount(mountpoint: Path) -> None:
    program = shutil.which("fusermount3") or "fusermount"
    subprocess.run([program, "-u", str(mountpoint)], check=True)


def drop_names() -> None:
    """Make the kernel forget names and inodes (not pages). Root; else the caches stay warm."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except PermissionError:
        print("  not root: caches stay warm", file=sys.stderr)
