"""The host's side of the READ loop (`snippets.py`): requests out, checked bytes in.

A few requests are on the way at once, so that the link never idles. What is lost or garbled is
asked for again, a limited number of times.
"""

from __future__ import annotations

import binascii
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from romfsfs.devices.serial_camera import snippets
from romfsfs.devices.serial_camera.frames import MAX_CHUNK
from romfsfs.devices.serial_camera.repl import ANSWER_LIMIT, RawRepl
from romfsfs.errors import DeviceAnswer, DeviceLost
from romfsfs.image.file_buffer import WindowBuffer

#: bytes fetched at once when only the records are wanted: a small file fits into one such piece
_RECORDS = 512
#: requests on the way: covers the round trip of a USB port
_READ_AHEAD = 4
#: seconds of silence after which a request or frame counts as lost
SILENCE = 3.0
#: seconds within which all that was asked for has come, on a slow line too
_DRAIN_LIMIT = 3.0
#: failures in a row at the same place after which it is given up
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a partition to read or write, from `start` on; offsets below count from there.

    raw: bytes travel as they are, else as base64. crc32, poll: the firmware has these. chunk: bytes
    of a piece. cached, mram: see `snippets.write_loop`."""

    kind: str
    partition: int
    raw: bool
    crc32: bool
    poll: bool
    chunk: int = MAX_CHUNK
    start: int = 0
    cached: bool = False
    mram: bool = False


def read_range(
    repl: RawRepl,
    window: Window,
    start: int,
    end: int,
    out: BinaryIO,
    done: Callable[[int], None],
) -> int:
    """Copy bytes start..end of the window to `out`; returns how far it came, which is less than
    `end` if bytes keep getting lost, or something else prints all the time. The camera is then at
    its prompt, and after any exception but DeviceLost. DeviceAnswer: nothing was copied."""
    with _loop(repl, window):
        position = _read_chunks(repl, window, start, end, out, done)
        if position < end:
            repl.recover()
    return position


@contextmanager
def records_of(repl: RawRepl, window: Window, size: int) -> Iterator[WindowBuffer]:
    """The first `size` bytes of the window, fetched only where they are looked at; valid within the
    block. DeviceLost if bytes keep getting lost."""

    def read(start: int, least: int, most: int) -> bytes:
        data = b""
        while len(data) < least:
            count = min(most - len(data), window.chunk)
            data += _read_piece(repl, window, start + len(data), count)
        return data

    with _loop(repl, window):
        yield WindowBuffer(size, _RECORDS, read)


def _read_piece(repl: RawRepl, window: Window, offset: int, count: int) -> bytes:
    for _ in range(ATTEMPTS):
        repl.port.write(_request(window, offset, count))
        data = _read_answer(repl, window, offset, count)
        if data is not None:
            return data
        repl.port.write(b"\n")
        repl.port.drain(0.2, _DRAIN_LIMIT)
    raise bytes_lost(repl, f"offset {offset:#x}")


@contextmanager
def _loop(repl: RawRepl, window: Window) -> Iterator[None]:
    """Run the READ loop during the block; the camera is at its prompt after it."""
    code = snippets.read_loop(
        window.kind, window.partition, raw=window.raw, crc32=window.crc32, poll=window.poll
    )
    repl.start_loop(code)
    try:
        yield
    except DeviceLost:
        raise
    except BaseException:
        repl.recover()
        raise
    if repl.busy:
        repl.port.write(_request(window, 0, 0))
        _finish(repl)


def _finish(repl: RawRepl) -> None:
    """Wait for the loop's end. All bytes were checked already, so a garbled end does not matter."""
    try:
        repl.finish(ANSWER_LIMIT)
    except DeviceAnswer:
        repl.recover()


def _read_chunks(
    repl: RawRepl,
    window: Window,
    position: int,
    end: int,
    out: BinaryIO,
    done: Callable[[int], None],
) -> int:
    chunk = window.chunk
    asked, failures = position, 0
    while position < end:
        while asked < end and asked < position + _READ_AHEAD * chunk:
            repl.port.write(_request(window, asked, min(chunk, end - asked)))
            asked += chunk
        count = min(chunk, end - position)
        data = _read_answer(repl, window, position, count)
        if data is None:
            failures += 1
            if failures >= ATTEMPTS:
                break
            # an unfinished line would swallow the next request; what is under way is dropped
            repl.port.write(b"\n")
            if not repl.port.drain(0.2, _DRAIN_LIMIT):
                break  # something prints all the time: asking again would not help
            asked = position
            continue
        out.write(data)
        position += count
        failures = 0
        done(position)
    return position


def _request(window: Window, offset: int, length: int) -> bytes:
    at = window.start + offset
    return f"{at:x} {length:x} {at ^ length:x}\n".encode()


def _read_answer(repl: RawRepl, window: Window, offset: int, count: int) -> bytes | None:
    """One chunk; None if it did not arrive, or not as it was sent."""
    deadline = time.monotonic() + SILENCE
    if window.raw:
        answer = repl.port.read_exactly(count + 4, deadline)
        data, check = answer[:count], int.from_bytes(answer[count:], "little")
    else:
        line = repl.port.read_until(b"\n", deadline)
        try:
            text, number = line.split()
            data, check = binascii.a2b_base64(text), int(number, 16)
        except ValueError:
            return None
    expected = zlib.crc32(data, window.start + offset) if window.crc32 else 0
    return data if len(data) == count and check == expected else None


def said_twice(text: str) -> bytes | None:
    """The bytes of hex digits that were printed twice; None if the two differ."""
    words = text.split()
    try:
        return bytes.fromhex(words[0]) if len(words) == 2 and words[0] == words[1] else None
    except ValueError:
        return None


def words_said(text: str, count: int) -> list[int] | None:
    """`count` numbers of 8 hex digits each; None for anything else."""
    try:
        found = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    except ValueError:
        return None
    return found if len(found) == count else None


def bytes_lost(repl: RawRepl, where: str) -> DeviceLost:
    """The error when no attempt came through whole."""
    return DeviceLost(
        f"bytes keep getting lost on the way ({ATTEMPTS} attempts)",
        where=f"{repl.port.name}, {where}",
        next_step="use another cable or port, without a hub, and repeat the command",
    )
