"""How dfu-util and blhost are called, with which limits, and what is made of all that they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.devices.bootloader import blhost, dfu, dfu_util, programs
from romfsfs.devices.bootloader.blhost import BlhostLoader
from romfsfs.devices.bootloader.dfu import DfuLoader
from romfsfs.devices.bootloader.dfu_util import (
    DfuListing,
    DfuSetting,
    choose_setting,
    parse_list,
    percentage,
)
from romfsfs.errors import Cancelled, DeviceAbsent, DeviceError, DeviceLost, UsageError
from romfsfs.system.runner import Limits, Outcome

N6, GIGA, RT = (get_board(name) for name in ("OPENMV_N6", "ARDUINO_GIGA", "OPENMV_RT1060"))
ROMFS = DfuSetting(0x37C5, 0x9206, "1-2", 3, "ROMFS0", "33004B")
EXTERNAL = DfuSetting(0x2341, 0x0366, "", 1, "@Ext RAW  Flash 16MB/0x90B00000/1024*04Kg", "")
WELL = Outcome(0, "", False, 1.0)
RETRY = "repeat the command; if it happens again, use another cable or port"
QUICK = 20.0


class Tool:
    """A tool that is not run: its calls with their limits, and what it answers in turn: an outcome,
    an error, or a call of ours with what it was run with."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[list[str], float]] = []

    def run(
        self, argv: list[str], seconds: float, *, cancel: Any = None, on_output: Any = None
    ) -> Outcome:
        self.calls.append((argv[1:], seconds))
        answer = self.answers.pop(0) if self.answers else WELL
        if callable(answer):
            answer = answer(argv, cancel, on_output)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Outcome)
        return answer


def listing(*settings: DfuSetting, denied: str = "") -> Outcome:
    lines = [
        f'Found DFU: [{each.vid:04x}:{each.pid:04x}] ver=0200, path="{each.path}", alt={each.alt}, '
        f'name="{each.name}", serial="{each.serial}"'
        for each in settings
    ]
    return Outcome(0, "\n".join([*lines, denied]), False, 1.0)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    made = Tool()
    clock = SimpleNamespace(now=100.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    for module in (dfu, blhost):
        monkeypatch.setattr(module, "run", made.run)
        monkeypatch.setattr(module, "find_tool", lambda name, install=None: f"/{install}/{name}")
    monkeypatch.setattr(dfu, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return made


def told() -> tuple[list[Any], Callable[[str, int, int], None]]:
    steps: list[Any] = []
    return steps, lambda *step: steps.append(step)


BASE = ["-d", ",37c5:9206", "-p", "1-2", "-a", "3"]
GIGA_BASE = ["-d", ",2341:0366", "-a", "1"]
LIST = (["-l"], QUICK)


def loader(board: Any = N6, setting: DfuSetting = ROMFS) -> DfuLoader:
    return DfuLoader("dfu-util", board, board.partition(0), setting)


def test_what_a_loader_is() -> None:
    found = loader()
    assert (found.kind, found.name, found.identity, found.capacity, found.header_unit) == (
        "dfu", "OPENMV_N6 in DFU mode", "33004b", 24 << 20, 64 << 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("vid", "serial", "identity"),
    [
        (0x37C5, "323730373339511900340033", "330034001951393337303732"),
        (0x2341, "323730373339511900340033", "323730373339511900340033"),
        (0x37C5, "3237303733395119003400XX", "3237303733395119003400xx"),
        (0x37C5, "", ""), (0x37C5, "0123456789ABCDEF", ""), (0x37C5, "0" * 24, ""),
    ],
)  # fmt: skip
def test_what_a_serial_number_tells(vid: int, serial: str, identity: str) -> None:
    """Who it is, as its firmware says it: the STM32's loaders turn the chip's id round. What all
    loaders say that know no id tells nothing."""
    found = loader(setting=replace(ROMFS, vid=vid, serial=serial))
    assert (found.identity, found.path) == (identity, "1-2")


def test_a_read_ends_when_there_is_enough(tool: Tool, tmp_path: Path) -> None:
    """Arduino's loader reads what it is asked for, to its end."""
    path = tmp_path / "read.img"
    for made, argv, enough in (
        (loader(), [*BASE, "-U", str(path)], 5000),
        (loader(GIGA, EXTERNAL), [*GIGA_BASE, "-s", "0x90B00000:5000", "-U", str(path)],
         GIGA.partition(0).size + 1),
    ):  # fmt: skip
        steps, progress = told()

        def work(argv: Any, cancel: Any, _: Any, enough: int = enough) -> Any:
            sizes = (0, 4999, 5000, enough - 1, enough)
            found = [cancel.is_set()]
            for size in sizes:
                with path.open("wb") as file:
                    file.truncate(size)
                found.append(cancel.is_set())
            assert found == [False, *(size >= enough for size in sizes)]
            return Cancelled("enough")

        for answer in (work, WELL):
            tool.answers = [answer]
            made.read(path, 5000, progress)
            assert tool.calls == [(argv, 60 + 5000 / 20_000)]
            tool.calls.clear()
        path.unlink()
        while_it_read = (0, 0, 4999, 5000, min(enough - 1, 5000), 5000)
        assert steps == [("reading", done, 5000) for done in (*while_it_read, 5000, 5000)]


def test_how_far_a_write_is(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "part.img"
    path.write_bytes(bytes(4000))
    place = ["-s", "0x90B00000"]
    for made, argv in (
        (loader(), [*BASE, "-D", str(path)]),
        (loader(GIGA, EXTERNAL), [*GIGA_BASE, *place, "-D", str(path)]),
    ):
        steps, progress = told()

        def work(argv: Any, cancel: Any, show: Any) -> Outcome:
            assert cancel is None
            for piece in ("Erase [==  ] 25%\rErase [====] 100%\n", "no figure", "[= ] 7%", " 0%"):
                show(piece)
            return WELL

        tool.answers = [work]
        made.write(path, progress)
        assert tool.calls == [(argv, 60 + 4000 / 20_000)]
        tool.calls.clear()
        assert steps == [("writing", done, 4000) for done in (0, 4000, 280, 0)]
        made.erase(4000, progress)
        assert (tool.calls, len(steps)) == ([], 4)


@pytest.mark.parametrize(("what", "again"), [("read", " and repeat the command"), ("write", "")])
def test_a_tool_that_fails(tool: Tool, tmp_path: Path, what: str, again: str) -> None:
    """Is the camera still there, or another? What the tool says of it is no measure."""
    path = tmp_path / "part.img"
    path.write_bytes(b"")
    failed = Outcome(74, "Opening\ndfu-util: Error during upload\nbye\n", False, 1.0)
    made = loader()
    words = {"read": (path, 0, lambda *_: None), "write": (path, lambda *_: None)}[what]
    lost = (DeviceLost, f"the camera went away while it was {what.replace('write', 'written')} "
            f"(OPENMV_N6 in DFU mode); connect it again{again}")  # fmt: skip
    there = (DeviceError, f"dfu-util could not {what} OPENMV_N6 in DFU mode, ROMFS0 (status 74: "
             f"dfu-util: Error during upload); {RETRY}")  # fmt: skip
    blind = Outcome(1, "dfu-util: unable to initialize libusb\n", False, 1.0)
    for seen, (kind, line) in (
        (listing(ROMFS), there), (listing(replace(ROMFS, alt=9, name="x", serial="y")), there),
        (blind, there), (DeviceLost("no answer"), there),  # what failed first says more
        (listing(), lost), (listing(replace(ROMFS, path="1-3")), lost),
        (listing(replace(ROMFS, pid=1)), lost), (listing(replace(ROMFS, vid=1)), lost),
    ):  # fmt: skip
        tool.answers, tool.calls = [failed, seen], []
        with pytest.raises(DeviceError) as caught:
            getattr(made, what)(*words)
        assert (type(caught.value), caught.value.line) == (kind, line)
        assert caught.value.detail.startswith("dfu-util -d ,37c5:9206 -p 1-2 -a 3")
        assert caught.value.detail.endswith(f"{path}\n{failed.output}")
        assert tool.calls[1:] == [LIST]


def test_ways_out_of_dfu_mode(tool: Tool) -> None:
    """Until the board is gone: it is looked for during 5 s after each."""
    here, gone = listing(ROMFS), listing()
    limit = 60 + (24 << 20) / 20_000
    made = loader()
    tool.answers = [Outcome(1, "", False, 1.0), here, here, gone]
    made.reset()
    assert tool.calls == [([*BASE, "-e"], limit), *[LIST] * 3]
    stays = [here] * 52  # at 0.0, 0.1, ... and just over 5.0
    tool.calls.clear()
    tool.answers = [WELL, *stays[:51], here, WELL, gone]
    made.reset()
    waits = [argv for argv, _ in tool.calls if argv[-1] not in ("-l", "-e")]
    assert [argv[:-1] for argv in waits] == [[*BASE, "-R", "-U"]]
    assert 50 <= [argv for argv, _ in tool.calls].index(waits[0]) <= 53
    tool.answers = [WELL, *[here] * 52, Outcome(7, "it does not\n", False, 1.0), *[here] * 60]
    with pytest.raises(DeviceError) as caught:
        made.reset()
    assert caught.value.line == (
        "dfu-util could not reset the camera (status 7: it does not); what was written is "
        "verified; replug it"
    )
    tool.answers, tool.calls = [], []
    tool.answers = [WELL, listing()]
    loader(GIGA, EXTERNAL).reset()
    assert tool.calls[0][0][:-1] == [*GIGA_BASE, "-s", "0x90B00000:16:leave", "-U"]


OTHER = replace(ROMFS, alt=1, name="FIRMWARE")
WAIT = ["-w", "-d", ",37c5:9206", "-a", "0", "-U"]


def found(
    tool: Tool, *answers: Any, path: str = "", runs: bool = False, at: str | None = None
) -> Any:
    """The loader, the calls for it, and whether the board was sent there. at: the USB port that
    who sends it tells."""
    entered: list[int] = []

    def enter() -> str | None:
        entered.append(1)
        return at

    tool.answers, tool.calls = list(answers), []
    try:
        made = dfu.find_loader(N6, N6.partition(0), enter, 7.0, path, runs=runs)
    finally:
        assert len(entered) <= 1
    return made._setting, tool.calls, ["enter"] * len(entered)


def test_a_board_is_found_or_sent_for(tool: Tool) -> None:
    assert found(tool, listing(ROMFS)) == (ROMFS, [LIST], [])
    second = replace(ROMFS, path="1-3")
    assert found(tool, listing(ROMFS, second), path="1-3") == (second, [LIST], [])

    def starts(argv: list[str], cancel: Any, listen: Any) -> Any:
        assert not cancel.is_set()
        Path(argv[-1]).write_bytes(bytes(16))
        assert cancel.is_set()
        listen("Waiting")
        return Cancelled("enough")

    for waited in (starts, Outcome(9, "anything", False, 1.0)):
        setting, calls, said = found(tool, listing(), waited, listing(ROMFS))
        assert (setting, said) == (ROMFS, ["enter"])
        assert [calls[0], calls[2]] == [LIST] * 2
        assert (calls[1][0][:-1], calls[1][1], os.path.basename(calls[1][0][-1])) == (
            WAIT, 7.0, "start",
        )  # fmt: skip
    with pytest.raises(DeviceAbsent) as caught:
        found(tool, listing(), DeviceLost("time"))
    assert caught.value.line == (
        "OPENMV_N6 did not appear in DFU mode within 7 s; replug it and repeat the command"
    )
    with pytest.raises(DeviceError) as failed:
        found(tool, Outcome(3, "no USB\n", False, 1.0))
    assert failed.value.line == (
        "dfu-util could not list devices (status 3: no USB); run `dfu-util -l` to see why"
    )


def test_a_board_that_runs_is_none_of_those_in_dfu_mode(tool: Tool) -> None:
    """It is waited for at its own USB port. Where that is not known, nothing is done: the other
    could be taken for it."""
    second = replace(ROMFS, path="1-3")
    setting, calls, said = found(
        tool, listing(ROMFS), WELL, listing(ROMFS, second), path="1-3", runs=True
    )
    assert (setting, said) == (second, ["enter"])
    assert calls[1][0][:-1] == ["-w", "-d", ",37c5:9206", "-p", "1-3", "-a", "0", "-U"]
    with pytest.raises(DeviceAbsent) as late:
        found(tool, listing(ROMFS), DeviceLost("time"), path="1-3", runs=True)
    assert late.value.line == (
        "OPENMV_N6 did not appear in DFU mode at 1-3 within 7 s; replug it and repeat the command"
    )
    tool.answers, tool.calls = [listing(ROMFS)], []
    with pytest.raises(DeviceError) as caught:
        dfu.find_loader(N6, N6.partition(0), pytest.fail, 7.0, runs=True)
    assert caught.value.line == (
        "another OPENMV_N6 is in DFU mode, and could be taken for this one; nothing was written; "
        "repeat the command when that one has been written, or is unplugged"
    )
    assert tool.calls == [LIST]


@pytest.mark.parametrize("at", ["", "1-3"])
def test_a_board_that_is_plugged_in_meanwhile_is_not_the_one(tool: Tool, at: str) -> None:
    """Whoever sent the other knows where it is; if nobody does, neither is taken."""
    second = replace(ROMFS, path="1-3")
    if not at:
        with pytest.raises(DeviceError, match="2 boards with the USB id of OPENMV_N6"):
            found(tool, listing(), WELL, listing(ROMFS, second), at=at)
        return
    setting, calls, said = found(tool, listing(), WELL, listing(ROMFS, second), at=at)
    assert (setting, said) == (second, ["enter"])
    assert calls[1][0][:-1] == ["-w", "-d", ",37c5:9206", "-p", "1-3", "-a", "0", "-U"]
    with pytest.raises(DeviceAbsent, match="no OPENMV_N6 in DFU mode at 1-3"):
        found(tool, listing(), WELL, listing(ROMFS), at=at)


def test_only_a_board_that_was_sent_for_leaves(tool: Tool) -> None:
    """The one at its port; where two appear at once and neither port is known, neither."""
    two = listing(OTHER, replace(OTHER, path="1-3"))
    for path, leaves in (("1-3", 1), ("", 0)):
        with pytest.raises(DeviceError):
            found(tool, listing(), WELL, two, WELL, listing(), path=path, runs=True)
        out = [argv for argv, _ in tool.calls if "-e" in argv]
        assert out == [["-d", ",37c5:9206", "-p", "1-3", "-a", "1", "-e"]] * leaves


def test_a_board_without_the_partition_is_not_left_there(tool: Tool) -> None:
    """Where it was sent there for nothing it leaves; one that was there stays."""
    stranger = replace(ROMFS, pid=1)
    offers = (
        "the boot loader offers no ROMFS0 (OPENMV_N6: 1 FIRMWARE, 2 X); nothing was written there; "
        "update boot loader and firmware, or use its serial port"
    )
    two = listing(stranger, OTHER, replace(OTHER, alt=2, name="X"))
    for answers, leaves in (([two], 0), ([listing(), WELL, two, WELL, listing()], 1),
                            ([listing(), WELL, two, *[DeviceError("?")] * 9], 1)):  # fmt: skip
        with pytest.raises(DeviceError) as caught:
            found(tool, *answers)
        assert caught.value.line == offers
        out = [argv for argv, _ in tool.calls if "-e" in argv]
        assert out == [["-d", ",37c5:9206", "-p", "1-2", "-a", "1", "-e"]] * leaves
    for board, target in ((N6, replace(N6.partition(0), dfu=None)),
                          (replace(N6, dfu_id=None), N6.partition(0))):  # fmt: skip
        with pytest.raises(UsageError) as none:
            dfu.find_loader(board, target, lambda: None, 7.0)
        assert none.value.line == (
            "OPENMV_N6 has no DFU boot loader for partition 0; use its serial port: SOURCE camera"
        )


@pytest.mark.parametrize(
    ("settings", "denied", "path", "chosen"),
    [
        ([OTHER, ROMFS], False, "", ROMFS), ([replace(ROMFS, name=" ROMFS0 ")], False, "", 0),
        ([ROMFS, replace(ROMFS, path="1-3")], False, "1-2", ROMFS),
        ([ROMFS], True, "1-2", ROMFS),
        ([ROMFS], True, "",
         "this user may not open OPENMV_N6 in DFU mode; romfsfs doctor has the command that allows "
         "it"),
        ([replace(ROMFS, pid=1)], True, "",
         "this user may not open OPENMV_N6 in DFU mode; romfsfs doctor has the command that allows "
         "it"),
        ([ROMFS], True, "1-9",
         "this user may not open OPENMV_N6 in DFU mode; romfsfs doctor has the command that allows "
         "it"),
        ([], False, "", "no OPENMV_N6 in DFU mode; unplug it and plug it in again: its boot loader "
         "answers for 1.5 s; repeat the command with --wait first"),
        ([ROMFS, replace(ROMFS, path="1-3")], False, "1-9",
         "no OPENMV_N6 in DFU mode at 1-9 (in DFU mode at: 1-2, 1-3); unplug it and plug it in "
         "again: its boot loader answers for 1.5 s; repeat the command with --wait first"),
        ([ROMFS, replace(ROMFS, path="1-3")], False, "",
         "2 boards with the USB id of OPENMV_N6 are in DFU mode; name one: dfu:OPENMV_N6@1-2 or "
         "dfu:OPENMV_N6@1-3"),
        ([ROMFS, replace(ROMFS, serial="x")], False, "",
         "1 boards with the USB id of OPENMV_N6 are in DFU mode; name one: dfu:OPENMV_N6@1-2"),
    ],
    ids=range(11),
)  # fmt: skip
def test_the_setting_that_is_meant(
    settings: list[DfuSetting], denied: bool, path: str, chosen: Any
) -> None:
    there = DfuListing(tuple(settings), ((0x37C5, 0x9206),) if denied else ())
    if isinstance(chosen, str):
        with pytest.raises(DeviceError) as caught:
            choose_setting(there, N6, N6.partition(0), path)
        assert caught.value.line == chosen
    else:
        assert choose_setting(there, N6, N6.partition(0), path) == (chosen or settings[0])


@pytest.mark.parametrize(
    ("changes", "is_it"),
    [
        ({}, True), ({"alt": 0}, False), ({"name": "@Flash/0x90000000/1*4Kg"}, True),
        ({"name": "@Flash/0x90B00001/1*4Kg"}, False), ({"name": "@Flash/0x08000000/1*4Kg"}, False),
        ({"name": "@Flash / 0X90b00000 /"}, False), ({"name": "@Flash / 0x90b00000 /"}, True),
        ({"name": "@Flash"}, False), ({"name": "ROMFS0"}, False),
    ],
)  # fmt: skip
def test_a_memory_that_tells_its_start(changes: dict[str, Any], is_it: bool) -> None:
    target = GIGA.partition(0)
    assert dfu_util._is_partition(replace(EXTERNAL, **changes), target) == is_it
    assert not dfu_util._is_partition(EXTERNAL, replace(target, dfu=None))
    assert target.dfu is not None
    nowhere = replace(target, dfu=target.dfu._replace(address=None))
    assert not dfu_util._is_partition(EXTERNAL, nowhere)
    if not is_it:
        with pytest.raises(DeviceError, match="offers no external flash"):
            choose_setting(DfuListing((replace(EXTERNAL, **changes),)), GIGA, target)


def test_what_is_waited_for_and_how_to_get_there() -> None:
    assert dfu_util.wait_argv("dfu-util", N6, N6.partition(0), "f") == ["dfu-util", *WAIT, "f"]
    assert dfu_util.wait_argv("dfu-util", GIGA, GIGA.partition(0), "f") == [
        "dfu-util", "-w", "-d", ",2341:0366", "-a", "1", "-s", "0x90B00000:256", "-U", "f",
    ]  # fmt: skip
    assert dfu_util.read_argv("t", EXTERNAL, "f", address=16) == [
        "t", *GIGA_BASE, "-s", "0x00000010:0", "-U", "f",
    ]  # fmt: skip
    assert dfu_util.how_to_enter(GIGA) == "press its reset button twice"


@pytest.mark.parametrize(
    ("said", "percent"),
    [
        ("7%", 7), ("1% 2% 30%", 30), ("999%", 100), ("100%", 100), ("101%", 100), ("%", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_percentage(said: str, percent: int | None) -> None:
    assert percentage(said) == percent


@pytest.mark.parametrize(
    ("fields", "found_"),
    [
        ('path="1-2.3", alt=3, name="ROMFS0", serial="33"', ("1-2.3", 3, "ROMFS0", "33")),
        ('path="1-2", alt=3, name="ROMFS0", serial="UNKNOWN"', ("1-2", 3, "ROMFS0", "")),
        ("alt=12", ("", 12, "", "")), ("alt=1234", None), ("alt=x", None), ("", None),
        ('alt="7", path=1-2', ("1-2", 7, "", "")), ('path="1", alt=1', ("", 1, "", "")),
        ('path="1-2 ", alt=1', ("", 1, "", "")),
    ],
)  # fmt: skip
def test_a_line_of_the_listing(fields: str, found_: tuple[Any, ...] | None) -> None:
    wanted = () if found_ is None else (DfuSetting(0xA7C5, 0x9206, *found_),)
    text = f"Found DFU: [A7c5:9206] ver=0200, {fields}\n"
    assert parse_list(text) == DfuListing(wanted)
    assert parse_list(text.replace("DFU", "Runtime")) == DfuListing(())
    denied = "Cannot open DFU device {} found on devnum 9 (LIBUSB_ERROR_ACCESS)\n"
    both = denied.format("b7c5:96e3") + denied.format("a7c5:0001") * 2
    assert parse_list(both).denied == ((0xA7C5, 1), (0xB7C5, 0x96E3))


USB = ["-u", "0x15A2,0x0073", "-t"]
AT = "0x60800000"


def test_how_blhost_is_called(tool: Tool, tmp_path: Path) -> None:
    made = BlhostLoader("blhost", RT, RT.partition(0))
    target = RT.partition(0).imx
    assert target is not None
    assert (made.kind, made.name, made.identity, made.path, made.header_unit, made.capacity) == (
        "rt1060", "OPENMV_RT1060 in its boot loader", "", "", 256, target.size,
    )  # fmt: skip
    small = BlhostLoader("blhost", RT, replace(RT.partition(0), size=4096))
    assert small.capacity == 4096
    path = tmp_path / "part.img"
    path.write_bytes(b"a" * 300)
    steps, progress = told()
    made.read(path, 5000, progress)
    made.write(path, progress)
    made.erase(4097, progress)
    made.erase(4096, progress)
    assert path.read_bytes() == b"a" * 300 + b"\xff" * 212
    made.reset()
    limits = [60 + size / 20_000 for size in (5000, 300, 4097, 4096)]
    words = [
        ["read-memory", AT, "5000", str(path)], ["write-memory", AT, str(path)],
        ["flash-erase-region", AT, "8192"], ["flash-erase-region", AT, "4096"],
    ]  # fmt: skip
    assert tool.calls == [
        *(([*USB, str(int(limit * 1000)), *each], limit + QUICK)
          for each, limit in zip(words, limits, strict=True)),
        ([*USB, "5000", "reset"], QUICK),
    ]  # fmt: skip
    assert steps == [
        ("reading", 0, 5000), ("reading", 5000, 5000), ("writing", 0, 300), ("writing", 300, 300),
        ("erasing", 0, 4097), ("erasing", 0, 4096),
    ]  # fmt: skip
    path.write_bytes(b"a" * 512)
    made.write(path, progress)
    assert path.read_bytes() == b"a" * 512
    steps.clear()
    bad = Outcome(0, "Response status = 10200 (0x27d8) error.\n", False, 1.0)
    replug = "replug the camera and repeat the command; if that happens again, use its serial port"
    for work, what in ((lambda: made.read(path, 1, progress), "read"),
                       (lambda: made.write(path, progress), "write"),
                       (lambda: made.erase(1, progress), "erase")):  # fmt: skip
        tool.answers = [bad]
        with pytest.raises(DeviceError) as caught:
            work()
        assert caught.value.line == (
            f"blhost could not {what} the ROMFS (status 0: Response status = 10200 (0x27d8) "
            f"error.); {replug}"
        )
    assert [step[1] for step in steps] == [0, 0, 0], "nothing is done"


@pytest.mark.parametrize(
    ("status", "said", "well"),
    [
        (0, "", True), (1, "", False), (0, "Response status = 0 (0x0) Success.", True),
        (0, "Response status = 00\nResponse status = 10", False),
        (0, "Response status = 10200\nResponse status = 0", False),
        (2, "Response status = 0", False),
    ],
)  # fmt: skip
def test_what_success_is(status: int, said: str, well: bool) -> None:
    assert blhost.succeeded(Outcome(status, said, False, 1.0)) == well


def test_a_camera_is_sent_to_its_loader_when_somebody_looks_for_it(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python_of = blhost._python_of
    monkeypatch.setattr(blhost, "_python_of", lambda tool: f"/venv/{tool[-6:]}-python")
    monkeypatch.setattr(blhost, "_DEVICES", tmp_path)
    entered: list[int] = []

    def find() -> BlhostLoader:
        entered.clear()
        tool.calls.clear()
        return blhost.find_loader(RT, RT.partition(0), lambda: entered.append(1), 7.0)

    ask = ([*USB, "5000", "get-property", "1"], QUICK)
    assert find()._tool == "/pip install 'romfsfs[rt1060]'/blhost"
    assert (tool.calls, entered) == ([ask], [])
    away = Outcome(1, "", False, 1.0)

    def armed(status: int) -> Callable[..., Outcome]:
        def look(argv: list[str], cancel: Any, listen: Any) -> Outcome:
            for piece, count in (("ar", 0), ("med\n", 1), ("armed", 1)):
                listen(piece)
                assert len(entered) == count
            return Outcome(status, "", False, 1.0)

        return look

    tool.answers = [away, armed(0)]
    find()
    wait = ["-c", blhost._WAIT, "0x15A2:0x0073", "7"]
    assert tool.calls == [ask, (wait, 47.0)]
    tool.answers = [away, armed(1)]
    with pytest.raises(DeviceAbsent) as caught:
        find()
    assert caught.value.line == (
        "no OPENMV_RT1060 answers in its boot loader; connect it, let it start, and repeat the "
        "command"
    )
    tool.answers = [away, Outcome(1, "ModuleNotFoundError: spsdk\n", False, 1.0)]
    with pytest.raises(DeviceError) as none:
        find()
    assert none.value.line == (
        "blhost-python could not load spsdk, which blhost belongs to (status 1: "
        "ModuleNotFoundError: spsdk); pip install 'romfsfs[rt1060]'"
    )
    assert entered == []
    (tmp_path / "python3").touch()
    (tmp_path / "blhost").touch()
    (tmp_path / "link").symlink_to(tmp_path / "blhost")
    assert python_of(str(tmp_path / "link")) == str(tmp_path / "python3")
    assert python_of("/nowhere/blhost") == sys.executable


@pytest.mark.parametrize(
    ("devices", "several"),
    [
        ([], 0), (["15a2:0073"], 0), (["15a2:0073", "15a2:0021", "1234:0073"], 0),
        (["15a2:0073", "15A2:0073"], 2), (["15a2:0073"] * 3, 3), (["15a2:0073", "15a2:", "x:1"], 0),
        (["15a2:none", "15a2:0073"], 0),
    ],
)  # fmt: skip
def test_several_loaders_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: list[str], several: int
) -> None:
    monkeypatch.setattr(blhost, "_DEVICES", tmp_path)
    for number, device in enumerate(devices):
        vendor, product = device.split(":")
        (tmp_path / f"1-{number}").mkdir()
        (tmp_path / f"1-{number}" / "idVendor").write_text(f"{vendor}\n")
        if product != "none":
            (tmp_path / f"1-{number}" / "idProduct").write_text(f"{product}\n")
    if not several:
        blhost._refuse_several(RT)
        return
    with pytest.raises(DeviceError) as caught:
        blhost._refuse_several(RT)
    assert caught.value.line == (
        f"{several} boot loaders with the USB id of OPENMV_RT1060 are connected, and blhost cannot "
        "tell them apart; nothing was changed; unplug all but one, and repeat the command for each"
    )


def test_what_a_tool_is_run_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and of our environment what blhost's Python needs."""
    seen: list[Any] = []

    def run_tool(argv: list[str], **options: Any) -> Outcome:
        assert os.listdir(options["folder"]) == []
        seen.append((argv, options))
        return Outcome(0, "said", argv[1] == "late", 7.6)

    monkeypatch.setattr(programs, "run_tool", run_tool)
    monkeypatch.setattr(programs, "environment", lambda folder, **known: (folder, known))
    for name in programs._INHERITED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("OTHER", "1")
    cancel, listen = object(), print
    outcome = programs.run(["/bin/x", "in time"], 9.0, cancel=cancel, on_output=listen)  # type: ignore[arg-type]
    assert outcome.output == "said"
    ((argv, options),) = seen
    folder = options["folder"]
    assert not folder.exists()
    assert (argv, options) == (["/bin/x", "in time"], {
        "folder": folder, "env": (folder, {"HOME": "/home/me"}), "limits": Limits(9.0),
        "cancel": cancel, "on_output": listen,
    })  # fmt: skip
    with pytest.raises(DeviceLost) as caught:
        programs.run(["/bin/x", "late"], 9.0)
    assert (caught.value.line, caught.value.detail) == (
        "x did not finish within 8 s; unplug the camera, plug it in again and repeat the command",
        "/bin/x late\nsaid",
    )


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("", ""), ("\n  \n", ""), ("one\n two \n\n", ": two"),
        ("an ERROR here\nerror: last\nbye", ": error: last"), ("a" * 200, ": " + "a" * 160),
        ("a\x1bb", ": a\\x1bb"),
    ],
)  # fmt: skip
def test_a_failed_tool_in_its_own_words(output: str, why: str) -> None:
    error = programs.failed(["/bin/x", "y"], Outcome(3, output, False, 1.0), "do it", "try")
    assert (error.line, error.detail) == (
        f"x could not do it (status 3{why}); try", f"/bin/x y\n{output}",
    )  # fmt: skip


def test_a_tool_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_on_path", lambda name: None)
    monkeypatch.setattr(programs, "install_command", lambda name: f"install {name}")
    for install, way in ((None, "install x"), ("pip install y", "pip install y")):
        with pytest.raises(DeviceError) as caught:
            programs.find_tool("x", install)
        assert caught.value.line == f"x is not installed; {way}"
    monkeypatch.setattr(programs, "find_on_path", lambda name: f"/bin/{name}")
    assert programs.find_tool("x") == "/bin/x"
