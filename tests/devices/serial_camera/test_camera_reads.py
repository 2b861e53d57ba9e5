"""The host's side of a read, request by request: what is asked for, again, and when it is given
up."""

from __future__ import annotations

import io
import zlib
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from camera_helpers import Clock, TalkingPort

from romfsfs.devices.serial_camera import port as ports
from romfsfs.devices.serial_camera import reading
from romfsfs.devices.serial_camera.reading import Window, read_range, records_of
from romfsfs.errors import DeviceAnswer, DeviceLost

START = 0x1000
DATA = bytes(range(256)) * 100


class Talk:
    """A REPL with a READ loop on it, whose requests are answered from DATA. spoil: by the number
    of the request, what comes in place of its answer."""

    def __init__(self, clock: Clock, window: Window, spoil: dict[int, bytes] | None = None) -> None:
        self.window = window
        self.spoil = spoil or {}
        self.asked: list[Any] = []
        self.events: list[str] = []
        self.busy = True
        self.finishing: Callable[[], None] = lambda: None
        self.port = TalkingPort(clock, self.answer)

    def answer(self, data: bytes) -> bytes:
        if data == b"\n":
            self.asked.append("newline")
            return b""
        at, length, check = (int(word, 16) for word in data.split())
        assert at ^ length == check
        number = sum(each != "newline" for each in self.asked)
        self.asked.append((at - START if length else "end", length))
        if not length:
            return b""
        assert at >= START
        piece = DATA[at - START : at - START + length]
        crc = zlib.crc32(piece, at) if self.window.crc32 else 0
        if number in self.spoil:
            return self.spoil[number]
        if self.window.raw:
            return piece + crc.to_bytes(4, "little")
        return b2a_base64(piece).strip() + b" %08x\r\n" % crc

    def start_loop(self, code: str) -> None:
        self.events.append("start")

    def finish(self, limit: float) -> None:
        self.events.append("finish")
        self.finishing()

    def recover(self) -> None:
        self.events.append("recover")
        self.busy = False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (reading, ports):
        monkeypatch.setattr(module, "time", made)
    return made


def window(**changes: Any) -> Window:
    fields = {"raw": True, "crc32": True, "poll": True, "chunk": 100, "start": START, **changes}
    return Window("memory", 0, **fields)


def read(talk: Talk, start: int, end: int) -> tuple[int, bytes, list[int]]:
    out, done = io.BytesIO(), []
    position = read_range(talk, talk.window, start, end, out, done.append)  # type: ignore[arg-type]
    return position, out.getvalue(), done


def pieces(*starts: int, end: int = 0) -> Iterable[tuple[int, int]]:
    return [(start, min(100, end - start) if end else 100) for start in starts]


@pytest.mark.parametrize(
    "changes", [{}, {"raw": False}, {"crc32": False}, {"raw": False, "crc32": False}]
)
def test_four_requests_are_on_the_way_and_no_byte_is_asked_for_twice(
    clock: Clock, changes: dict[str, bool]
) -> None:
    talk = Talk(clock, window(**changes))
    assert read(talk, 50, 680) == (680, DATA[50:680], [150, 250, 350, 450, 550, 650, 680])
    starts = range(50, 680, 100)
    assert talk.asked == [*pieces(*starts, end=680), ("end", 0)]
    assert talk.events == ["start", "finish"]
    assert read(Talk(clock, window()), 7, 7) == (7, b"", [])


def test_requests_are_sent_as_answers_come(clock: Clock) -> None:
    talk = Talk(clock, window())
    seen: list[int] = []
    read_range(talk, talk.window, 0, 600, io.BytesIO(), lambda at: seen.append(len(talk.asked)))  # type: ignore[arg-type]
    assert seen == [4, 5, 6, 6, 6, 6]


@pytest.mark.parametrize(
    "spoilt",
    [b"", b"x" * 104, b"x" * 10, DATA[:100] + b"\0" * 4, DATA[100:200] + b"\0\0\0\0"],
    ids=["silence", "garbled", "short", "wrong check", "wrong place"],
)
def test_what_does_not_come_whole_is_asked_for_again_when_it_is_silent(
    clock: Clock, spoilt: bytes
) -> None:
    talk = Talk(clock, window(), {1: spoilt, 2: b"", 3: b""})
    assert read(talk, 0, 400) == (400, DATA[:400], [100, 200, 300, 400])
    assert talk.asked == [*pieces(0, 100, 200, 300), "newline", *pieces(100, 200, 300), ("end", 0)]
    assert talk.events == ["start", "finish"]


@pytest.mark.parametrize("said", [b"\r\n", b"one\r\n", b"a b c\r\n", b"%%% 0\r\n", b"AAAA xyz\r\n"])
def test_a_line_that_means_nothing(clock: Clock, said: bytes) -> None:
    talk = Talk(clock, window(raw=False), {0: said})
    assert read(talk, 0, 100) == (100, DATA[:100], [100])
    assert talk.asked == [(0, 100), "newline", (0, 100), ("end", 0)]


def test_the_fifth_failure_in_a_row_ends_it(clock: Clock) -> None:
    four = dict.fromkeys(range(4), b"")
    talk = Talk(clock, window(), four)
    assert read(talk, 0, 100)[0] == 100
    assert talk.asked == [*[(0, 100), "newline"] * 4, (0, 100), ("end", 0)]
    each = dict.fromkeys([*range(8), 9, 10, 11, 12], b"")  # four of the first, four of the second
    assert read(Talk(clock, window(), each), 0, 200) == (200, DATA[:200], [100, 200])
    talk = Talk(clock, window(), dict.fromkeys(range(1, 99), b""))
    before = clock.now
    assert read(talk, 0, 150) == (100, DATA[:100], [100])
    assert talk.asked == [(0, 100), (100, 50), *["newline", (100, 50)] * 4]
    assert talk.events == ["start", "recover"]
    assert clock.now - before == pytest.approx(5 * 3.0 + 4 * 0.2)


def test_what_prints_all_the_time_is_not_asked_again(clock: Clock) -> None:
    talk = Talk(clock, window(), {0: b""})
    talk.port.drain = lambda quiet, limit: (quiet, limit) != (0.2, 3.0)  # type: ignore[method-assign]
    assert read(talk, 0, 100) == (0, b"", [])
    assert talk.asked == [(0, 100), "newline"]
    assert talk.events == ["start", "recover"]


def test_a_spoiled_last_word_costs_nothing(clock: Clock) -> None:
    talk = Talk(clock, window())

    def garbled() -> None:
        raise DeviceAnswer("garbled")

    talk.finishing = garbled
    assert read(talk, 0, 100)[0] == 100
    assert talk.events == ["start", "finish", "recover"]


@pytest.mark.parametrize(
    ("error", "events"),
    [
        (DeviceLost("gone"), ["start"]), (OSError(28, "full"), ["start", "recover"]),
        (KeyboardInterrupt(), ["start", "recover"]), (DeviceAnswer("x"), ["start", "recover"]),
    ],
)  # fmt: skip
def test_the_camera_is_at_its_prompt_after_all_but_its_loss(
    clock: Clock, error: BaseException, events: list[str]
) -> None:
    talk = Talk(clock, window())

    def fail(position: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        read_range(talk, talk.window, 0, 100, io.BytesIO(), fail)  # type: ignore[arg-type]
    assert caught.value is error
    assert talk.events == events
    assert ("end", 0) not in talk.asked


def test_of_records_only_what_is_looked_at_is_sent(clock: Clock) -> None:
    talk = Talk(clock, window(chunk=300))
    with records_of(talk, talk.window, 2000) as buffer:  # type: ignore[arg-type]
        assert len(buffer) == 2000
        assert buffer[0:10] == DATA[:10]
        assert buffer[299] == DATA[299]
        assert buffer[1000:1900] == DATA[1000:1900]
        assert buffer[1999] == DATA[1999]
    assert talk.asked == [(0, 300), (1000, 300), (1300, 300), (1600, 300), (1999, 1), ("end", 0)]
    assert talk.events == ["start", "finish"]
    talk = Talk(clock, window(), {0: b"", 1: b"x" * 150})
    with records_of(talk, talk.window, 100) as buffer:  # type: ignore[arg-type]
        assert buffer[0] == 0
    assert talk.asked == [*[(0, 100), "newline"] * 2, (0, 100), ("end", 0)]
    talk = Talk(clock, window(), dict.fromkeys(range(9), b""))
    with pytest.raises(DeviceLost) as caught, records_of(talk, talk.window, 400) as buffer:  # type: ignore[arg-type]
        assert buffer[32]
    assert caught.value.line == (
        "bytes keep getting lost on the way (5 attempts) (ttyX, offset 0x20); use another cable or "
        "port, without a hub, and repeat the command"
    )
    assert talk.asked == [(32, 100), "newline"] * 5
    talk = Talk(clock, window(chunk=4096))
    with records_of(talk, talk.window, 2000) as buffer:  # type: ignore[arg-type]
        assert buffer[5:15] == DATA[5:15]
    assert talk.asked == [(5, 512), ("end", 0)]


def test_a_window_is_the_partition_from_its_start() -> None:
    assert Window("memory", 0, True, True, True) == Window(
        "memory", 0, True, True, True, 4096, 0, False
    )
