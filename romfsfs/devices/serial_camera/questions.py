"""Questions to a camera about what a partition of it holds: bytes, a digest, checksums.

None of them changes anything there, so that an answer that makes no sense is asked for again.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from romfsfs.devices.serial_camera import flash_plan, identity, snippets
from romfsfs.devices.serial_camera.probe import CameraFacts, PartitionFacts
from romfsfs.devices.serial_camera.reading import said_twice, words_said
from romfsfs.devices.serial_camera.repl import ANSWER_LIMIT, RawRepl
from romfsfs.errors import DeviceAnswer
from romfsfs.system.files import Progress, no_progress

#: bytes that one checksum covers where only equality matters
COARSE = 65536
#: bytes per second that even the slowest camera hashes
_SLOWEST_HASH = 100_000

_Answer = TypeVar("_Answer")


def part(image: BinaryIO, start: int, length: int, end: int) -> bytes:
    """Bytes start..start+length of an image, but none from `end` on."""
    return flash_plan.block_at(image, start, min(start + length, end))


class Questions:
    """Asked of one partition; all raise DeviceLost, and DeviceAnswer if two answers make no sense.

    settle: makes the camera fit to answer again. start: where offsets count from, 0 or that of a
    slot of openmv-ota.
    """

    def __init__(
        self, repl: RawRepl, facts: CameraFacts, partition: PartitionFacts,
        settle: Callable[[], None],
    ) -> None:  # fmt: skip
        self._repl = repl
        self._facts = facts
        self._partition = partition
        self._settle = settle
        self.start = 0

    def peek(self, *ranges: tuple[int, int]) -> bytes:
        """The bytes of these ranges (offset, length); a few only."""
        places = [(self.start + offset, count) for offset, count in ranges]
        code = snippets.peek(self._partition.kind, self._partition.index, *places)
        return self._query(code, said_twice)

    def digest(self, start: int, end: int, progress: Progress = no_progress) -> str:
        """SHA-256 of start..end, of firmware that has it."""
        done = start

        def dot(piece: bytes) -> None:
            nonlocal done
            done = min(end, done + piece.count(b".") * 0x40000)
            progress("verifying", done - start, end - start)

        at = self.start
        code = snippets.digest(self._partition.kind, self._partition.index, at + start, at + end)
        return self._query(code, lambda text: said_twice(text.replace(".", "")), dot).hex()

    def checksums(self, start: int, end: int, step: int) -> list[int]:
        """Its checksum of every `step` bytes of start..end."""
        code = snippets.checksums(
            self._partition.kind, self._partition.index,
            start=self.start + start, end=self.start + end, step=step, crc32=self._facts.crc32,
        )  # fmt: skip
        count = -(-(end - start) // step)
        limit = ANSWER_LIMIT + step / _SLOWEST_HASH
        return self._query(code, lambda text: words_said(text, count), limit=limit)

    def checksum(self, data: bytes) -> int:
        """The same of bytes that are here."""
        if self._facts.crc32:
            return zlib.crc32(data)
        return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")

    def same(
        self, image: BinaryIO, start: int, end: int, progress: Progress = no_progress
    ) -> bool | None:
        """Does the camera hold bytes start..end of the image? None: its firmware computes neither
        digests nor checksums."""
        parts = (part(image, at, COARSE, end) for at in range(start, end, COARSE))
        if self._facts.sha256:
            digest = hashlib.sha256()
            for data in parts:
                digest.update(data)
            return digest.hexdigest() == self.digest(start, end, progress)
        if self._facts.crc32:
            return self.checksums(start, end, COARSE) == [self.checksum(data) for data in parts]
        return None

    def _query(
        self,
        code: str,
        parse: Callable[[str], _Answer | None],
        heartbeat: Callable[[bytes], None] | None = None,
        limit: float = ANSWER_LIMIT,
    ) -> _Answer:
        """Run a command, twice if its answer makes no sense. DeviceAnswer."""
        for nothing in (contextlib.suppress(DeviceAnswer), contextlib.nullcontext()):
            text = ""
            with nothing:
                text = self._repl.run(code, limit, heartbeat).strip()
            answer = parse(text)
            if answer is not None:
                return answer
            self._settle()
        raise identity.wrong_answer(self._repl.port.name, text)
