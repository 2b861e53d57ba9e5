"""Mounts a fake host: `python serve.py STATE MOUNTPOINT [--foreground] [-o OPTIONS]...`.

Prints the daemon's process id, or one line for the error, with its exit code. What the daemon
syncs, and what the file holds then, goes into STATE/synced. With a file STATE/full, its disk has no
room for the record of the mount.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[above]) for above in (2, 1, 0)]

from fake_host import open_host  # noqa: E402

from romfsfs.errors import RomfsError  # noqa: E402
from romfsfs.fs.daemon import MountOptions, mount  # noqa: E402


def record_syncs(log: Path) -> None:
    def record(name: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def recorded(fd: int) -> None:
            real(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            with log.open("a") as file:
                print(name, os.path.relpath(path, log.parent), os.fstat(fd).st_size, file=file)

        return recorded

    for name in ("fsync", "fdatasync"):
        setattr(os, name, record(name, getattr(os, name)))


def main() -> int:
    state, mountpoint, *rest = sys.argv[1:]

    def record_mount() -> list[str]:
        if os.path.exists(f"{state}/full"):
            raise OSError(errno.ENOSPC, "No space left on device", f"{state}/lock")
        return []

    record_syncs(Path(state, "synced"))
    extra = tuple(rest[index + 1] for index, word in enumerate(rest) if word == "-o")
    options = MountOptions(
        source=f"{state}/camera, the first.img",
        foreground="--foreground" in rest,
        extra=extra,
        progress=lambda phase, done, total: print(f"{phase} {done}/{total}"),
        mounted=record_mount,
    )
    try:
        print(f"pid {mount(open_host(Path(state)), mountpoint, options)[0]}", flush=True)
    except RomfsError as error:
        print(f"{type(error).__name__}: {error.line}\n{error.detail}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
