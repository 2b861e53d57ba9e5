"""POSIX conformance, case by case, after pjdfstest's chapters: what each call answers, and changes.

`python conformance FOLDER` runs every case in a folder of its own below FOLDER and prints what was
answered as JSON: {case: [[what, answer], ...]}. It judges nothing: the same run in a plain
directory says what is right (`test_posix.py`). Needs nothing but Python, so any user can run it.

An answer is the errno's name, or what the call returned in short. Lines that begin with a mark are
about what need not be equal: '!' the call is for something that ROMFS has no place for (links,
devices); '~' an option that a file system may decline (EINVAL, EOPNOTSUPP); '?' what is left of
either, once one in this case was declined.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[Case], None]] = {}
_COARSE_CLOCK = 5  # <linux/time.h>, CLOCK_REALTIME_COARSE: of file times; `time` has no name for it
LIBC = ctypes.CDLL(None, use_errno=True)
LONG_NAME = "n" * 255
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


class Case:
    """Notes what calls answer. The working directory is the case's own folder."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Any]] = []

    def do(self, what: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call and note its answer; what it returned, None if it failed."""
        try:
            result = call(*args, **options)
        except OSError as error:
            self.note(what, errno.errorcode.get(error.errno or 0, str(error)))
            return None
        except ValueError as error:  # of mmap, which looks at the file's size itself
            self.note(what, str(error))
            return None
        shown = result
        if isinstance(result, os.stat_result):
            shown = [stat.filemode(result.st_mode), result.st_nlink, result.st_size]
        elif isinstance(result, bytes):
            shown = result.hex() if len(result) < 64 else f"{len(result)} bytes"
        self.note(what, "ok" if what.endswith("=") else shown)
        return result

    def note(self, what: str, answer: Any) -> None:
        self.answers.append((what, answer))

    def opened(self, what: str, path: str, flags: int, mode: int = 0o644) -> int:
        """A descriptor whose number is nobody's business; -1 if there is none."""
        fd = self.do(f"{what}=", os.open, path, flags, mode)
        return -1 if fd is None else int(fd)

    def changes(self, what: str, *paths: str) -> Watch:
        """Notes which times of these paths a block changes."""
        return Watch(self, what, paths)


def next_tick() -> None:
    """Wait until a change has another time than all changes before. No fixed pause: the clock of
    file times is behind the other one, on a busy machine by more than its own tick."""
    begun = time.time_ns()
    while time.clock_gettime_ns(_COARSE_CLOCK) <= begun:
        time.sleep(0.002)


class Watch:
    def __init__(self, case: Case, what: str, paths: tuple[str, ...]) -> None:
        self.case, self.what, self.paths = case, what, paths

    def __enter__(self) -> None:
        self.before = [os.stat(path) for path in self.paths]
        next_tick()

    def __exit__(self, *exc: object) -> None:
        for path, old in zip(self.paths, self.before, strict=True):
            try:
                new = os.stat(path)
            except OSError:
                continue
            self.case.note(
                f"{self.what}: times of {path}",
                [
                    "m" * (new.st_mtime_ns != old.st_mtime_ns),
                    "c" * (new.st_ctime_ns != old.st_ctime_ns),
                ],
            )


def case(function: Callable[[Case], None]) -> Callable[[Case], None]:
    CASES[function.__name__] = function
    return function


def make(path: str, data: bytes = b"", mode: int = 0o644) -> str:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.close(fd)
    os.chmod(path, mode)
    return path


def called(function: Any, *args: Any) -> int:
    """A C function's result; OSError with its errno."""
    result = int(function(*args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


def utimensat(path: str | None, *times: tuple[int, int], fd: int = -100) -> int:
    both = (Timespec * 2)(*(Timespec(*each) for each in times))
    return called(LIBC.utimensat, fd, os.fsencode(path) if path is not None else None, both, 0)


def bad_paths(c: Case, what: str, call: Callable[[str], Any]) -> None:
    """What every call with a path answers to paths that lead nowhere."""
    make("plain-file")
    c.do(f"{what}: through a file", call, "plain-file/x")
    c.do(f"{what}: missing folder", call, "missing/x")
    c.do(f"{what}: name of 256", call, "n" * 256)
    c.do(f"{what}: path of PATH_MAX", call, "./" * 2047 + "xx")
    c.do(f"{what}: empty path", call, "")
    c.do(f"{what}: through a file with a dot", call, "plain-file/.")
    c.do(f"{what}: a file with a slash", call, "plain-file/")


def closed_folder(c: Case, what: str, call: Callable[[str], Any], *, also: str = "") -> None:
    """What a call answers below folders without search and without write permission."""
    for name, mode in (("no-search", 0o600), ("no-write", 0o500), ("nothing", 0)):
        os.mkdir(name)
        make(f"{name}/x", b"data")
        os.mkdir(f"{name}/d")
        os.chmod(name, mode)
        c.do(f"{what}: {name}", call, f"{name}/x{also}")
        os.chmod(name, 0o700)
