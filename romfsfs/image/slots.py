"""The slots of an openmv-ota partition, found by their trailers (docs/cameras.md).

Each half of the partition, in whole blocks of 4 KiB, is a slot, or the whole partition is one. A
slot holds the body (the image), padding, a status block, and a block that begins with the trailer.
The trailer has the body's size and SHA-256, and a signature over them. The boot code starts the
newest slot whose body and signature are valid and whose status is confirmed or on trial. The
signature is not checked here, because its key is not known.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BLOCK = 4096
MAGIC = b"OMVR"
#: version -> magic, version, sizes of body, pad, metadata and signature, others, algorithm, digest.
#: Version 3 is openmv-ota 1.0.7's (ota/trailer.py); its firmware accepts no other.
_HEADERS = {1: struct.Struct("<4s10Ii32s"), 3: struct.Struct("<4s5I3Q3Ii32s")}
_LONGEST = max(header.size for header in _HEADERS.values())
_SMALLEST = 3 * BLOCK
#: Possible distances of status records, bytes: 32 on OPENMV4 (internal flash of the H7), else 16.
#: The third record marks the slot as confirmed. The fifth is the counter; only there is the second
#: word the complement of the first (ota/status.py).
_STRIDES = (16, 32)
_PENDING, _CONFIRMED = (
    hashlib.sha256(b"openmv-ota.status." + word).digest()[:16]
    for word in (b"pending", b"confirmed")
)
#: Bytes read of a trailer at most: on some boards, reading the last bytes of the partition wedges
#: the flash (docs/cameras.md, "The tail"). openmv-ota allows 4,096 and writes about 700: its
#: metadata are a dozen words and numbers.
MOST_TRAILER = 3072

#: `read(offset, size)`: up to `size` bytes. `digest(start, end)`: the SHA-256 of these bytes,
#: hexadecimal; '' skips the comparison.
Read = Callable[[int, int], bytes]
Digest = Callable[[int, int], str]


class Slot(NamedTuple):
    """One slot, sizes and offsets in bytes.

    name: 'A' or 'B'; '' for a file that is one slot. size: of the whole slot. counter: the higher
    the newer; None if the status has none. whole: the body matches the trailer; None: unknown
    trailer version, and body_size is 0. room: bytes of whole erase units that an image may take;
    0 if an erase unit reaches into the other slot or there is just one. status: 'confirmed',
    'trial', or '', which the boot code does not start. only: the single slot of its partition or
    file."""

    name: str
    offset: int
    size: int
    body_size: int
    counter: int | None
    whole: bool | None
    room: int
    status: str
    only: bool

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return self._asdict()


def slot_size(partition_size: int) -> int:
    """Bytes of each of the two slots."""
    return partition_size // 2 // BLOCK * BLOCK


def trailer_places(partition_size: int) -> list[int]:
    """Offsets where trailers may be, ascending: A's, B's, a single slot's (mostly that of B)."""
    if partition_size < _SMALLEST:
        return []
    size = slot_size(partition_size)
    two = {size - BLOCK, 2 * size - BLOCK} if size >= _SMALLEST else set()
    return sorted(two | {partition_size - BLOCK})


def find_slots(read: Read, size: int, digest: Digest, unit: int = BLOCK) -> tuple[Slot, ...]:
    """The slots of a partition of `size` bytes; those without a trailer are left out.

    unit: the erase unit, bytes. `Slot.room` is made of whole units, so that no write erases a
    status or trailer. Errors of `read` and `digest`."""
    if size < _SMALLEST:
        return ()
    half = slot_size(size)
    only = half < _SMALLEST or _is_only(_trailer(read, size - BLOCK), size, unit)
    places = (("A", 0, size),) if only else (("A", 0, half), ("B", half, half))
    found = (_slot(read, *place, digest, unit, only) for place in places)
    return tuple(slot for slot in found if slot is not None)


def find_slots_of_file(read: Read, size: int, digest: Digest) -> tuple[Slot, ...]:
    """`find_slots` for a file, which may hold a partition or a single slot of one."""
    found = find_slots(read, size, digest)
    if len(found) < 2 and size >= _SMALLEST and not (found and found[0].only):
        one = _slot(read, "", 0, size, digest, BLOCK, True)
        if one is not None and (one.whole or not found):
            return (one,)
    return tuple(slot._replace(name="") if slot.only else slot for slot in found)


def running(slots: Sequence[Slot]) -> Slot | None:
    """The slot that the boot code starts, provided its signature is valid; None: no slot."""
    fit = [slot for slot in slots if slot.whole and slot.status]
    return max(fit, key=_rank, default=None)


def _rank(slot: Slot) -> tuple[int, bool]:
    """The boot order of openmv-ota's build/device/boot.py: a slot without a counter comes last."""
    return -1 if slot.counter is None else slot.counter, slot.status == "confirmed"


def slots_text(slots: Sequence[Slot]) -> str:
    """For people: 'slot A, 1,234 B, runs; slot B, 2,345 B, changed since it was signed'."""
    started = running(slots)
    words = []
    for slot in slots:
        size = f"{slot.body_size:,} B, "
        if slot.whole is None:
            state = "with a trailer of an unknown version"
        elif not slot.whole:
            state = size + "changed since it was signed"
        elif slot.name and slot.status != "confirmed":
            state = size + ("on trial" if slot.status else "neither confirmed nor on trial")
        elif slot.only:
            state = size + "as it was signed"
        else:
            state = size + ("runs" if slot is started else "older")
        over = " over the whole partition" if slot.name and slot.only else ""
        words.append(f"slot {slot.name or 'of a partition'}{over}, {state}")
    return "; ".join(words)


class _Trailer(NamedTuple):
    """body_size, pad: bytes, as declared; -1: unknown version. sound: its CRC is right."""

    body_size: int = -1
    pad: int = -1
    digest: str = ""
    sound: bool = False


def _trailer(read: Read, place: int) -> _Trailer | None:
    head = read(place, _LONGEST)
    if len(head) < _LONGEST or not head.startswith(MAGIC):
        return None
    header = _HEADERS.get(int.from_bytes(head[4:8], "little"))
    if header is None:
        return _Trailer()
    words = header.unpack_from(head)
    length = header.size + words[4] + words[5] + 4
    sound = length <= MOST_TRAILER
    if sound:
        trailer = (head + read(place + _LONGEST, max(0, length - _LONGEST)))[:length]
        sound = trailer[-4:] == struct.pack("<I", zlib.crc32(trailer[:-4]))
    return _Trailer(words[2], words[3], words[-1].hex(), sound)


def _is_only(last: _Trailer | None, size: int, unit: int) -> bool:
    """Whether the trailer at a partition's end belongs to a single slot.

    Then body and pad fill the partition; a body that was allowed to exceed its slot has a pad of 0
    (build/romfs.py) and is a single slot's if it exceeds a half. A trailer that cannot be read is
    a single slot's if a half would be smaller than an erase unit (ota/geometry.py).
    """
    if last is None or not last.sound:
        return last is not None and unit > size // 2
    room = slot_size(size) - 2 * BLOCK
    return last.body_size + last.pad == size - 2 * BLOCK or last.body_size > room


def _slot(
    read: Read, name: str, offset: int, size: int, digest: Digest, unit: int, only: bool
) -> Slot | None:
    place = offset + size - BLOCK
    trailer = _trailer(read, place)
    if trailer is None:
        return None
    room = 0 if size % unit else (size - 2 * BLOCK) // unit * unit
    status, counter = _status(read(place - BLOCK, 4 * _STRIDES[-1] + 8))
    body = max(trailer.body_size, 0)
    whole: bool | None = None
    if trailer.body_size >= 0:
        whole = trailer.sound and body <= size - 2 * BLOCK
        whole = whole and digest(offset, offset + body) in ("", trailer.digest)
    return Slot(name, offset, size, body, counter, whole, room, status, only)


def _status(block: bytes) -> tuple[str, int | None]:
    """The status ('confirmed', 'trial' or '') and the counter of a status block's first bytes."""
    status, found = "trial" if block.startswith(_PENDING) else "", None
    for stride in _STRIDES:
        if block[2 * stride :].startswith(_CONFIRMED):
            status = "confirmed"
        words = block[4 * stride : 4 * stride + 8]
        if found is None and len(words) == 8:
            counter, check = struct.unpack("<II", words)
            found = counter if counter ^ check == 0xFFFFFFFF else None
    return status, found
