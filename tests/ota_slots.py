"""A partition as openmv-ota divides it: slots, each an image, a status area, a signed trailer.

The layout is openmv-ota's (its reference of trailers; ota/geometry.py and ota/status.py). Give
the result to a camera as its image, and `runs_rom=True`: its boot code starts the newer slot whose
body is what its trailer says. The signature is not one: the simulated boot code has no key.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from romfsfs.image.slots import BLOCK, MAGIC, slot_size

_ES256, _SIGNATURE_SIZE = -7, 64
PRODUCT, _PLATFORM = 0x1234_5678_9ABC_DEF0, 1 << 24


def two_slots(
    partition_size: int, a: bytes, b: bytes, *, newer: str = "A", version: int = 3, stride: int = 16
) -> bytes:
    """The partition's content, with these images in slot A and slot B; newer: which one starts.

    version: of the trailer: 1, or 3 as of openmv-ota 1.0.7. stride: of the status's records, 32 on
    OPENMV4."""
    size = slot_size(partition_size)
    return b"".join(
        _slot(body, size, 2 if name == newer else 1, version, stride)
        for name, body in (("A", a), ("B", b))
    )


def one_slot(partition_size: int, body: bytes, *, stride: int = 16) -> bytes:
    """The same with a single slot, over all of it."""
    return _slot(body, partition_size, 1, 3, stride)


def marker(word: bytes) -> bytes:
    """What a record of the status says (ota/status.py)."""
    return hashlib.sha256(b"openmv-ota.status." + word).digest()[:16]


def _slot(body: bytes, size: int, counter: int, version: int, stride: int) -> bytes:
    pad = size - 2 * BLOCK - len(body)
    if pad < 0:
        raise ValueError(f"{len(body)} bytes in a slot of {size}")
    meta = b'{"ota":true}'
    header = struct.pack("<4s5I", MAGIC, version, len(body), pad, len(meta), _SIGNATURE_SIZE)
    if version == 3:
        header += struct.pack("<3Q3I", PRODUCT, 0, 0, _PLATFORM, 1, 0)
    else:
        header += struct.pack("<5I", 1, 0, _PLATFORM, 0, 1)
    header += struct.pack("<i", _ES256) + hashlib.sha256(body).digest()
    trailer = header + meta + bytes(_SIGNATURE_SIZE)
    trailer += struct.pack("<I", zlib.crc32(trailer))
    status = b"\xff" * 2 * stride + marker(b"confirmed").ljust(2 * stride, b"\xff")
    status += struct.pack("<II", counter, counter ^ 0xFFFFFFFF)
    return body + b"\xff" * pad + status.ljust(BLOCK, b"\xff") + trailer.ljust(BLOCK, b"\xff")
