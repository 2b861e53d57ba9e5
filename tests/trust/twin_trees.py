"""One operation, done in a mount and in a plain directory: both must answer and end alike."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from processes import until

#: Modification times that an operation sets lie before this (ns); what the clock sets lies after.
CLOCK = 10**18


class Seen(NamedTuple):
    """What stat says of a file or folder. mtime_ns: None where the clock set it."""

    mode: str
    links: int
    size: int
    mtime_ns: int | None
    content: bytes | str | None


def answer(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a call returns, or the name of its errno."""
    try:
        return call(*args, **options)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def seen(path: Path) -> Seen | str:
    """What there is; for who is not root perhaps only the name of the error."""
    found = answer(os.lstat, path)
    if isinstance(found, str):
        return found
    folder = stat.S_ISDIR(found.st_mode)
    return Seen(
        stat.filemode(found.st_mode),
        found.st_nlink,
        0 if folder else found.st_size,
        found.st_mtime_ns if found.st_mtime_ns < CLOCK else None,
        None if folder else answer(path.read_bytes),  # root may read all; others see EACCES
    )


def tree(root: Path) -> dict[str, Seen | str]:
    """Everything below a folder."""
    found: dict[str, Seen | str] = {}
    pending = [root]
    while pending:
        folder = pending.pop()
        names = answer(os.listdir, folder)
        if isinstance(names, str):
            found[f"{folder.relative_to(root).as_posix()}/"] = names
            continue
        for name in names:
            path = folder / name
            found[path.relative_to(root).as_posix()] = here = seen(path)
            if isinstance(here, Seen) and here.content is None:
                pending.append(path)
    return found


class Twin:
    """A file opened in both trees. path: by which name."""

    def __init__(self, mine: int, theirs: int, writable: bool, path: str) -> None:
        self.mine, self.theirs, self.writable, self.path = mine, theirs, writable, path

    @property
    def named(self) -> bool:
        return os.fstat(self.theirs).st_nlink > 0

    def both(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        mine = answer(call, self.mine, *args, **options)
        theirs = answer(call, self.theirs, *args, **options)
        assert mine == theirs, (call, args, mine, theirs)
        return theirs

    def fstat(self) -> None:
        def look(fd: int) -> tuple[str, int, int]:
            found = os.fstat(fd)
            return stat.filemode(found.st_mode), found.st_nlink, found.st_size

        mine, theirs = answer(look, self.mine), answer(look, self.theirs)
        # libfuse finds no way to a file without a name whose folder is gone too.
        assert mine == theirs or (theirs[1] == 0 and mine in ("ENOENT", "ESTALE")), (mine, theirs)

    def map(self, offset: int, data: bytes) -> None:
        def change(fd: int) -> str:
            size = os.fstat(fd).st_size
            if offset + len(data) > size:
                return "too short"
            with mmap.mmap(fd, size) as mapping:
                mapping[offset : offset + len(data)] = data
                mapping.flush()
            return "changed"

        self.both(change)

    def close(self) -> None:
        self.both(os.close)


class Trees:
    """The mount and the plain directory."""

    def __init__(self, mount: Path, plain: Path) -> None:
        self.mount, self.plain = mount, plain
        self.done = 0
        self.history: deque[str] = deque(maxlen=60)

    def both(self, call: Callable[..., Any], *paths: str, **options: Any) -> Any:
        """`call` with paths in each tree; the answer, which is the same."""
        mine = answer(call, *(self.mount / path for path in paths), **options)
        theirs = answer(call, *(self.plain / path for path in paths), **options)
        self.history.append(f"{call.__name__}{paths} {str(options)[:60]}: {str(theirs)[:40]}")
        assert mine == theirs, (call, paths, options, mine, theirs)
        self.done += 1
        return theirs

    def open(self, path: str, flags: int) -> Twin | None:
        mine = answer(os.open, self.mount / path, flags, 0o644)
        theirs = answer(os.open, self.plain / path, flags, 0o644)
        self.done += 1
        self.history.append(f"open {path} {flags:#o}: {theirs!s}")
        if isinstance(mine, int) and isinstance(theirs, int):
            return Twin(mine, theirs, flags & os.O_ACCMODE != os.O_RDONLY, path)
        assert mine == theirs, (path, flags, mine, theirs)
        return None

    def compare(self, mount: Path | None = None) -> None:
        """Both trees show the same: names, contents, modes, links, times that were set."""
        mine, theirs = tree(mount or self.mount), tree(self.plain)
        assert mine == theirs, sorted(set(mine.items()) ^ set(theirs.items()))

    def clear(self) -> None:
        for root in (self.mount, self.plain):
            subprocess.run(["chmod", "-R", "u+rwX", root], check=True)  # who is not root needs it
            for path, found in sorted(tree(root).items(), reverse=True):
                assert isinstance(found, Seen)
                (os.rmdir if found.content is None else os.unlink)(root / path)

    def forget_attributes(self) -> None:
        """The plain tree as an image keeps it: neither modes nor times."""
        now = time.time_ns()
        subprocess.run(["chmod", "-R", "u+rwX", self.plain], check=True)
        for path, found in tree(self.plain).items():
            assert isinstance(found, Seen)
            os.chmod(self.plain / path, 0o755 if found.content is None else 0o644)
            os.utime(self.plain / path, ns=(now, now))


def settled_shadow(mount: Path) -> tuple[dict[str, bytes | None], bool]:
    """(what the shadow tree holds, whether a commit must be refused) when all conversions of
    closed files have run."""
    import json

    status: dict[str, Any] = {}

    def settled() -> bool:
        nonlocal status
        status = json.loads((mount / ".romfs/status.json").read_text(errors="surrogateescape"))
        return all(
            entry["state"] != "pending" or entry["message"].startswith("open for writing")
            for entry in status["entries"]
        )

    try:
        until(settled)
    except AssertionError:
        waiting = [entry for entry in status["entries"] if entry["state"] == "pending"]
        raise AssertionError(f"still waiting for {waiting}") from None
    waits = any(entry["state"] == "pending" for entry in status["entries"])
    if waits or any(problem["code"] != "no-board" for problem in status["problems"]):
        return {}, True
    root = mount / ".romfs/shadow"
    shown = {path: found for path, found in tree(root).items() if isinstance(found, Seen)}
    return {path: found.content for path, found in shown.items()}, False
