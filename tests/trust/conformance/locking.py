"""Locks of several processes: who waits, who gets what, and when they end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from cases import (
    Case,
    case,
    make,
)
from sharing import elsewhere, lock

OWN, OWN_WAIT = 37, 38  # <fcntl.h>, F_OFD_SETLK, F_OFD_SETLKW


def exclusive(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def record(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 0, 10))


def own(fd: int) -> None:
    fcntl.fcntl(fd, OWN, lock(fcntl.F_WRLCK, 0, 10))


KINDS: dict[str, Callable[[int], None]] = {"flock": exclusive, "record": record, "own": own}


@contextlib.contextmanager
def a_process(work: Callable[[], object]) -> Iterator[int]:
    """Another process, which did something and waits; killed in the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writing, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    try:
        yield child
    finally:
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(reading)


@case
def how_locks_end(c: Case) -> None:
    """With the process that has them, or with its last descriptor; not with another's."""
    make("f", b"x" * 100)
    for name, take in KINDS.items():
        fd = os.open("f", os.O_RDWR)
        with a_process(lambda take=take: take(os.open("f", os.O_RDWR))):
            c.do(f"{name}: while it lives", take, fd)
        c.do(f"{name}: when it was killed=", take, fd)
        os.close(fd)
        one = os.open("f", os.O_RDWR)
        again = os.dup(one)
        take(one)
        os.close(one)
        c.do(f"{name}: one of two descriptors closed", elsewhere,
             lambda take=take: take(os.open("f", os.O_RDWR)))  # fmt: skip
        os.close(again)
        c.do(f"{name}: both closed", elsewhere, lambda take=take: take(os.open("f", os.O_RDWR)))
        one = os.open("f", os.O_RDWR)
        take(one)
        with a_process(lambda: None):  # which has the descriptor too
            os.close(one)
            c.do(f"{name}: a child has it", elsewhere,
                 lambda take=take: take(os.open("f", os.O_RDWR)))  # fmt: skip
        c.do(f"{name}: none has", elsewhere, lambda take=take: take(os.open("f", os.O_RDWR)))
        one = os.open("f", os.O_RDWR)
        take(one)
        os.rename("f", "g")
        c.do(f"{name}: renamed", elsewhere, lambda take=take: take(os.open("g", os.O_RDWR)))
        os.unlink("g")
        make("f", b"y" * 100)
        c.do(f"{name}: another of its name", elsewhere,
             lambda take=take: take(os.open("f", os.O_RDWR)))  # fmt: skip
        os.close(one)
    for name, one, other in (("both kinds", exclusive, record), ("record and own", record, own)):
        fd = os.open("f", os.O_RDWR)
        one(fd)
        c.do(name, lambda other=other: elsewhere(lambda: other(os.open("f", os.O_RDWR))))
        os.close(fd)


def waited(take: Callable[[int], Any]) -> Callable[[], str]:
    """Take a lock that another has to give up first; interrupted when that takes too long."""

    def work() -> str:
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(60)
        take(os.open("f", os.O_RDWR))
        return "got it"

    return work


def _too_long(*_: object) -> None:
    raise TimeoutError(110, "too long")


@case
def waiting_for_locks(c: Case) -> None:
    make("f", b"x" * 100)
    waits: dict[str, Callable[[int], Any]] = {
        "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX),
        "record": lambda fd: fcntl.fcntl(fd, fcntl.F_SETLKW, lock(fcntl.F_WRLCK, 0, 10)),
        "own": lambda fd: fcntl.fcntl(fd, OWN_WAIT, lock(fcntl.F_WRLCK, 0, 10)),
    }
    for name, wait in waits.items():
        with a_process(lambda name=name: KINDS[name](os.open("f", os.O_RDWR))):
            reading, writing = os.pipe()
            waiter = os.fork()
            if waiter == 0:
                with contextlib.suppress(OSError):
                    os.write(writing, b"1")
                    os.write(writing, waited(wait)().encode())
                os._exit(0)
            os.close(writing)
            os.read(reading, 1)
            time.sleep(0.02)
            c.note(f"{name}: it waits", os.waitpid(waiter, os.WNOHANG)[0])
        os.waitpid(waiter, 0)
        c.note(f"{name}: then", os.read(reading, 20).decode())
        os.close(reading)

    def interrupted() -> str:
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        fcntl.flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)
        return "got it"

    with a_process(lambda: exclusive(os.open("f", os.O_RDWR))):
        c.do("interrupted", elsewhere, interrupted)

    def two_ways() -> str:
        """Two that each wait for what the other has: one is told so."""
        fd = os.open("f", os.O_RDWR)
        record(fd)
        done = os.fork()
        if done == 0:
            mine = os.open("f", os.O_RDWR)
            fcntl.fcntl(mine, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 20, 10))
            with contextlib.suppress(OSError):
                fcntl.fcntl(mine, fcntl.F_SETLKW, lock(fcntl.F_WRLCK, 0, 10))
            os._exit(0)
        while fcntl.fcntl(fd, fcntl.F_GETLK, lock(fcntl.F_WRLCK, 20, 1))[0] == fcntl.F_UNLCK:
            time.sleep(0.001)
        time.sleep(0.02)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLKW, lock(fcntl.F_WRLCK, 20, 10))
        except OSError as error:
            return f"errno {error.errno}"
        finally:
            os.close(fd)
            os.waitpid(done, 0)
        return "got it"

    c.note("each waits for the other", two_ways() in ("got it", "errno 35"))


@case
def locks_as_the_system_lists_them(c: Case) -> None:
    make("f", b"x" * 100)
    number = os.stat("f").st_ino
    for name, take in KINDS.items():
        fd = os.open("f", os.O_RDWR)
        take(fd)
        with open("/proc/locks") as listed:
            lines = [line.split() for line in listed if f":{number} " in line]
        c.note(name, [words[1:4] for words in lines])
        os.close(fd)


@case
def leases(c: Case) -> None:
    make("f", b"x")
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    for name, flags in (("reader", os.O_RDONLY), ("writer", os.O_WRONLY), ("both", os.O_RDWR)):
        for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
            fd = os.open("f", flags)
            c.do(f"{name}: lease {kind}", fcntl.fcntl, fd, fcntl.F_SETLEASE, kind)
            c.do("which", fcntl.fcntl, fd, fcntl.F_GETLEASE)
            os.close(fd)
    fd = os.open("f", os.O_RDONLY)
    c.do("lease", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    c.do("a reader", elsewhere, lambda: os.close(os.open("f", os.O_RDONLY)))
    c.do("a writer that does not wait", elsewhere, lambda: os.close(
        os.open("f", os.O_WRONLY | os.O_NONBLOCK)))  # fmt: skip
    os.close(fd)
    folder = os.open(".", os.O_RDONLY)
    c.do("of a folder", fcntl.fcntl, folder, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    c.do("notice", fcntl.fcntl, folder, fcntl.F_NOTIFY, fcntl.DN_CREATE)
    os.close(folder)
