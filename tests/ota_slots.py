"""A partition as openmv-ota divides it: two slots, each an image, a status area, a signed trailer.

The layout is openmv-ota's (its reference of trailers; ota/geometry.py and ota/status.py). Give
the result to a camera as its image, and `runs_rom=True`: its boot code starts the newer slot whose
body is what its trailer says. The signature is not one: the simulated boot code has no key.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from romfsfs.image.slots import BLOCK, MAGIC, TRAILER, slot_size

_ES256, _SIGNATURE_SIZE = -7, 64


def two_slots(partition_size: int, a: bytes, b: bytes, *, newer: str = "A") -> bytes:
    """The partition's content, with these images in slot A and slot B; newer: which one starts."""
    size = slot_size(partition_size)
    return b"".join(
        _slot(body, size, 2 if name == newer else 1) for name, body in (("A", a), ("B", b))
    )


def _slot(body: bytes, size: int, counter: int) -> bytes:
    pad = size - 2 * BLOCK - len(body)
    if pad < 0:
        raise ValueError(f"{len(body)} bytes in a slot of {size}")
    meta = b'{"ota":true}'
    header = TRAILER.pack(
        MAGIC, 1, len(body), pad, len(meta), _SIGNATURE_SIZE, 1, 0, 1 << 24, 0, 1, _ES256,
        hashlib.sha256(body).digest(),
    )  # fmt: skip
    trailer = header + meta + bytes(_SIGNATURE_SIZE)
    trailer += struct.pack("<I", zlib.crc32(trailer))
    status = b"\xff" * 64 + struct.pack("<II", counter, counter ^ 0xFFFFFFFF)
    return body + b"\xff" * pad + status.ljust(BLOCK, b"\xff") + trailer.ljust(BLOCK, b"\xff")
