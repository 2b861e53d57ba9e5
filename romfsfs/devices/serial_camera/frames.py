"""The frames of the WRITE loop, as bytes; what they mean: `snippets.py`. Sizes in bytes."""

from __future__ import annotations

import binascii
import struct
import zlib

FRAME_HEADER = 16
#: payload bytes of one frame
MAX_CHUNK = 4096
#: the same where frames are lines of base64: three copies of a line exist while it is decoded
MAX_TEXT_CHUNK = 1536
#: characters of the payload of such a frame
MAX_TEXT_LINE = MAX_TEXT_CHUNK // 3 * 4
MARKER = 0xA5
_HEADER = struct.Struct("<BBHII")


def frame(
    operation: bytes, number: int, offset: int, payload: bytes = b"", length: int = 0
) -> bytes:
    """One frame of the WRITE loop. `length` counts where there is no payload (E and P)."""
    head = _HEADER.pack(operation[0], MARKER, number & 0xFFFF, offset, len(payload) or length)
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def as_text(data: bytes) -> bytes:
    """A frame for a WRITE loop without raw input: a line for the header, then the payload."""
    header, payload = data[:FRAME_HEADER], data[FRAME_HEADER:]
    return binascii.b2a_base64(header) + binascii.b2a_base64(payload)


#: ends a WRITE loop whose host has died
QUIT_FRAME = frame(b"Q", 0, 0)
