"""What a camera reports about itself, asked with one command after it was opened."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from romfsfs.boards import Board, identify
from romfsfs.boards.model import ARCHITECTURES
from romfsfs.devices.serial_camera import snippets
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.errors import DeviceAnswer, printable

#: characters; the answer of a camera with two partitions has some 600
_MOST_TEXT = 16384
_LONGEST_WORD = 200
_LARGEST_PARTITION = 1 << 31
#: negative errno of a call that the firmware does not have: EINVAL, ENOSYS, EOPNOTSUPP
_UNKNOWN_CALL = (-22, -38, -95)
#: raised by the parser and the conversions for text that is no such answer; the last two: nesting
_NO_FACTS = (
    ValueError, SyntaxError, KeyError, TypeError, IndexError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """A ROMFS partition as the firmware presents it.

    kind: "memory" (memory-mapped flash) or "block" (a block device object). size: bytes.
    erase_size: bytes, None where the firmware does not say. header: its first 16 bytes. min_write:
    the smallest write in bytes, as an erase answers it, 0 if that answer is something else; None if
    the firmware cannot erase.
    """

    index: int
    kind: str
    size: int
    erase_size: int | None
    header: bytes
    min_write: int | None

    @property
    def writable(self) -> bool:
        return self.min_write is not None

    @property
    def erases_ranges(self) -> bool:
        """May a range in the middle be erased? Firmware without ioctl 6 would erase the start."""
        return self.kind == "block" or self.erase_size is not None


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """A camera's answer to the probe. Empty strings and None where it does not say. here: see
    `DeviceInfo`. free: bytes of MicroPython's heap, 0 where it does not say."""

    machine: str
    arch: str
    openmv_version: str
    unique_id: str
    release: str
    mpy_version: tuple[int, int] | None
    march: str | None
    partitions: tuple[PartitionFacts, ...]
    raw_input: bool
    raw_output: bool
    sha256: bool
    crc32: bool
    poll: bool
    free: int = 0
    here: tuple[str, ...] = ()

    @property
    def board(self) -> Board | None:
        """The board that it says it is, None if that is not known."""
        return identify(self.machine, self.arch)

    @property
    def firmware(self) -> str:
        """How to show the firmware: 'OpenMV 4.8.1, MicroPython 1.26.0'."""
        parts = []
        if self.openmv_version:
            parts.append(f"OpenMV {self.openmv_version}")
        if self.release:
            parts.append(f"MicroPython {self.release}")
        return ", ".join(parts)


def probe(repl: RawRepl) -> CameraFacts:
    """Ask the camera. DeviceAnswer if no MicroPython with a ROMFS answers so; DeviceLost.

    Timers and threads go on at the prompt and may print into the answer, and objects of a script
    may fill the heap. None of them survives a soft reset, so after one the camera is asked again.
    """
    try:
        return _ask(repl)
    except DeviceAnswer:
        repl.soft_reset()
        return _ask(repl)


def _ask(repl: RawRepl) -> CameraFacts:
    text = repl.run(snippets.PROBE).strip()
    try:
        lines = text.splitlines()
        if len(text) > _MOST_TEXT or lines[-1] != lines[-2]:
            raise ValueError("too long, or garbled")
        answer = ast.literal_eval(lines[-1])
        return _facts(answer)
    except _NO_FACTS as error:
        raise DeviceAnswer(
            "the camera does not answer as MicroPython does",
            where=repl.port.name,
            next_step="check that the port is an OpenMV camera's, reset it and try again",
            detail=text[-500:],
        ) from error


def _partition(
    index: int, kind: str, size: int, erase: object, header: bytes, erased: object
) -> PartitionFacts:
    """erased: the answer to an erase of 0 bytes, which changes nothing on any port (micropython:
    ports/stm32 and alif, vfs_rom_ioctl.c). ValueError."""
    if not isinstance(header, bytes) or not 0 < int(size) <= _LARGEST_PARTITION:
        raise ValueError("no partition")
    erase_size = erase if isinstance(erase, int) and 0 < erase <= size else None
    min_write = None
    if erased not in _UNKNOWN_CALL:
        min_write = erased if isinstance(erased, int) and erased > 0 else 0
    return PartitionFacts(index, str(kind), int(size), erase_size, header, min_write)


def _word(value: object) -> str:
    """Made printable and short: it is shown to people, and is part of a session's identity."""
    return printable(str(value))[:_LONGEST_WORD]


def _facts(answer: dict[str, Any]) -> CameraFacts:
    mpy = int(answer["mpy"])
    architecture = (mpy >> 10) & 0x3F
    partitions = tuple(
        _partition(index, *words)
        for index, words in enumerate(answer["partitions"])
        if words[0] != "none"
    )
    return CameraFacts(
        machine=_word(answer["machine"]),
        arch=_word(answer["arch"]),
        openmv_version=_word(answer["omv"]),
        unique_id=_word(answer["uid"]),
        release=_word(answer["release"]),
        mpy_version=(mpy & 0xFF, (mpy >> 8) & 3) if mpy else None,
        march=ARCHITECTURES[architecture] or None if architecture < len(ARCHITECTURES) else None,
        partitions=partitions,
        raw_input=bool(answer["stdin"]),
        raw_output=bool(answer["stdout"]),
        sha256=bool(answer["sha256"]),
        crc32=bool(answer["crc32"]),
        poll=bool(answer["poll"]),
        free=int(answer["heap"]),
        here=tuple(_word(name) for name in answer["here"]),
    )
