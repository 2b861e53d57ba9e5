"""The host's side of a write, frame by frame: what is sent, sent again, waited for and said."""

from __future__ import annotations

import struct
import zlib
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from camera_helpers import Clock, TalkingPort

from romfsfs.devices.serial_camera import port as ports
from romfsfs.devices.serial_camera import reading, writing
from romfsfs.devices.serial_camera.flash_plan import Operation
from romfsfs.devices.serial_camera.frames import LONGEST, chunk, escaped, frame
from romfsfs.devices.serial_camera.reading import Window
from romfsfs.devices.serial_camera.writing import Writer
from romfsfs.errors import DeviceAnswer, DeviceError, DeviceLost

START = 0x10000
ERASE = Operation("erase", 0, 4096)
WRITE = Operation("program", 0, 6, b"\x01\x02\x03\x04\x05\x03")
NEXT = Operation("program", 4096, 4098, b"ab")
FORGET = ("forget", LONGEST)
STEP = "use another cable or port, without a hub, and repeat the command"


def read_frame(data: bytes, raw: bool = True) -> tuple[Any, ...]:
    """(operation, number, offset, length, payload) of what was sent, which is checked."""
    if not data.strip(b"\n"):
        return ("forget", len(data))
    head, body = a2b_base64(data[:24]), data[24:]
    assert b"\x03" not in data
    kind, marker, number, offset, length, size = struct.unpack("<BBHIIH", head[:14])
    assert (marker, size) == (0xA5, len(body))
    payload = body.replace(b"\x04\x05", b"\x03").replace(b"\x04\x06", b"\x04")
    payload = payload if raw else a2b_base64(body)
    assert struct.unpack("<I", head[14:])[0] == zlib.crc32(payload, zlib.crc32(head[:14]))
    return chr(kind), number, offset, length, payload


class Talk:
    """A REPL with a WRITE loop on it. said: what it answers to the frames, in turn; None: "k", as
    a loop does that gets everything."""

    def __init__(self, clock: Clock, said: Sequence[bytes | None]) -> None:
        self.left = list(said)
        self.raw = True
        self.events: list[Any] = []
        self.finishing: Callable[[], bytes] = lambda: b""
        self.port = TalkingPort(clock, self.answer)

    def answer(self, data: bytes) -> bytes:
        sent = read_frame(data, self.raw)
        self.events.append(sent)
        if sent[0] == "Q":
            return b""
        said = self.left.pop(0) if self.left else (b"" if sent[0] == "forget" else None)
        return b"k %d %d\n" % (sent[1], 16 if sent[0] in "EP" else 0) if said is None else said

    def start_loop(self, code: str) -> None:
        self.events.append("start")

    def finish(self, limit: float) -> bytes:
        self.events.append("finish")
        return self.finishing()

    def recover(self) -> None:
        self.events.append("recover")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (writing, reading, ports):
        monkeypatch.setattr(module, "time", made)
    return made


def writer(talk: Talk, prefix: bool = False, **changes: Any) -> Writer:
    talk.raw = changes.get("raw", True)
    fields = {"raw": True, "crc32": True, "poll": True, "chunk": 4096, "start": START, **changes}
    window = Window("memory", 0, **fields)
    return Writer(talk, window, prefix=prefix, advice="try again")  # type: ignore[arg-type]


#: as the frames go out, numbers from 0
E0 = ("E", 0, START, 4096, b"")
W1 = ("W", 1, START, 6, WRITE.data)
F2 = ("F", 2, 0, 0, b"")
QUIT = [("Q", 0, 0, 0, b""), "finish"]


def test_frames_go_out_and_are_counted_as_they_are_answered(clock: Clock) -> None:
    talk, done = Talk(clock, []), []
    with writer(talk) as made:
        made.run([ERASE, WRITE], done.append)
    assert talk.events == ["start", E0, W1, F2, *QUIT]
    assert done == [ERASE, WRITE]
    assert (made.programmed, made.erase_answer) == (6, 16)


@pytest.mark.parametrize(
    ("prefix", "changes", "kind"), [(True, {}, "P"), (False, {"raw": False}, "E")]
)
def test_firmware_that_knows_less(
    clock: Clock, prefix: bool, changes: dict[str, Any], kind: str
) -> None:
    talk = Talk(clock, [])
    with writer(talk, prefix, **changes) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", (kind, *E0[1:]), W1, F2, *QUIT]


def test_an_erase_that_answers_nothing_of_units(clock: Clock) -> None:
    talk = Talk(clock, [b"k 0 0\n"])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert (made.programmed, made.erase_answer) == (6, 0)


def test_numbers_begin_again_after_65535(clock: Clock) -> None:
    talk = Talk(clock, [])
    with writer(talk) as made:
        made._number = 65535
        made.run([ERASE])
    assert talk.events[1:3] == [("E", 65535, START, 4096, b""), ("F", 0, 0, 0, b"")]


def test_no_more_than_four_frames_are_on_the_way(clock: Clock) -> None:
    """And none behind a long erase: its bytes would block the port."""
    talk = Talk(clock, [b""] * 100)
    with pytest.raises(DeviceLost), writer(talk) as made:
        made.run([Operation("program", at, at + 1, b"x") for at in range(9)])
    assert [event[1] for event in talk.events[1:5]] == [0, 1, 2, 3]
    assert talk.events[5] == FORGET
    for size, ahead in ((65536, 3), (65537, 1)):
        talk = Talk(clock, [b""] * 100)
        with pytest.raises(DeviceLost), writer(talk) as made:
            made.run([Operation("erase", 0, size), WRITE])
        assert talk.events.index(FORGET) == 1 + ahead


@pytest.mark.parametrize(
    ("operation", "seconds"), [(WRITE, 3.0), (ERASE, 3.18), (Operation("erase", 0, 40960), 4.8)]
)
def test_the_limit_of_an_erase_grows_with_it(
    clock: Clock, operation: Operation, seconds: float
) -> None:
    """Five times, with half a second of silence before it is sent again."""
    before = clock.now
    with pytest.raises(DeviceLost), writer(Talk(clock, [b""] * 99)) as made:
        made.run([operation])
    assert clock.now - before == pytest.approx(5 * seconds + 4 * 0.5)


def test_an_answer_that_got_lost(clock: Clock) -> None:
    """The camera says which frame it expects: those before it were carried out."""
    talk = Talk(clock, [b"", b"", b"", b"r 3\n"])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", E0, W1, F2, FORGET, *QUIT]
    assert made.programmed == 6


def test_a_frame_that_got_lost(clock: Clock) -> None:
    """It and all behind it are sent again, when the line is silent."""
    talk = Talk(clock, [b"", b"r 0\n", b"r 0\n"])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", E0, W1, F2, E0, W1, F2, *QUIT]
    talk = Talk(clock, [None, b"", b"", b"r 1\n"])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", E0, W1, F2, FORGET, W1, F2, *QUIT]
    assert made.erase_answer == 16
    talk = Talk(clock, [b"r 9\n", b"", b""])  # of a frame that there is not
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", E0, W1, F2, E0, W1, F2, *QUIT]


def test_answers_that_come_while_the_line_is_waited_to_be_silent(clock: Clock) -> None:
    talk = Talk(clock, [b"k 0x\n", None, None])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    # what means nothing: half a frame may be there
    assert talk.events == ["start", E0, W1, F2, FORGET, E0, W1, F2, *QUIT]
    talk = Talk(clock, [b"k 7 0\nk 0 16\n", None, None])
    with writer(talk) as made:
        made.run([ERASE, WRITE])
    assert talk.events == ["start", E0, W1, F2, *QUIT]
    assert (made.programmed, made.erase_answer) == (6, 16)


def lost(where: str) -> str:
    return f"bytes keep getting lost on the way (5 attempts) (ttyX, {where}); {STEP}"


def refused(what: str, reason: str, where: str = "") -> str:
    place = f"ttyX, {where}" if where else "ttyX"
    return f"the camera refuses {what}: {reason} ({place}); try again"


@pytest.mark.parametrize(
    ("said", "operations", "kind", "line", "number"),
    [
        ([b"e 0 -5\n"], [ERASE], DeviceAnswer,
         refused("to erase", "Input/output error (-5)", "0x0..0x1000"), 5),
        ([b"k 0 -5\n"], [ERASE], DeviceAnswer,
         refused("to erase", "Input/output error (-5)", "0x0..0x1000"), 5),
        ([b"k 0 1\n"], [NEXT], DeviceAnswer,
         refused("to program", "an unknown answer (1)", "0x1000..0x1002"), 0),
        ([b"k 0 -22\n"], [NEXT], DeviceAnswer,
         refused("to program", "Invalid argument (-22)", "0x1000..0x1002"), 22),
        ([b"k 0 -4096\n"], [NEXT], DeviceAnswer,
         refused("to program", "an unknown answer (-4096)", "0x1000..0x1002"), 4096),
        ([b"r 0\n", None, b"", b"e 0 -5\n"], [NEXT], DeviceAnswer, None, 5),
        ([b""] * 12 + [b"e 0 -5\n"], [NEXT], DeviceAnswer,
         refused("to program", "Input/output error (-5)", "0x1000..0x1002"), 5),
        ([b"", b"", b"e 0 -5\n"], [NEXT], DeviceAnswer,  # while the line is waited to be silent
         refused("to program", "Input/output error (-5)", "0x1000..0x1002"), 5),
        ([None, b"k 1 -5\n"], [NEXT], DeviceAnswer,
         refused("to finish writing", "Input/output error (-5)"), 5),
        ([b"t\n"], [NEXT], DeviceLost, "the camera waited too long for data and gave up (ttyX, "
         "0x1000..0x1002); repeat the command; it continues where it stopped", None),
        ([None, b"t\n"], [NEXT], DeviceLost, "the camera waited too long for data and gave up "
         "(ttyX, finish); repeat the command; it continues where it stopped", None),
        ([b""] * 99, [NEXT], DeviceLost, lost("0x1000..0x1002"), None),
        ([None, *[b""] * 99], [NEXT], DeviceLost, lost("finish"), None),
        ([b"\x04"], [NEXT], DeviceLost, "the camera ended the transfer (ttyX); repeat the command; "
         "it continues where it stopped", None),
    ],
)  # fmt: skip
def test_what_ends_a_write(
    clock: Clock, said: list[bytes | None], operations: list[Operation], kind: type[DeviceError],
    line: str | None, number: int | None,
) -> None:  # fmt: skip
    talk = Talk(clock, said)
    with pytest.raises(kind) as caught, writer(talk) as made:
        made.run(operations)
    assert type(caught.value) is kind
    if line is not None:
        assert caught.value.line == line
    if number is not None:
        assert caught.value.errno == number
    assert (talk.events[-1] == "recover") == (kind is DeviceAnswer)
    assert "finish" not in talk.events or said == [b"\x04"]


@pytest.mark.parametrize("answer", [-22, -95, 0])
def test_finishing_that_the_firmware_does_not_know(clock: Clock, answer: int) -> None:
    talk = Talk(clock, [None, b"k 1 %d\n" % answer])
    with writer(talk) as made:
        made.run([NEXT])
    assert talk.events[-2:] == QUIT


def test_an_exception_that_ends_the_loop_is_told(clock: Clock) -> None:
    talk = Talk(clock, [b"k 0 \x04rest"])
    why = DeviceAnswer("MemoryError")

    def fail() -> bytes:
        assert talk.port.read_some(0.0).startswith(b"\x04rest")
        raise why

    talk.finishing = fail
    with pytest.raises(DeviceAnswer) as caught, writer(talk) as made:
        made.run([NEXT])
    assert caught.value is why


def test_answers_without_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(clock, [b"r 0\n"])
    read_some = talk.port.read_some

    def babble(deadline: float) -> bytes:
        clock.now += 1.0
        return read_some(clock.now) or b"r 0\n"

    monkeypatch.setattr(talk.port, "read_some", babble)
    before = clock.now
    with pytest.raises(DeviceLost) as caught, writer(talk) as made:
        made.run([NEXT])
    assert caught.value.line == lost("its answers do not end")
    assert 30 <= clock.now - before < 40


def test_five_failures_in_a_row_and_not_in_all(clock: Clock) -> None:
    """Each frame that gets through begins the count anew."""
    failures = dict.fromkeys(range(4), 4)

    def answer(data: bytes) -> bytes:
        kind, number = read_frame(data)[:2]
        if kind in ("Q", "forget"):
            return b""
        failures[number] -= 1
        return b"" if failures[number] >= 0 else b"k %d 0\n" % number

    talk = Talk(clock, [])
    talk.port.answer = answer
    with writer(talk) as made:
        made.run([NEXT])
        made.run([NEXT])
    assert made.programmed == 4
    assert failures == {0: -1, 1: -1, 2: -1, 3: -1}


def test_frames_in_bytes() -> None:
    assert escaped(bytes(range(6))) == b"\x00\x01\x02\x04\x05\x04\x06\x05"
    assert [chunk(raw=raw, free=free) for raw, free in (
        (True, 96 << 10), (True, (96 << 10) - 1), (True, 0), (False, 1 << 20),
    )] == [4096, 1536, 1536, 1536]  # fmt: skip
    assert LONGEST == 24 + 8192
    assert read_frame(frame(b"E", 0x12345, 7, length=9)) == ("E", 0x2345, 7, 9, b"")
    assert read_frame(frame(b"W", 1, 7, b"abc", length=9)) == ("W", 1, 7, 3, b"abc")
