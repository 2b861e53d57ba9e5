"""The parts of a simulated camera by themselves: its wire, its faults, its flash, in figures."""

from __future__ import annotations

import errno
import mmap
import os
import select
import termios
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from romfsfs.errors import UsageError
from romfsfs.simulator import TO_CAMERA, TO_HOST, preset, preset_names
from romfsfs.simulator.config import PartitionConfig, SimulatorConfig
from romfsfs.simulator.executor import (
    BOOT_SCRIPT,
    FAILED,
    FINISHED,
    LINE,
    MAIN_SCRIPT,
    SNIPPET,
    SOFT_RESET,
)
from romfsfs.simulator.faults import CameraStopped, Faults, Statistics
from romfsfs.simulator.flash import Flash, Partition
from romfsfs.simulator.link import IDE_BAUD_RATE, PIECE, Line, Port
from romfsfs.simulator.repl import Repl

KIB = 1024


def test_what_is_pushed_comes_out_later_and_in_order() -> None:
    line = Line(rate=None, latency=0.5)
    line.push(b"", 1.0)
    assert (line.size, line.due, line.pop(9.0)) == (0, None, b"")
    line.push(b"ab", 1.0)
    line.push(b"c", 1.25)
    assert (line.size, line.due) == (3, 1.5)
    assert line.pop(1.25) == b""
    assert line.pop(1.5) == b"ab"
    assert (line.size, line.due) == (1, 1.75)
    line.push(b"d", 1.5)
    assert line.pop(2.0) == b"cd"
    line.push(b"e", 3.0)
    line.clear()
    assert (line.size, line.due, line.pop(9.0)) == (0, None, b"")


def test_a_rate_spreads_what_is_pushed_over_time() -> None:
    line = Line(rate=PIECE / 2.0, latency=1.0)
    data = bytes(range(256)) * 4 + b"end"  # two pieces and a little
    line.push(data, 10.0)
    line.push(b"more", 10.0)
    assert (line.size, line.due) == (len(data) + 4, 13.0)
    assert line.pop(13.0) == data[:PIECE]
    assert line.due == 15.0
    assert line.pop(15.0) == data[PIECE : 2 * PIECE]
    assert line.pop(15.0 + 3.0 * 2 / PIECE) == b"end"
    assert line.pop(15.0 + 7.0 * 2 / PIECE) == b"more"
    assert (line.size, line.due) == (0, None)
    line.push(b"x" * PIECE, 100.0)  # it was idle meanwhile
    assert line.due == 103.0


def faulty() -> Faults:
    return Faults(Statistics())


def test_bytes_on_the_wire_are_counted_and_spoilt_where_asked() -> None:
    faults = faulty()
    statistics = faults._statistics
    assert faults.wire(TO_CAMERA, b"abc") == b"abc"
    faults.garble(TO_CAMERA, 1)
    faults.garble(TO_CAMERA, 3, 0x01)
    faults.lose(TO_CAMERA, 2)
    faults.lose(TO_HOST, 0)
    assert faults.wire(TO_CAMERA, b"defgh") == b"d" + b"a" + b"f" + b"h"
    assert faults.wire(TO_CAMERA, b"defgh") == b"defgh", "once each"
    assert faults.wire(TO_HOST, b"ab") == b"b"
    assert (statistics.wire_in, statistics.wire_out) == (13, 2)
    faults.garble(TO_HOST, 5)
    faults.clear()
    assert faults.wire(TO_HOST, b"abcdefgh") == b"abcdefgh"


@pytest.mark.parametrize(
    ("what", "arm"),
    [
        ("program", Faults.power_cut_after_programmed),
        ("erase", Faults.power_cut_after_erased),
        ("wire", Faults.cut_after_wire_bytes),
    ],
)
def test_the_power_goes_after_so_many_bytes(what: str, arm: Any) -> None:
    faults = faulty()
    assert faults.room(what, 5) == 5
    assert not faults.cut_now()
    arm(faults, 7)
    assert faults.room("other", 50) == 50
    assert faults.room(what, 5) == 5
    assert not faults.cut_now()
    assert faults.room(what, 5) == 2
    assert faults.cut_now()
    assert not faults.cut_now(), "the next power-up works"
    assert faults.room(what, 5) == 5
    arm(faults, 3)
    faults.clear()
    assert faults.room(what, 5) == 5


def test_calls_that_fail_and_blocks_that_are_stuck() -> None:
    faults = faulty()
    faults.fail_ioctl()
    assert [faults.failing_answer(3) for _ in range(3)] == [-5, None, None]
    faults.fail_ioctl(3, -7, command=4, count=2)
    found = [faults.failing_answer(command) for command in (3, 4, 4, 3, 4, 4, 4)]
    assert found == [None, None, None, None, -7, -7, None]
    faults.stuck_block(2)
    faults.stuck_block(3, 1, "erase")
    faults.stuck_block(4, on="both")
    stuck = {
        (partition, block, on)
        for partition in (0, 1) for block in range(6) for on in ("program", "erase")
        if faults.is_stuck(partition, block, on)
    }  # fmt: skip
    assert stuck == {(0, 2, "program"), (1, 3, "erase"), (0, 4, "program"), (0, 4, "erase")}
    faults.fail_ioctl()
    faults.clear()
    assert faults.failing_answer(3) is None
    assert not faults.is_stuck(0, 2, "program")


class Cells:
    """One partition, and what happened to it."""

    def __init__(self, config: PartitionConfig, **timing: Any) -> None:
        self.statistics = Statistics()
        self.faults = Faults(self.statistics)
        settings: SimulatorConfig = preset("OPENMV4P", **timing)
        self.part = Partition(0, config, settings, self.faults, self.statistics)

    def do(self, work: Any) -> tuple[list[float], int]:
        """How long each step of an operation takes, and its answer."""
        seconds = []
        while True:
            try:
                seconds.append(next(work))
            except StopIteration as end:
                return seconds, end.value

    def counted(self, **wanted: Any) -> None:
        """These statistics, and nothing else."""
        fresh = Statistics(**wanted)
        assert self.statistics == fresh, asdict(self.statistics)
        for name, value in vars(Statistics()).items():
            setattr(self.statistics, name, value)


@pytest.fixture
def cells() -> Iterator[Any]:
    made: list[Cells] = []

    def make(**config: Any) -> Cells:
        timing = {name: config.pop(name) for name in list(config) if name.endswith("seconds")}
        made.append(Cells(PartitionConfig(64 * KIB, **config), **timing))
        return made[-1]

    yield make
    for each in made:
        each.part.close()


def test_nor_is_erased_by_blocks_and_programmed_by_pages(cells: Any) -> None:
    nor = cells(erase_seconds=0.5, program_seconds=0.25)
    nor.part.load(bytes(20000))
    assert nor.do(nor.part.erase(4096, 4097)) == ([0.5, 0.5], nor.part.config.min_write)
    assert nor.part.content == (
        bytes(4096) + b"\xff" * 8192 + bytes(20000 - 12288) + b"\xff" * (65536 - 20000)
    )
    nor.counted(erased_blocks=2, erase_counts=Counter({(0, 1): 1, (0, 2): 1}))
    assert nor.do(nor.part.program(4096 + 100, b"\x0f" * 300)) == ([0.25, 0.25], 0)
    assert nor.part.read(4096 + 99, 302) == b"\xff" + b"\x0f" * 300 + b"\xff"
    nor.counted(programmed=300, spans=[(0, 4196, 4496)])
    assert nor.do(nor.part.program(4096, b"\xff" * 100 + b"\x1e" * 28)) == ([0.25], 0)
    assert nor.part.read(4196, 28) == b"\x0e" * 28
    nor.counted(programmed=128, spans=[(0, 4096, 4224)], bad_programs=1)
    assert nor.do(nor.part.program(8192, b"\xff" * 257)) == ([0.25, 0.25], 0)
    nor.counted(programmed=257, spans=[(0, 8192, 8449)], needless_pages=2)


def test_without_the_chips_time_pages_are_programmed_a_sector_at_once(cells: Any) -> None:
    nor = cells(program_seconds=0.0)
    assert nor.do(nor.part.program(4000, bytes(5000))) == ([0.0, 0.0, 0.0], 0)
    assert nor.statistics.programmed == 5000


@pytest.mark.parametrize(
    ("offset", "size", "fits"),
    [(0, 64 * KIB, True), (64 * KIB, 0, True), (-1, 1, False), (0, 64 * KIB + 1, False),
     (64 * KIB, 1, False)],
)  # fmt: skip
def test_what_is_not_in_the_partition_is_refused(
    cells: Any, offset: int, size: int, fits: bool
) -> None:
    nor = cells()
    assert (nor.do(nor.part.erase(offset, size))[1] == -22) != fits
    assert (nor.do(nor.part.program(offset, bytes(size)))[1] == -22) != fits
    if not fits:
        nor.counted()
    assert nor.do(nor.part.erase(0, -1)) == ([], -22)


@pytest.mark.parametrize("cut", [0, 1, 256, 300])
def test_power_that_goes_while_it_programs(cells: Any, cut: int) -> None:
    nor = cells(program_seconds=0.01)
    nor.faults.power_cut_after_programmed(cut)
    with pytest.raises(CameraStopped):
        nor.do(nor.part.program(0, bytes(1000)))
    assert nor.part.content == bytes(cut).ljust(64 * KIB, b"\xff")
    assert nor.statistics.programmed == cut


@pytest.mark.parametrize("cut", [0, 100, 4096, 5000])
def test_power_that_goes_while_it_erases(cells: Any, cut: int) -> None:
    """The block is half erased: no cell of it became less."""
    nor = cells()
    old = b"\x5a" * 8192
    nor.part.load(old)
    nor.faults.power_cut_after_erased(cut)
    with pytest.raises(CameraStopped):
        nor.do(nor.part.erase(0, 8192))
    there = nor.part.read(0, 8192)
    assert there[:cut] == b"\xff" * cut
    rest = there[cut : -(-max(cut, 1) // 4096) * 4096]
    assert all(byte & 0x5A == 0x5A for byte in rest)
    if rest:
        assert not {b"\xff" * len(rest), b"\x5a" * len(rest)} & {rest}
    assert there[-(-max(cut, 1) // 4096) * 4096 :] == old[-(-max(cut, 1) // 4096) * 4096 :]


def test_stuck_blocks_change_no_more_and_say_nothing(cells: Any) -> None:
    nor = cells()
    nor.part.load(b"\xf0" * 12288)
    nor.faults.stuck_block(0, on="erase")
    nor.faults.stuck_block(1, on="program")
    assert nor.do(nor.part.erase(0, 8192))[1] == nor.part.config.min_write
    assert nor.do(nor.part.program(0, bytes(12288)))[1] == 0
    assert nor.part.read(0, 12288) == bytes(4096) + b"\xff" * 4096 + bytes(4096)
    assert nor.statistics.erased_blocks == 2


@pytest.mark.parametrize(
    ("config", "offset", "answer", "there"),
    [
        # words of 16: what is short of one is dropped, or the word takes what lies behind it
        ({"word": 16}, 16, 0, b"\xff" * 16 + bytes(16) + b"\xff" * 16),
        ({"word": 16, "kind": "mram"}, 16, 0, bytes(16) + bytes(20) + b"\xa5" * 12),
        ({"word": 16, "whole_words": True}, 16, 0, b"\xff" * 16 + bytes(20) + b"\xff" * 12),
        ({"word": 16, "whole_words": True}, 8, -5, b"\xff" * 48),
        ({"word": 16, "access": "block"}, 16, 0, b"\xff" * 16 + bytes(20) + b"\xa5" * 12),
        ({"word": 16, "access": "block"}, 8, 0, b"\xff" * 48),
    ],
)
def test_what_is_no_whole_word(
    cells: Any, config: dict[str, Any], offset: int, answer: int, there: bytes
) -> None:
    part = cells(**config)
    assert part.do(part.part.program(offset, bytes(20)))[1] == answer
    assert part.part.read(0, 48) == there
    assert part.statistics.dropped_tails == (offset == 16)


def test_an_image_is_loaded_as_at_the_factory(cells: Any) -> None:
    nor, mram = cells(), cells(kind="mram")
    for part, blank in ((nor.part, b"\xff"), (mram.part, b"\0")):
        assert part.content == blank * (64 * KIB)
        part.load(b"image")
        assert part.content == b"image".ljust(64 * KIB, blank)
        part.load(bytes(64 * KIB))
        with pytest.raises(ValueError, match="65537 bytes in a partition of 65536"):
            part.load(bytes(64 * KIB + 1))
    assert mram.do(mram.part.erase(0, 4096)) == ([], mram.part.config.min_write)
    mram.counted()


def test_every_call_of_the_flash_by_its_number() -> None:
    config = preset("OPENMV_AE3")
    statistics = Statistics()
    flash = Flash(config, Faults(statistics), statistics)
    answer = partial(call, flash)
    try:
        assert len(flash) == 2
        answers = [
            answer(6, 0), answer(6, 1), answer(6, 2), answer(6, -1), answer(5, 0), answer(3, 0),
            answer(4, 0), answer(3, 0, 4096), answer(3, 0, 4096, 8192),
            answer(4, 0, 0, data=b"ab"), answer(7, 0),
        ]  # fmt: skip
        erase = [part.config.erase_size for part in flash.partitions]
        least = flash[0].config.min_write
        assert answers == [*erase, -22, -22, -22, -22, -22, least, least, 0, -22]
        assert statistics.erase_counts == Counter({(0, 0): 1, (0, 1): 1, (0, 2): 1})
        assert statistics.ioctl_calls == Counter({6: 4, 3: 3, 4: 2, 5: 1, 7: 1})
        flash._faults.fail_ioctl(command=6)
        assert (answer(6, 0), answer(6, 0)) == (-5, erase[0])
    finally:
        flash.close()


class Typed:
    """A REPL, and all that comes of what is typed: `said`, and what it was to run, in order."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.repl = Repl(preset("OPENMV4P"), self._write, self._execute, self._soft_reset)

    def _write(self, data: bytes) -> None:
        if self.said and isinstance(self.said[-1], bytes):
            data = self.said.pop() + data
        if data:
            self.said.append(data)

    def _execute(self, source: bytes, kind: int) -> None:
        self.said.append((source, kind))

    def _soft_reset(self) -> None:
        self.said.append("soft reset")
        self.repl.boot(power_up=False)

    def ends(self, status: int = FINISHED, error: bytes = b"") -> None:
        assert self.repl.busy
        self.repl.finished(status, error)

    def answers(self, data: bytes, *ends: tuple[int, bytes]) -> list[Any]:
        """What comes of these bytes; whatever runs ends as `ends` say, else well."""
        self.said.clear()
        typed, outcomes = bytearray(data), list(ends)
        self.repl.process(typed)
        while self.repl.busy:
            self.ends(*(outcomes.pop(0) if outcomes else ()))
            self.repl.process(typed)
        assert not typed
        return [*self.said]


BANNER = (
    b"MicroPython v1.25.0 on 2025-07-01; OPENMV4P with STM32H743\r\n"
    b'Type "help()" for more information.\r\n>>> '
)
BOOT, MAIN = (b"", BOOT_SCRIPT), (b"", MAIN_SCRIPT)


def test_what_is_typed_at_the_prompt_and_what_comes_back() -> None:
    camera = Typed()
    camera.repl.boot(power_up=True)
    camera.repl.process(bytearray(b"lost?"))  # nobody reads while it starts
    camera.ends()
    camera.ends()
    assert camera.said == [BOOT, MAIN, BANNER]
    for typed, comes in (
        (b" ~}\x1f\x00\x05\x80\xff\n\t", [b" ~}"]),
        (b"\x03", [b"\r\n>>> "]),
        (b"\x00\x05", []),
        (b"\r  \r", [b"\r\n>>>   \r\n>>> "]),
        (b"\x08\x7f", []),
        (b"ab\x08\x7f\x7f", [b"ab\x08 \x08\x08 \x08"]),
        (b"x\x01\x02\x04\x05\r", [b"x\r\n", (b"x\n", LINE), b">>> "]),
        (b"1\r", [b"1\r\n", (b"1\n", LINE), b">>> "]),
        (b"1+\\  \r2\r", [b"1+\\  \r\n... 2\r\n", (b"1+\\  \n2\n", LINE), b">>> "]),
        (b"(1)\r", [b"(1)\r\n", (b"(1)\n", LINE), b">>> "]),
        (b"1)\r", [b"1)\r\n", (b"1)\n", LINE), b">>> "]),
        (b"[(\r{\r)]}\r", [b"[(\r\n... {\r\n... )]}\r\n", (b"[(\n{\n)]}\n", LINE), b">>> "]),
        (b"'''\r\x02\r'''\r", [b"'''\r\n... \r\n... '''\r\n", (b"'''\n\n'''\n", LINE), b">>> "]),
        (b"if x:\r y\r \r", [b"if x:\r\n...  y\r\n...  \r\n", (b"if x:\n y\n \n", LINE), b">>> "]),
        (b"@f\r\x03iffy\r", [b"@f\r\n... \r\n>>> iffy\r\n", (b"iffy\n", LINE), b">>> "]),
        (b"for\rx\x03y\r", [b"for\r\n... x\r\n>>> y\r\n", (b"y\n", LINE), b">>> "]),
        (b"\x02", [b"\r\n" + BANNER]),
        (b"\x04", [b"\r\n", "soft reset", BOOT, BANNER]),
    ):  # fmt: skip
        assert camera.answers(typed) == comes, typed
    assert camera.answers(b"1/0\r", (FAILED, b"bad\r\n")) == [
        b"1/0\r\n", (b"1/0\n", LINE), b"bad\r\n>>> ",
    ]  # fmt: skip
    assert camera.answers(b"reset\r", (SOFT_RESET, b"unsaid")) == [
        b"reset\r\n", (b"reset\n", LINE), "soft reset", BOOT, BANNER,
    ]  # fmt: skip


def test_what_is_sent_to_the_raw_repl_and_what_comes_back() -> None:
    camera, raw = Typed(), b"raw REPL; CTRL-B to exit\r\n>"
    camera.repl.boot(power_up=True)
    camera.ends(FAILED, b"boot.py is wrong\r\n")
    assert camera.said == [BOOT, b"boot.py is wrong\r\n" + BANNER], "main.py does not run then"
    stopped = b"\x04\x04Traceback (most recent call last):\r\nKeyboardInterrupt: \r\n\x04>"
    full, paste = b"x" * 127, b"R\x01\x80\x00\x01"
    for typed, comes in (
        (b"\x01", [b"\r\n" + raw]),
        (b"junk\x01", [raw]),
        (b"\x05A\x02\x01", [b"\r\n" + BANNER + b"\r\n" + raw]),
        (b"\x05AB\x01", [raw]),
        (b"half\x031\x04", [b"OK", (b"1", SNIPPET), b"\x04\x04>"]),
        (b"in two ", []),
        (b"pieces\x04", [b"OK", (b"in two pieces", SNIPPET), b"\x04\x04>"]),
        (b"\x05B\x01", [b"R\x00>"]),
        (b"\x05A\x01\x01\x02\x04", [paste + b"\x04", (b"\x01\x02", SNIPPET), b"\x04\x04>"]),
        (b"\x05A\x01" + full + b"\x04", [paste + b"\x04", (full, SNIPPET), b"\x04\x04>"]),
        (b"\x05A\x01" + full * 3 + b"xxx\x03", [paste + b"\x01\x01\x01" + stopped]),
        (b"2\x04", [b"OK", (b"2", SNIPPET), b"\x04\x04>"]),
        (b"\x04", [b"OK\r\n", "soft reset", BOOT, raw]),
    ):  # fmt: skip
        assert camera.answers(typed) == comes, typed
    wrong = [b"OK", (b"3", SNIPPET), b"\x04no\x04>"]
    assert camera.answers(b"3\x04", (FAILED, b"no")) == wrong
    over = [b"OK", (b"4", SNIPPET), b"\x04\x04", "soft reset", BOOT, raw]
    assert camera.answers(b"4\x04", (SOFT_RESET, b"unsaid")) == over
    camera.said.clear()
    camera.repl.boot(power_up=True)  # out of the raw REPL
    camera.ends()
    camera.ends()
    assert camera.said == [BOOT, MAIN, BANNER]
    assert camera.answers(b"\x01") == [b"\r\n" + raw]
    camera.answers(b"\x02")
    assert camera.answers(b"\x04") == [b"\r\n", "soft reset", BOOT, BANNER]


def test_the_bytecode_and_the_partitions_of_each_board() -> None:
    """As the firmware's sources have them: mpy version 6.3; the M4 has no double precision."""
    nor, mib = (4 * KIB, 1, 4), 1024 * KIB
    found = {}
    for name in preset_names():
        config = preset(name.lower())
        version = config.mpy & 0xFF, config.mpy >> 8 & 3, config.mpy >> 10
        parts = [(p.size, p.erase_size, p.word, p.min_write) for p in config.partitions]
        found[name] = (version, parts)
    single, double = (6, 3, 7), (6, 3, 8)
    assert found == {
        "OPENMV2": (single, [(128 * KIB, 128 * KIB, 16, 16)]),
        "OPENMV3": (double, [(256 * KIB, 256 * KIB, 16, 16)]),
        "OPENMV4": (double, [(128 * KIB, 128 * KIB, 32, 16)]),
        "OPENMV4P": (double, [(8 * mib, *nor)]),
        "OPENMVPT": (double, [(8 * mib, *nor)]),
        "OPENMV_RT1060": (double, [(8 * mib, *nor)]),
        "OPENMV_AE3": (double, [(24 * mib, *nor), (mib, 16, 16, 16)]),
        "OPENMV_N6": (double, [(24 * mib, 4 * KIB, 2, 4)]),
        "ARDUINO_PORTENTA_H7": (double, [(4 * mib, *nor)]),
        "ARDUINO_GIGA": (double, [(4 * mib, *nor)]),
        "ARDUINO_NICLA_VISION": (double, [(4 * mib, *nor)]),
    }


def call(flash: Flash, command: int, index: int, *arguments: int, data: bytes = b"") -> int:
    """The answer to one call, however long it takes."""
    work = flash.ioctl(command, index, arguments, data)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return int(end.value)


@pytest.fixture
def flashes() -> Iterator[Any]:
    """`flashes(board, **changes)`: its flash; closed at the end."""
    before = len(os.listdir("/dev/fd"))
    made: list[Flash] = []

    def make(board: str, backing: Path | None = None, **changes: Any) -> Flash:
        statistics = Statistics()
        made.append(Flash(preset(board, **changes), Faults(statistics), statistics, backing))
        return made[-1]

    yield make
    for flash in made:
        flash.close()
    assert len(os.listdir("/dev/fd")) <= before


def test_a_block_device_erases_and_programs_by_blocks(flashes: Any) -> None:
    flash = flashes("OPENMV_RT1060", images={0: bytes(16384)})
    answers = [call(flash, *asked) for asked in ((3, 0, 1), (4, 0, 0), (6, 0), (5, 0))]
    assert answers == [-22] * 4
    assert call(flash, 103, 0, 4096) == 0
    assert flash[0].read(4095, 4098) == b"\0" + b"\xff" * 4096 + b"\0"
    assert call(flash, 104, 0, 8192, data=b"a" * 256) == 0
    assert flash[0].read(8191, 4098) == b"\xff" + b"a" * 256 + b"\xff" * 3840 + b"\0"
    assert call(flash, 104, 0, 4096, 256, data=b"b" * 256) == 0
    assert flash[0].read(4096, 768) == b"\xff" * 256 + b"b" * 256 + b"\xff" * 256
    size = flash[0].config.size
    assert [call(flash, 103, 0, size), call(flash, 104, 0, size, data=b"a")] == [-22, -22]
    flash._faults.fail_ioctl(answer=1, command=103)
    assert call(flash, 103, 0, 0) == 1


def test_firmware_that_only_reads_or_knows_no_range(flashes: Any) -> None:
    reads = flashes("OPENMV4P", writable=False)
    assert [call(reads, *asked) for asked in ((3, 0, 1), (4, 0, 0), (6, 0))] == [-22] * 3
    older = flashes("OPENMV4P", erase_by_range=False, images={0: bytes(12288)})
    assert [call(older, 6, 0), call(older, 3, 0, 8192, 4096)] == [-22, 4]
    assert older[0].read(0, 12288) == b"\xff" * 8192 + bytes(4096)


def test_a_partition_that_is_kept_in_a_file(flashes: Any, tmp_path: Path) -> None:
    backing = tmp_path / "flash"
    backing.write_bytes(b"kept")
    old = os.umask(0)
    try:
        flash = flashes("OPENMV_AE3", backing, images={1: b"image"})
    finally:
        os.umask(old)
    second = tmp_path / "flash.1"
    assert second.stat().st_mode & 0o777 == 0o644
    assert backing.read_bytes() == flash[0].content == b"kept".ljust(24 << 20, b"\xff")
    assert second.read_bytes() == b"image".ljust(1 << 20, b"\0")
    assert call(flash, 4, 0, 4096, data=b"new") == 0
    with backing.open("rb") as file:
        file.seek(4094)
        assert file.read(8) == b"\xff\xffnew\xff\xff\xff"


def test_the_part_that_hangs_a_camera_has_pages_of_its_own(flashes: Any) -> None:
    part = flashes("OPENMV4P")[0]
    tail, page = part.config.wedge_tail, mmap.ALLOCATIONGRANULARITY
    assert (tail, (part.lead + part.config.size - tail) % page, part.lead < page) == (512, 0, True)
    assert (part.span % page, part.span - part.lead - part.config.size < page) == (0, True)
    assert os.fstat(part.fd).st_size == part.span


def test_the_folders_of_a_camera(flashes: Any) -> None:
    flash = flashes(
        "OPENMV4", boot_script="b", main_script="m", flash_files={"main.py": b"own", "x": b"\xff"},
        sd_files={"y": b""},
    )  # fmt: skip
    found = [(volume.folder, volume.settings) for volume in flash.volumes]
    sizes = [os.fstat(volume.file.fileno()).st_size for volume in flash.volumes]
    fds = [volume.file.fileno() for volume in flash.volumes]
    assert sizes == [256 << 10] * 2
    assert found == [
        ("/flash", {"fd": fds[0], "size": 256 << 10,
                    "files": {"boot.py": "b", "main.py": "own", "x": "\xff"}}),
        ("/sdcard", {"fd": fds[1], "size": 256 << 10, "files": {"y": ""}}),
    ]  # fmt: skip
    assert [volume.folder for volume in flashes("OPENMV4").volumes] == ["/flash"]


def test_what_a_camera_is_unless_something_else_is_said() -> None:
    part = PartitionConfig(8192)
    assert asdict(part) == {
        "size": 8192, "erase_size": 4096, "kind": "nor", "word": 1, "whole_words": False,
        "cached": False, "min_write": 4, "access": "memory", "wedge_tail": 0,
    }  # fmt: skip
    made = asdict(SimulatorConfig("B", "M", "A", (part,)))
    assert made.pop("partitions") == (asdict(part),)
    assert made.pop("unique_id").hex() == "330034001951393337303732"
    assert made == {
        "board": "B", "machine": "M", "arch_string": "A", "board_type": "", "platform": "stm32",
        "mpy": 6 + 3 * 256 + 8 * 1024, "release": "1.25.0", "heap_size": 4 << 20,
        "erase_by_range": True, "writable": True, "stdio_buffer": True, "missing": (),
        "flash_files": {}, "sd_files": None, "boot_script": "", "main_script": "",
        "erase_seconds": 0.0, "program_seconds": 0.0, "rate": None, "latency": 0.0,
        "usb": "tinyusb", "runs_rom": False, "byte_seconds": 0.0, "rx_buffer": 512,
        "reset_seconds": 0.3, "images": {},
    }  # fmt: skip
    with pytest.raises(UsageError) as caught:
        preset("openmv9")
    assert caught.value.line == (
        f"no board openmv9 is simulated; one of {', '.join(preset_names())}"
    )


def test_a_port_is_plugged_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = len(os.listdir("/dev/fd"))
    port, link = Port("cam"), tmp_path / "cam"
    assert (port.link, port.is_open) == (str(link), False)
    port.close()
    link.symlink_to("of last time")
    port.open()
    assert port.is_open
    assert os.listdir(tmp_path) == ["cam"]
    host = os.open(link, os.O_RDWR | os.O_NOCTTY)
    assert os.ttyname(host) == os.readlink(link)
    assert port.read() == b""
    os.write(host, b"\x03\r\n\x04")
    assert select.select([port.fd], [], [], 60)[0]
    assert port.read() == b"\x03\r\n\x04", "as it is typed"
    assert port.write(b"a\nb") == 3
    assert os.read(host, 9) == b"a\nb"
    assert not port.speaks_ide_protocol
    if IDE_BAUD_RATE >= 0:
        modes = termios.tcgetattr(host)
        modes[4] = modes[5] = IDE_BAUD_RATE
        termios.tcsetattr(host, termios.TCSANOW, modes)
        assert port.speaks_ide_protocol
    while port.write(bytes(65536)):
        pass
    os.close(host)
    for number in (errno.EIO, errno.EBADF):

        def read(fd: int, size: int, number: int = number) -> bytes:
            raise OSError(number, "no")

        with monkeypatch.context() as once:
            once.setattr(os, "read", read)
            if number == errno.EIO:
                assert port.read() == b"", "nobody has it open"
            else:
                with pytest.raises(OSError, match="no"):
                    port.read()
    link.unlink()
    port.close()
    port.close()
    assert not port.is_open
    assert len(os.listdir("/dev/fd")) <= before
    port.open()
    port.close()
    assert os.listdir(tmp_path) == []
    link.write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        port.open()
    assert caught.value.line == f"the port's link would replace a file ({link})"
    with pytest.raises(FileNotFoundError):
        Port(tmp_path / "none" / "cam").open()
    assert len(os.listdir("/dev/fd")) <= before
