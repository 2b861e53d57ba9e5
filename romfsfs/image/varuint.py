"""The format's numbers and record kinds (MicroPython `extmod/vfs_rom.c`, `romfs.rst`).

A varuint is base 128, most significant group first, the high bit set on every byte but the last.
Leading 0x80 bytes add nothing to the value: writers use them to align payloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from romfsfs.errors import ImageFormatError

if TYPE_CHECKING:
    from romfsfs.image.file_buffer import WindowBuffer

    Buffer = bytes | bytearray | memoryview | WindowBuffer

MAGIC = b"\xd2\xcd\x31"
HEADER_KIND = 0x14A6B1  # the number that MAGIC encodes

UNUSED = 0  # only in corrupt images: the camera stops reading there
PADDING = 1
DATA = 2
POINTER = 3
DIRECTORY = 4
FILE = 5

#: largest number a camera reads: it has 32 bits and silently drops the top bits of a larger one
MAX_VALUE = 0xFFFF_FFFF

#: longest run of 0x80 in front of a number; more than any alignment in use needs
MAX_RUN = 1 << 16

_SHORT = [bytes((value,)) for value in range(0x80)]


def encode(value: int) -> bytes:
    """The shortest encoding."""
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes((0x80 | value >> 7, value & 0x7F))
    if value < 0x20_0000:
        return bytes((0x80 | value >> 14, 0x80 | value >> 7 & 0x7F, value & 0x7F))
    groups = [value & 0x7F]
    value >>= 7
    while value:
        groups.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes(reversed(groups))


def encode_to(value: int, width: int) -> bytes:
    """An encoding of exactly `width` bytes. ValueError if it needs more."""
    shortest = encode(value)
    if len(shortest) > width:
        raise ValueError(f"{value} needs {len(shortest)} bytes, not {width}")
    return shortest.rjust(width, b"\x80")


def decode(data: Buffer, start: int, end: int) -> tuple[int, int]:
    """The number at `start`, and the offset after it, at most `end`.

    ImageFormatError if it is cut off, has more than 32 bits or more than MAX_RUN leading 0x80."""
    value = 0
    position = start
    while position < end:
        byte = data[position]
        position += 1
        if byte < 0x80:
            value = value << 7 | byte
            if value > MAX_VALUE:
                break
            return value, position
        value = value << 7 | byte & 0x7F
        if value > MAX_VALUE or position - start > MAX_RUN:
            break
    else:
        raise ImageFormatError("a number is cut off", start)
    if bytes(data[start : start + 4]) == b"\xff\xff\xff\xff":
        raise ImageFormatError("erased flash inside the image", start)
    if value > MAX_VALUE:
        raise ImageFormatError("a number of more than 32 bits", start)
    raise ImageFormatError(f"more than {MAX_RUN} bytes of padding in front of a number", start)


def padding_head(total: int) -> bytes:
    """The first bytes of a padding record of `total` bytes (at least 2), without its payload."""
    if total < 2:
        raise ValueError(f"no padding record has {total} bytes")
    width = 1
    while total - 1 - width >= 1 << 7 * width:
        width += 1
    return b"\x01" + encode_to(total - 1 - width, width)
