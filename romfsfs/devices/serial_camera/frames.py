"""The frames of the WRITE loop, as bytes; what they mean: `snippets.py`. Sizes in bytes."""

from __future__ import annotations

import binascii
import struct
import zlib

#: most payload bytes of one frame, or of one answer of the READ loop
MAX_CHUNK = 4096
#: the same as base64, and where memory is short (the heaps of M4 and M7 have 45 and 52 KiB):
#: several copies exist while a payload is decoded. A multiple of 3.
SMALL_CHUNK = 1536
#: bytes of free heap with which frames need not be small
_PLENTY = 96 << 10
MARKER = 0xA5
_HEADER = struct.Struct("<BBHIIH")
#: bytes on the wire after which no camera waits for more of a frame: a header's 24 characters and
#: a payload of which every byte is written as two
LONGEST = 24 + 2 * MAX_CHUNK


def chunk(*, raw: bool, free: int) -> int:
    """Payload bytes of a frame, for a camera with so much free heap (0: it does not say)."""
    return MAX_CHUNK if raw and free >= _PLENTY else SMALL_CHUNK


def frame(
    operation: bytes,
    number: int,
    offset: int,
    payload: bytes = b"",
    *,
    length: int = 0,
    raw: bool = True,
) -> bytes:
    """One frame of the WRITE loop. `length` counts where there is no payload (E and P).

    No byte of it is Ctrl-C, so that Ctrl-C interrupts the loop at any moment: the header is
    base64, and so is the payload of a loop without raw input; else it is `escaped`.
    """
    body = escaped(payload) if raw else _base64(payload)
    head = _HEADER.pack(
        operation[0], MARKER, number & 0xFFFF, offset, len(payload) or length, len(body)
    )
    check = zlib.crc32(payload, zlib.crc32(head))
    return _base64(head + struct.pack("<I", check)) + body


def escaped(data: bytes) -> bytes:
    """The data without the byte 3: 4 5 stands for it, and 4 6 for 4. Random data grows by 1 %."""
    return data.replace(b"\x04", b"\x04\x06").replace(b"\x03", b"\x04\x05")


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
