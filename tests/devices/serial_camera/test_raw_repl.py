"""The raw REPL byte by byte, on a port whose camera says what a test tells it, in its own clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camera_helpers import Clock, TalkingPort

from romfsfs.devices.serial_camera import port as ports
from romfsfs.devices.serial_camera import repl as repls
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.errors import DeviceAnswer, DeviceError, DeviceLost

NONCE = "0123abcd"
PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
#: what enters the raw REPL, and asks whether it listens
INTERRUPT, ENTER, ASK = b"\x03", b"\x03\r\x01", b"print('ro'+'0123abcd')\x04"
HEARD = b"OKro0123abcd\r\n\x04\x04>"
ENTERING = [INTERRUPT, ENTER, ASK]
PASTE = b"\x05A\x01"
SOFT = b"\x03\x04"
STEP = "close other programs that use it; then unplug it, plug it in again and repeat the command"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(repls, "time", made)
    monkeypatch.setattr(ports, "time", made)
    monkeypatch.setattr(repls.secrets, "token_hex", lambda size: (2 * NONCE)[: 2 * size])
    return made


def polite(data: bytes) -> bytes:
    """As a camera whose prompt is free, without raw paste's window."""
    return {ENTER: PROMPT, ASK: HEARD, PASTE: b"R\x01" + b"\x20\x00\x01"}.get(data, b"")


def saying(*answers: tuple[bytes, bytes], code: bytes = b"code") -> Callable[[bytes], bytes]:
    """Polite; the code's end (and what else is named) is answered so, one time each in turn."""
    left = list(answers)

    def answer(data: bytes) -> bytes:
        for index, (wanted, said) in enumerate(left):
            if wanted == data:
                del left[index]
                return said
        return polite(data)

    return answer


def entered(clock: Clock, answer: Callable[[bytes], bytes] = polite) -> tuple[RawRepl, TalkingPort]:
    camera = TalkingPort(clock, answer)
    repl = RawRepl(camera)
    repl.enter()
    assert camera.took() == ENTERING
    return repl, camera


def test_entering_once(clock: Clock) -> None:
    camera = TalkingPort(clock, polite)
    repl = RawRepl(camera)
    assert repl.busy
    repl.leave()
    assert camera.took() == []
    repl.enter()
    repl.enter()
    assert camera.took() == ENTERING
    assert clock.now == pytest.approx(100.03), "what comes to an interrupt is waited for"
    assert not repl.busy
    repl.leave()
    repl.leave()
    assert camera.took() == [b"\r\x02"]
    assert repl.busy


def test_a_camera_that_says_nothing_is_interrupted_until_the_limit(clock: Clock) -> None:
    """More and more patiently; it is not reset, as nothing says that it prints."""
    camera = TalkingPort(clock, lambda data: b"")
    with pytest.raises(DeviceLost) as caught:
        RawRepl(camera).enter()
    assert caught.value.line == (
        f"the camera did not answer within 15 s (ttyX); {STEP}; a script that cannot be stopped "
        "can be removed through the boot loader (romfsfs push IMAGE dfu:BOARD), or, on a board "
        "with a user button, by holding it down while plugging in"
    )
    assert camera.took() == [INTERRUPT, ENTER] * 9
    assert clock.now == pytest.approx(115.0, abs=0.5)


@pytest.mark.parametrize(
    ("noise", "turns"), [(b"tick\r\n", 4), (PROMPT, 2)], ids=["prints", "garbles"]
)
def test_what_prints_in_the_background_is_ended_by_a_reset(
    clock: Clock, noise: bytes, turns: int
) -> None:
    """At a prompt whose answers are wrong sooner than without one."""
    reset: list[int] = []

    def answer(data: bytes) -> bytes:
        if reset:
            return polite(data)
        if data == SOFT:
            reset.append(1)
        return noise if data == ENTER else b""

    camera = TalkingPort(clock, answer)
    RawRepl(camera).enter()
    asked = [INTERRUPT, ENTER, ASK] if noise == PROMPT else [INTERRUPT, ENTER]
    assert camera.took() == [*asked * turns, SOFT, *ENTERING]


def test_code_is_pasted_as_there_is_room(clock: Clock) -> None:
    code = "x" * 50 + "y" * 20
    heard: list[bytes] = []

    def answer(data: bytes) -> bytes:
        if data == b"x" * 32:
            return b"\x01"
        return b"\x04one\r\ntwo\n\x04\x04>" if data == b"\x04" else (
            b"\x01" if data.startswith(b"x" * 18) and len(data) == 32 else polite(data)
        )  # fmt: skip

    repl, camera = entered(clock, answer)
    assert repl.run(code, heartbeat=heard.append) == "one\ntwo\n"
    assert camera.took() == [PASTE, b"x" * 32, b"x" * 18 + b"y" * 14, b"y" * 6, b"\x04"]
    assert b"".join(heard) == b"one\r\ntwo\n"
    assert not repl.busy


OLD = "to raw paste, which all firmware with a ROMFS has"


def lost(what: str) -> tuple[type[DeviceError], str, str]:
    return DeviceLost, f"the camera does not answer {what} (ttyX); {STEP}", ""


def silent(detail: str = "") -> tuple[type[DeviceError], str, str]:
    return DeviceLost, f"the camera has not answered for 10 s (ttyX); {STEP}", detail


def nonsense(what: str, got: bytes) -> tuple[type[DeviceError], str, str]:
    return DeviceAnswer, lost(what)[1], f"it sent: {got!r}"


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({PASTE: b""}, lost(OLD)), ({PASTE: b"??"}, nonsense(OLD, b"??")),
        ({PASTE: b"R\x00"}, nonsense(OLD, b"R\x00")),
        ({PASTE: b"R\x01"}, lost("with room for code")),
        ({PASTE: b"R\x01\x02\x00", b"co": b"x"}, nonsense("while code was sent", b"x")),
        ({PASTE: b"R\x01\x02\x00"}, lost("while code was sent")),
        ({PASTE: b"R\x01\x20\x00"}, lost("after code was sent")),
        ({b"\x04": b"\x04out"}, silent("last bytes: b'out'")),
        ({b"\x04": b"\x04out\x04"}, silent()),
        ({b"\x04": b"\x04out\x04\x04"}, lost("with its prompt")),
        ({b"\x04": b"\x04out\x04\x04?"}, lost("with its prompt")),
        (
            {b"\x04": b"\x04\x04Traceback:\r\n  line 1\r\nValueError: x\r\n\x04>"},
            (DeviceAnswer, "the camera reports an error: ValueError: x (ttyX); reset the camera "
             "and repeat the command; -v shows all of it", "Traceback:\n  line 1\nValueError: x"),
        ),
        (
            {b"\x04": b"\x04\x04\r\n\x04>"},
            (DeviceAnswer, "the camera reports an error: no message (ttyX); reset the camera and "
             "repeat the command; -v shows all of it", ""),
        ),
        (
            {b"\x04": b"\x04" + b"x" * ((1 << 20) + 1)},
            nonsense("but prints without end", b"x" * 200),
        ),
    ],
)  # fmt: skip
def test_every_answer_that_is_wrong(
    clock: Clock, answers: dict[bytes, bytes], wrong: tuple[type[DeviceError], str, str]
) -> None:
    repl, _ = entered(clock, lambda data: answers.get(data, polite(data)))
    with pytest.raises(DeviceError) as caught:
        repl.run("code")
    assert (type(caught.value), caught.value.line, caught.value.detail) == wrong


def test_the_largest_output(clock: Clock) -> None:
    text = b"x" * (1 << 20)
    repl, _ = entered(clock, saying((b"\x04", b"\x04" + text + b"\x04\x04>")))
    assert repl.run("code") == text.decode()


def test_what_prints_slowly_and_without_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour of it is the most; a camera that falls silent is given up sooner."""
    repl, camera = entered(clock)
    pace = [5.0] * 400
    read_some = camera.read_some
    waited: list[float] = []

    def drip(deadline: float) -> bytes:
        heard = read_some(clock.now)
        if not heard and pace:
            waited.append(deadline - clock.now)
            clock.now += pace.pop()
            return b"."
        return heard or read_some(deadline)

    camera.answer = lambda data: b"\x04" if data == b"\x04" else polite(data)
    monkeypatch.setattr(camera, "read_some", drip)
    repl.start("code")
    clock.now = 1000.0
    with pytest.raises(DeviceAnswer) as caught:
        repl.finish(8.0)
    assert clock.now == 2805.0
    assert caught.value.detail == f"it sent: {b'.' * 200!r}"
    assert waited[:359] == [8.0] * 359
    assert waited[359:] == [5.0, 0.0], "no longer than all may take"
    repl, camera = entered(clock, saying((b"\x04", b"\x04" + b"x" * 300)))
    with pytest.raises(DeviceLost) as lost:
        repl.run("code", 8.0)
    assert lost.value.what == "the camera has not answered for 8 s"
    assert lost.value.detail == f"last bytes: {b'x' * 200!r}"


def test_paste_that_the_camera_ends_is_acknowledged(clock: Clock) -> None:
    answers = {PASTE: b"R\x01\x02\x00", b"co": b"\x04"}
    repl, camera = entered(clock, lambda data: answers.get(data, polite(data)))
    with pytest.raises(DeviceAnswer):
        repl.run("code")
    assert camera.took()[:3] == [PASTE, b"co", b"\x04"]


def test_what_a_camera_garbles_is_sent_once_more(clock: Clock) -> None:
    error = b"\x04\x04SyntaxError\r\n\x04>"
    fine = b"\x04good\x04\x04>"
    repl, camera = entered(clock, saying((b"\x04", error), (b"\x04", fine)))
    assert repl.run("code") == "good"
    assert camera.took() == [PASTE, b"code", b"\x04"] * 2
    repl, camera = entered(clock, saying(*[(b"\x04", error)] * 3))
    with pytest.raises(DeviceAnswer, match="SyntaxError"):
        repl.run("code")
    assert camera.took() == [PASTE, b"code", b"\x04"] * 2
    repl, camera = entered(clock)
    with pytest.raises(DeviceLost):
        repl.run("code")
    assert camera.took() == [PASTE, b"code", b"\x04"], "silence is not answered by more"


def test_ctrl_c_leaves_the_camera_at_its_prompt(clock: Clock) -> None:
    def interrupt(piece: bytes) -> None:
        raise KeyboardInterrupt

    repl, camera = entered(clock, saying((b"\x04", b"\x04out\x04\x04>")))
    with pytest.raises(KeyboardInterrupt):
        repl.run("code", heartbeat=interrupt)
    assert camera.took() == [PASTE, b"code", b"\x04", *ENTERING]
    assert not repl.busy
    repl, camera = entered(clock)
    camera.answer = lambda data: b""
    repl.recover()  # it does not answer: then nothing can be done
    assert repl.busy
    camera.answer = polite
    camera.took()
    repl.recover()
    repl.recover()
    assert camera.took() == ENTERING * 2, "wherever it seems to be"


def test_a_loop_says_when_it_is_ready(clock: Clock) -> None:
    ready = (b"\x04", b"\x04go\r\n")
    failed = (b"\x04", b"\x04\x04MemoryError\r\n\x04>")
    odd = (b"\x04", b"\x04gone\r\n")
    once = [PASTE, b"code", b"\x04"]
    repl, camera = entered(clock, saying(ready))
    repl.start_loop("code")
    assert camera.took() == once
    assert repl.busy
    repl, camera = entered(clock, saying(failed, ready))
    repl.start_loop("code")
    assert camera.took() == [*once, *ENTERING, *once]
    repl, camera = entered(clock, saying(failed, failed, ready))
    with pytest.raises(DeviceAnswer, match="the camera reports an error: MemoryError"):
        repl.start_loop("code")
    assert camera.took() == [*once, *ENTERING] * 2
    repl, camera = entered(clock, saying(odd, odd))
    with pytest.raises(DeviceAnswer, match="does not answer as expected") as caught:
        repl.start_loop("code")
    assert caught.value.detail == r"it sent: b'gone\r\n'"
    assert camera.took() == [*once, *ENTERING] * 2
    repl, camera = entered(clock)
    with pytest.raises(DeviceLost, match="does not answer after code was sent"):
        repl.start_loop("code")
    assert camera.took() == [*once, *ENTERING]


def test_a_soft_reset_ends_at_the_prompt(clock: Clock) -> None:
    reset = (b"\x04", b"OK\r\nMPY: soft reboot\r\n" + PROMPT)
    repl, camera = entered(clock, saying(reset))
    repl.soft_reset()
    assert camera.took() == [b"\x04", ASK]
    assert not repl.busy
    repl, camera = entered(clock)  # boot.py runs on: it is interrupted after 20 s
    before = clock.now
    repl.soft_reset()
    assert camera.took() == [b"\x04", *ENTERING]
    assert clock.now >= before + 20
    repl, camera = entered(clock, saying((b"\x04", b"MPY: soft reboot\r\n" + PROMPT)))
    camera.answer = saying((b"\x04", PROMPT), (ASK, b"garbled"))
    with pytest.raises(DeviceLost, match="does not answer after a soft reset"):
        repl.soft_reset()
    assert repl.busy
    repl, camera = entered(clock)

    def interrupted(data: bytes) -> bytes:
        if data == b"\x04":
            camera.answer = polite
            raise KeyboardInterrupt
        return polite(data)

    camera.answer = interrupted
    with pytest.raises(KeyboardInterrupt):
        repl.soft_reset()
    assert camera.took() == [b"\x04", *ENTERING]
    assert not repl.busy


def test_a_restart_is_confirmed(clock: Clock) -> None:
    answers = {b"\r\x02": b"\r\n>>> ", b"\x04": b"\r\nMPY: soft reboot\r\n"}
    repl, camera = entered(clock, lambda data: answers.get(data, polite(data)))
    before = clock.now
    repl.restart()
    assert camera.took() == [b"\r\x02", b"\x04"]
    assert clock.now == before
    assert repl.busy
    answers[b"\r\x02"] = b""  # its prompt is waited for, and not for ever
    repl.restart()
    assert clock.now == pytest.approx(before + 2.03)
    camera.took()
    answers[b"\x04"] = b"\r\n>>> "
    with pytest.raises(DeviceLost) as caught:
        repl.restart()
    assert caught.value.line == (
        "the camera does not confirm the reset (ttyX); what was written is verified; press its "
        "reset button or replug it"
    )
    assert camera.took() == [*ENTERING, b"\r\x02", b"\x04"]


def test_code_after_which_the_port_dies(clock: Clock) -> None:
    """It may die before it has said that it has all of the code, and not before it has it."""
    repl, camera = entered(clock)
    repl.start_and_forget("code")
    assert camera.took() == [PASTE, b"code", b"\x04"]
    camera.answer = lambda data: b""  # what it had before is no excuse
    with pytest.raises(DeviceLost, match="did not answer within"):
        repl.start_and_forget("code")
    camera = TalkingPort(clock, lambda data: b"" if data == PASTE else polite(data))
    with pytest.raises(DeviceLost, match="to raw paste"):
        RawRepl(camera).start_and_forget("code")
    assert camera.took() == [*ENTERING, PASTE]
