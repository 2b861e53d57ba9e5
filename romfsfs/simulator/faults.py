"""Faults to inject into a simulated camera, and statistics of what it did.

Both objects belong to the camera's thread; the methods of `Faults` may be called from any thread
(each sets one attribute or appends to one list). Positions and counts are in bytes, from the call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

EIO = 5
TO_CAMERA = "to_camera"
TO_HOST = "to_host"


class CameraStopped(Exception):
    """The power went in the middle of something."""


@dataclass
class Statistics:
    """What the camera saw and did since it was made; bytes and counts, never reset."""

    wire_in: int = 0
    wire_out: int = 0
    dropped_output: int = 0
    """bytes that the host did not take within half a second"""
    programmed: int = 0
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    """of every call that programmed: partition, and from where to where"""
    needless_pages: int = 0
    """pages of 256 bytes, or less, that held already what was programmed"""
    erased_blocks: int = 0
    erase_counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    execs: int = 0
    soft_resets: int = 0
    power_ups: int = 0
    interrupts: int = 0
    ioctl_calls: Counter[int] = field(default_factory=Counter)
    bad_programs: int = 0
    """bytes that were programmed where the flash was not erased and so became something else"""
    dropped_tails: int = 0


@dataclass
class _FailingAnswer:
    command: int | None
    skip: int
    answer: int
    count: int


@dataclass
class _WireFault:
    direction: str
    position: int
    mask: int  # 0: the byte is lost


class Faults:
    """Faults to come; none at first."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self.clear()

    def clear(self) -> None:
        """Cancel all faults to come; what past ones did stays."""
        self._left: dict[str, int] = {}  # bytes until the power goes, by what is counted
        self._answers: list[_FailingAnswer] = []
        self._wire: list[_WireFault] = []
        self._stuck: dict[tuple[int, int], str] = {}

    def power_cut_after_programmed(self, count: int) -> None:
        """Cut the power after exactly `count` more bytes were programmed."""
        self._left["program"] = count

    def power_cut_after_erased(self, count: int) -> None:
        """Cut the power after `count` more bytes were erased; the block's rest is half erased."""
        self._left["erase"] = count

    def cut_after_wire_bytes(self, count: int) -> None:
        """Cut the power after `count` more bytes went over the wire, both directions together."""
        self._left["wire"] = count

    def fail_ioctl(
        self, nth: int = 1, answer: int = -EIO, command: int | None = None, count: int = 1
    ) -> None:
        """Have the `nth` next `rom_ioctl` (of `command`, if given) do nothing and return `answer`.

        `count` calls in a row fail. The calls of a block device are commands 103 (erase) and
        104 (program); a failing one raises OSError or answers 1, as mimxrt's does.
        """
        self._answers.append(_FailingAnswer(command, nth - 1, answer, count))

    def stuck_block(self, block: int, partition: int = 0, on: str = "program") -> None:
        """Keep this erase block from changing. on: "program", "erase" or "both"."""
        self._stuck[(partition, block)] = on

    def garble(self, direction: str, position: int, mask: int = 0x04) -> None:
        """Flip the bits of `mask` in the byte that is `position` bytes ahead on the wire."""
        self._wire.append(_WireFault(direction, self._passed(direction) + position, mask))

    def lose(self, direction: str, position: int) -> None:
        """Drop the byte that is `position` bytes ahead on the wire."""
        self._wire.append(_WireFault(direction, self._passed(direction) + position, 0))

    # Called by the camera:

    def room(self, what: str, count: int) -> int:
        """Count `count` bytes; returns how many of them pass before the power goes.

        what: "program", "erase" or "wire"."""
        room = min(count, self._left.get(what, count))
        if what in self._left:
            self._left[what] -= room
        return room

    def cut_now(self) -> bool:
        """Whether a power cut is due. Forgets all cuts: the next power-up works again."""
        due = 0 in self._left.values()
        if due:
            self._left.clear()
        return due

    def is_stuck(self, partition: int, block: int, operation: str) -> bool:
        return self._stuck.get((partition, block)) in (operation, "both")

    def failing_answer(self, command: int) -> int | None:
        for fault in self._answers:
            if fault.command is not None and fault.command != command:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.count -= 1
            if fault.count <= 0:
                self._answers.remove(fault)
            return fault.answer
        return None

    def wire(self, direction: str, data: bytes) -> bytes:
        """Count the bytes on the wire, and garble or lose those that were asked for.

        The result ends where the power goes; `cut_now` tells then.
        """
        data = data[: self.room("wire", len(data))]
        start = self._passed(direction)
        if direction == TO_CAMERA:
            self._statistics.wire_in += len(data)
        else:
            self._statistics.wire_out += len(data)
        if not self._wire:
            return data
        hits = [
            fault
            for fault in self._wire
            if fault.direction == direction and start <= fault.position < start + len(data)
        ]
        spoiled = bytearray(data)
        for fault in sorted(hits, key=lambda fault: fault.position, reverse=True):
            self._wire.remove(fault)
            if fault.mask:
                spoiled[fault.position - start] ^= fault.mask
            else:
                del spoiled[fault.position - start]
        return bytes(spoiled)

    def _passed(self, direction: str) -> int:
        statistics = self._statistics
        return statistics.wire_in if direction == TO_CAMERA else statistics.wire_out
