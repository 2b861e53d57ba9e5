"""Mounts a fake host: `python serve.py STATE MOUNTPOINT [--foreground] [-o OPTIONS]...`.

Prints the daemon's process id, or one line for the error, with its exit code.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from fake_host import open_host  # noqa: E402

from romfsfs.errors import RomfsError  # noqa: E402
from romfsfs.fs.daemon import MountOptions, mount  # noqa: E402


def main() -> int:
    state, mountpoint, *rest = sys.argv[1:]
    extra = tuple(rest[index + 1] for index, word in enumerate(rest) if word == "-o")
    options = MountOptions(
        source=f"{state}/camera, the first.img",
        foreground="--foreground" in rest,
        extra=extra,
        progress=lambda phase, done, total: print(f"{phase} {done}/{total}"),
    )
    try:
        print(f"pid {mount(open_host(Path(state)), mountpoint, options)}", flush=True)
    except RomfsError as error:
        print(f"{type(error).__name__}: {error.line}\n{error.detail}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
