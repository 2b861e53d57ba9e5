"""A camera on its serial port: its ROMFS read and written through the raw REPL.

The order of a write, and why power may fail at any moment: `flash_plan.py`. One thread at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import BinaryIO

from romfsfs.boards import Board, boards
from romfsfs.devices.base import (
    HEADER_SIZE,
    Device,
    DeviceInfo,
    OpenedModel,
    PartitionState,
    WriteReport,
    declared_size,
    size_to_write,
)
from romfsfs.devices.discovery import usb_serial
from romfsfs.devices.serial_camera import flash_plan, frames, identity, snippets, trying
from romfsfs.devices.serial_camera.flash_plan import FlashPlan, Operation
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.probe import CameraFacts, PartitionFacts, probe
from romfsfs.devices.serial_camera.questions import COARSE, Questions, part
from romfsfs.devices.serial_camera.reading import Window, bytes_lost, read_range, records_of
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.devices.serial_camera.writing import Writer
from romfsfs.errors import DeviceAnswer, DeviceError, DeviceLost, VerifyError
from romfsfs.image.model import Image
from romfsfs.image.reader import is_blank, read_image
from romfsfs.image.slots import Slot
from romfsfs.system.files import Progress, no_progress


class SerialCamera(Device):
    """An opened camera, as a `Device`; `open` identifies it."""

    def __init__(
        self, port: Port, repl: RawRepl, facts: CameraFacts, board: Board | None,
        partition: PartitionFacts, notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.facts = facts
        self.board = board
        self._port = port
        self._repl = repl
        self._partition = partition
        # what it is, not what it is used as: flash and boot loader depend on that
        self._model = facts.board or board
        self._geometry = identity.geometry(partition, self._model, facts.machine)
        self._ask = Questions(repl, facts, partition, self._settle)
        self._unmounted = False
        self._info = identity.describe(
            port.name, facts, board, partition, self._geometry, notes, usb_serial(port.name)
        )

    @classmethod
    def open(
        cls, port_name: str, *, board: str | None = None, partition: int | None = None,
        slot: str = "", accept: Callable[[CameraFacts], None] | None = None,
    ) -> SerialCamera:  # fmt: skip
        """Interrupt what runs there, identify the camera, choose a partition (default 0) and, if it
        has openmv-ota's slots, one of these (default A).

        board: used if the camera cannot be identified, or against what it says. accept: called
        with what the camera says of itself, before anything more is asked of it; what it raises
        ends the opening. DeviceAbsent, DeviceBusy, DeviceLost, DeviceAnswer;
        `identity.NoRomfsAccess` if its firmware cannot reach a ROMFS; UsageError for a board,
        partition or slot that is not there, or a mistake in the user's boards.
        """
        boards()  # a mistake in the user's file is told before a running script is interrupted
        port = Port(port_name)
        repl = RawRepl(port)
        try:
            facts = probe(repl)
            if accept is not None:
                accept(facts)
            known, notes = identity.find_board(facts, board)
            chosen = identity.choose_partition(port_name, facts, known, partition or 0)
            camera = cls(port, repl, facts, known, chosen, notes)
            camera._choose_slot(slot)
            return camera
        except BaseException:
            with contextlib.suppress(DeviceError):
                repl.leave()
            port.close()
            raise

    def info(self) -> DeviceInfo:
        return self._info

    def partitions(self) -> tuple[PartitionState, ...]:
        """Every ROMFS partition and what was in it when the camera was opened."""
        return tuple(identity.partition_state(part, self._model) for part in self.facts.partitions)

    def digest(self, size: int) -> str | None:
        if not self.facts.sha256:
            return None
        return self._ask.digest(0, min(size, self._geometry.readable))

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        if size > self._geometry.readable:
            return False
        return self._ask.same(image, 0, size)

    def _choose_slot(self, slot: str) -> None:
        digest = self._ask.digest if self.facts.sha256 else lambda start, end: ""
        found = identity.find_slots_there(self._ask.peek, digest, self._geometry)
        self._info = identity.with_slots(self._info, found, slot, self._geometry)
        if found:
            self._ask.start = found[0].size if slot == "B" else 0
            self._geometry = identity.in_slot(self._geometry, self._ask.start, found[0].size)

    def slots(self, size: int) -> tuple[Slot, ...]:
        return self._info.slots

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        size = self._image_size()
        if size:
            progress("reading", 0, size)
            self._read(size, out, progress)
        return size

    def _image_size(self) -> int:
        """Bytes of the image by its header; 0: blank. ImageFormatError."""
        header = self._ask.peek((0, HEADER_SIZE))
        if is_blank(header):
            return 0
        return declared_size(header, self._geometry.readable, self._info.name)

    def read_tree(self) -> Image | None:
        size = self._image_size()
        if not size:
            return None
        with records_of(self._repl, self._window(self.facts.raw_output), size) as records:
            return read_image(records)

    def _read(self, size: int, out: BinaryIO, progress: Progress) -> None:
        window = self._window(self.facts.raw_output)
        place = 0
        for attempt in (1, 2):
            try:
                place = read_range(
                    self._repl, window, place, size, out,
                    lambda done: progress("reading", done, size),
                )  # fmt: skip
            except DeviceAnswer:
                if attempt == 2:
                    raise
            if place == size:
                return
            if not self._unmounted:
                self._repl.soft_reset()  # ends timers and threads that print
        raise bytes_lost(self._repl, f"offset {place:#x}")

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        """See `Device`. Nothing on the camera is touched unless a difference was found."""
        started, sent = time.monotonic(), self._port.sent
        size = size_to_write(image, self._geometry.readable, self._info.name)
        plan = self._plan(image, size, old, progress)
        if plan.needed:
            self._refuse_unwritable()
        written = erased = 0
        for attempt in (1, 2):
            if plan.needed:
                self._prepare()
                try:
                    written += self._program(plan, image, progress)
                except DeviceLost:  # it is gone: `close` must not wait to mount it
                    self._unmounted = False
                    raise
                erased += plan.erased_blocks
            if self._verify(image, 0, size, progress):
                return WriteReport(
                    written=written,
                    erased_blocks=erased,
                    seconds=time.monotonic() - started,
                    verified=True,
                    skipped=max(0, size - written),
                    sent=self._port.sent - sent,
                    notes=("the first attempt was read back wrong",) if attempt > 1 else (),
                )
            plan = flash_plan.make_plan(self._geometry, image, size, None, self._ask.checksum)
        raise VerifyError(
            "what was read back from the camera differs from what was written, in two attempts",
            where=f"{self._info.name}, {self._first_difference(image, size)}",
            next_step=f"{self._advice}; its flash may be worn",
        )

    def clear(self) -> None:
        if is_blank(self._ask.peek((0, HEADER_SIZE))):
            return
        self._refuse_unwritable()
        self._prepare()
        with self._writer() as writer:
            writer.run([flash_plan.clearing(self._geometry)])
        if not is_blank(self._ask.peek((0, HEADER_SIZE))):
            where, advice = self._info.name, self._advice
            raise VerifyError("the image is still there", where=where, next_step=advice)

    def _refuse_unwritable(self) -> None:
        if not self._partition.writable:
            raise identity.not_writable(self._info.name, self._loader)
        if self._ask.start and self._geometry.mode == "prefix":
            raise identity.no_range_erase(self._info.name)

    def _plan(
        self, image: BinaryIO, size: int, old: BinaryIO | None, progress: Progress
    ) -> FlashPlan:
        progress("comparing", 0, size)
        found = None
        if self.facts.crc32 or self.facts.sha256:
            found = self._ask.checksums(0, self._geometry.limit(size), self._geometry.block)
            progress("comparing", size, size)
        return flash_plan.make_plan(self._geometry, image, size, found, self._ask.checksum, old)

    def _settle(self) -> None:
        """Make the camera fit to answer again; where /rom is unmounted it stays so."""
        if self._unmounted:
            self._repl.recover()
        else:
            self._repl.soft_reset()  # ends timers and threads that print

    def _prepare(self) -> None:
        """Stop everything that may run code from the ROMFS, then unmount it.

        A soft reset ends timers, callbacks and threads, whose bytecode is executed in place.
        """
        if self._unmounted:
            return
        self._repl.soft_reset()
        self._repl.run(snippets.UNMOUNT)
        self._unmounted = True

    def _window(self, raw: bool) -> Window:
        facts, partition = self.facts, self._partition
        chunk = frames.chunk(raw=raw, free=facts.free)
        return Window(
            partition.kind, partition.index, raw, facts.crc32, facts.poll, chunk, self._ask.start,
            self._geometry.cached, self._geometry.mode == "never",
        )  # fmt: skip

    def _writer(self) -> Writer:
        window = self._window(self.facts.raw_input)
        prefix = self._geometry.mode == "prefix"
        return Writer(self._repl, window, prefix=prefix, advice=self._advice)

    @property
    def _advice(self) -> str:
        other = self._loader and f"; if that happens again, write with SOURCE {self._loader}"
        return f"repeat the command{other}"

    @property
    def _loader(self) -> str:
        """The SOURCE that writes this without the firmware, '' if none can: loaders write from the
        partition's start on."""
        return "" if self._ask.start else identity.boot_loader(self._model, self._partition.index)

    def _program(self, plan: FlashPlan, image: BinaryIO, progress: Progress) -> int:
        """Carry a plan out; returns bytes programmed. If the rest is wrong, the last write is left
        out: the camera then holds no image, as the caller's verification finds."""
        total = sum(span.end - span.start for span in plan.programs)
        progress("erasing", 0, total)

        def done(operation: Operation) -> None:
            progress("writing", min(writer.programmed, total), total)

        with self._writer() as writer:
            writer.run([flash_plan.opening(plan)])
            sealing = flash_plan.seal_size(plan.geometry, writer.erase_answer)
            if sealing is None:
                text = f"minimum write size {writer.erase_answer}"
                raise identity.wrong_answer(self._port.name, text)
            writer.run(flash_plan.operations(plan, image, sealing, writer.chunk), done)
        written = writer.programmed
        if self._verify(image, sealing, plan.image_size, progress):
            with self._writer() as writer:
                writer.run([flash_plan.seal(image, sealing)])
            written += writer.programmed
        progress("writing", total, total)
        return written

    def _verify(self, image: BinaryIO, start: int, end: int, progress: Progress) -> bool:
        """Does the camera hold bytes start..end of the image?"""
        if start >= end:
            return True
        same = self._ask.same(image, start, end, progress)
        if same is not None:
            return same
        import tempfile

        with tempfile.TemporaryFile() as back:
            self._read(end, back, progress)
            return all(
                part(back, at, COARSE, end) == part(image, at, COARSE, end)
                for at in range(start, end, COARSE)
            )

    def _first_difference(self, image: BinaryIO, size: int) -> str:
        """The address of the first wrong block, as text for the error."""
        with contextlib.suppress(DeviceError):
            block = min(self._geometry.block, COARSE)
            wrong = [
                index * block
                for index, found in enumerate(self._ask.checksums(0, size, block))
                if found != self._ask.checksum(part(image, index * block, block, size))
            ]
            # block 0 still lacks the header on purpose, so it says nothing where others are wrong
            return f"first at {(wrong[1:] or wrong)[0]:#x}"
        return "at an unknown address"

    def open_model(self, path: str) -> OpenedModel | None:
        """See `Device`. None too if the partition is not the one mounted at /rom."""
        if self._partition.index:
            return None
        if self._unmounted:
            self._repl.soft_reset()  # mounts what was written; boot.py runs, main.py does not
            self._unmounted = False
        return trying.open_model(self._repl, path)

    def restart(self) -> None:
        """Soft reset: boot.py runs, and /rom shows what was written. main.py runs too, except on
        OpenMV cameras, where it runs only once after power-up."""
        self._repl.restart()
        self._unmounted = False

    def close(self) -> None:
        try:
            with contextlib.suppress(DeviceError):
                if self._unmounted and self._info.slots:
                    self._repl.soft_reset()  # its boot code alone knows which slot it mounts
                elif self._unmounted:  # it was partition 0, whichever was written
                    self._repl.run(snippets.mount(0))
                self._unmounted = False
        finally:
            with contextlib.suppress(DeviceError):
                self._repl.leave()
            self._port.close()
