"""`push --all --watch`: a production line. Cameras come, go and come back while it runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import until
from spoken import Spoken

import romfsfs
from romfsfs.cli import main, plugged, production, production_log
from romfsfs.devices import open as opening
from romfsfs.devices.base import Device, DeviceInfo, WriteReport
from romfsfs.devices.discovery import DfuCamera
from romfsfs.errors import (
    EXIT_DEVICE,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    DeviceAbsent,
    DeviceBusy,
    DeviceLost,
    RomfsError,
    UsageError,
    VerifyError,
)
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.session.rebase.push import PushOptions, PushResult
from romfsfs.session.session import sessions
from romfsfs.simulator import Simulator
from romfsfs.system.files import digest_file

Camera = Callable[..., Simulator]
LIMIT = 60.0


@pytest.fixture
def image(product: Path, tmp_path: Path) -> Path:
    path = tmp_path / "product.img"
    romfsfs.build(product, path, board="OPENMV4P")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "made.csv"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production, "LOOK_SECONDS", 0.05)


@contextmanager
def meanwhile(work: Callable[[], None], *, interrupts: int = 1) -> Iterator[None]:
    """Does this beside the command in the main thread, and then presses Ctrl-C."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        for _ in range(interrupts):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(LIMIT)
    assert not errors, errors


def rows(log: Path) -> list[dict[str, str]]:
    with open(log, newline="") as file:
        return list(csv.DictReader(file))


def ports(monkeypatch: pytest.MonkeyPatch, *cameras: Simulator) -> None:
    monkeypatch.setenv("ROMFSFS_PORTS", ":".join(each.port for each in cameras))


def holds(camera: Simulator, image: Path) -> bool:
    return bytes(camera.flash[0].content).startswith(image.read_bytes())


def test_cameras_come_go_and_come_back(
    camera: Camera, image: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One is there from the start, one comes later, one is unplugged while it is written and comes
    back, one is of another board; what was written and comes back is not written again."""
    first, later, cut, other = camera(), camera(), camera(), camera("OPENMV_N6")
    later.unplug()
    cut.faults.power_cut_after_programmed(2000)
    ports(monkeypatch, first, later, cut, other)
    seen: Mapping[str, object] = {}
    settled: list[str] = []
    look, note = production.serial_ports, production.Line._note

    def looked() -> Mapping[str, object]:
        nonlocal seen
        seen = look()
        return seen

    def noted(line: production.Line, name: str, outcome: Any) -> None:
        note(line, name, outcome)
        settled.append(name)

    monkeypatch.setattr(production, "serial_ports", looked)
    monkeypatch.setattr(production.Line, "_note", noted)

    def work() -> None:
        until(lambda: log.exists() and len(rows(log)) == 2)
        later.replug()
        until(lambda: len(rows(log)) == 3)
        cut.replug()
        until(lambda: len(rows(log)) == 4)
        first.unplug()
        until(lambda: first.port not in seen)
        first.replug()
        until(lambda: settled.count(first.port) >= 2)  # written, and left alone

    words = ["push", str(image), "--all", "--watch", "--board", "OPENMV4P", "--log", str(log)]
    with meanwhile(work):
        assert main(words) == EXIT_OK
    said = capsys.readouterr()
    assert all(holds(each, image) for each in (first, later, cut))
    assert other.statistics.programmed == 0
    assert said.err.count(f"{other.port}: OPENMV_N6 on {other.port}, not OPENMV4P: left alone") == 1
    assert "was written before: left alone" in said.err
    assert said.out.splitlines()[-1] == "3 written, 0 had it already, 0 failed"
    found = rows(log)
    assert [row["outcome"].split(":")[0] for row in found].count("failed") == 1
    well = [row for row in found if row["outcome"] == "written"]
    assert {row["id"] for row in well} == {f"{n:024x}" for n in (1, 2, 3)}
    assert {row["digest"] for row in well} == {digest_file(image)}
    assert {row["port"] for row in found} == {each.port for each in (first, later, cut)}
    assert all("MicroPython" in row["firmware"] for row in well)
    assert all(row["time"][:2] == "20" for row in found)


def test_ctrl_c_lets_what_is_being_written_end(
    camera: Camera, tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = tmp_path / "large.img"
    image.write_bytes(encode({"a.bin": bytes(range(255)) * 500}, DEFAULT_RULES))
    cameras = [camera(rate=100_000.0) for _ in range(2)]
    ports(monkeypatch, *cameras)

    def work() -> None:
        for each in cameras:
            each.wait_until(lambda c: c.statistics.programmed > 0, 30)

    words = ["push", str(image), "--all", "--watch", "--board", "OPENMV4P", "--log", str(log)]
    with meanwhile(work):
        assert main(words) == EXIT_OK
    said = capsys.readouterr()
    assert "finishing what is being written; Ctrl-C again interrupts it" in said.err
    assert said.out.splitlines()[-1] == "2 written, 0 had it already, 0 failed"
    assert all(holds(each, image) for each in cameras)
    assert len(rows(log)) == 2


def test_ctrl_c_twice_interrupts_it_and_the_next_run_resumes(
    camera: Camera, tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = tmp_path / "large.img"
    image.write_bytes(encode({"a.bin": bytes(range(255)) * 4000}, DEFAULT_RULES))
    slow = camera(rate=50_000.0)  # 20 s for all of it
    ports(monkeypatch, slow)
    words = ["push", str(image), "--all", "--watch", "--board", "OPENMV4P", "--log", str(log)]
    programmed = slow.statistics
    with meanwhile(lambda: until(lambda: programmed.programmed > 0), interrupts=2):
        assert main(words) == EXIT_INTERRUPTED
    assert slow.statistics.programmed < 500_000
    assert "0 written, 0 had it already, 1 failed" in capsys.readouterr().out
    assert rows(log)[0]["outcome"].startswith("failed: interrupted")
    small = tmp_path / "small.img"
    small.write_bytes(encode({"a.bin": b"1"}, DEFAULT_RULES))
    assert main(["push", str(small), "--all", "--log", str(log)]) == EXIT_OK
    assert [row["outcome"][:7] for row in rows(log)] == ["failed:", "written"]


def test_what_is_plugged_in_now(
    camera: Camera, image: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Without --watch; the log is appended to, whatever its last line lacks."""
    one, two, other = camera(), camera(unique_id=b""), camera("OPENMV_N6")
    ports(monkeypatch, one, two, other)
    words = ["push", str(image), "--all", "--board", "h7plus".upper(), "--log", str(log)]
    words[4] = "OPENMV4P"
    assert main(words) == EXIT_OK
    said = capsys.readouterr()
    assert f"{two.port}: wrote" in said.out
    assert f"OPENMV4P on {two.port} reports no unique id" in said.err
    assert "not OPENMV4P: left alone" in said.err
    with open(log, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.truncate()
    assert main(words) == EXIT_OK
    outcomes = [(row["id"], row["outcome"]) for row in rows(log)]
    assert sorted(outcomes[:2]) == [("", "written"), ("0" * 23 + "1", "written")]
    assert sorted(outcomes[2:]) == [("", "had it already"), ("0" * 23 + "1", "had it already")]
    two.faults.fail_ioctl(command=4, count=100)
    changed = image.with_name("changed.img")
    changed.write_bytes(encode({"a.bin": b"1" * 5000}, DEFAULT_RULES))
    capsys.readouterr()
    assert main(["push", str(changed), *words[2:], "--json"]) == EXIT_DEVICE
    records = {each["camera"]: each for each in json.loads(capsys.readouterr().out)}
    assert records[one.port]["write"]["verified"] is True
    assert records[two.port]["ok"] is False


def test_a_camera_that_does_not_say_its_board_is_opened_once(
    camera: Camera, image: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    unknown = camera(machine="Homemade with STM32H7", arch_string="HOME 1")
    ports(monkeypatch, unknown)
    opened = []

    def open_device(name: str, **choices: Any) -> Device:
        opened.append(name)
        return opening.open_device(name, **choices)

    monkeypatch.setattr(production, "open_device", open_device)
    assert main(["push", str(image), "--all", "--board", "OPENMV4P"]) == EXIT_OK
    assert f"{unknown.port}: wrote" in capsys.readouterr().out
    assert holds(unknown, image)
    assert opened == [unknown.port]


@pytest.mark.parametrize("lacks", [{}, {"missing": ("vfs.rom_ioctl",)}])
def test_a_camera_of_another_board_is_left_alone_whatever_it_lacks(
    camera: Camera, product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, lacks: dict[str, Any],
) -> None:  # fmt: skip
    """That partition, or all access to a ROMFS: then it would be sent to its boot loader."""
    image = tmp_path / "ae3.img"
    romfsfs.build(product, image, board="OPENMV_AE3", partition=1)
    held = encode({"old.txt": b"old"}, DEFAULT_RULES)
    mine, other = camera("OPENMV_AE3", images={1: held}), camera("OPENMV_N6", **lacks)
    ports(monkeypatch, mine, other)
    monkeypatch.setattr(opening, "send_to_loader", lambda *_: pytest.fail("it is another's"))
    words = ["push", str(image), "--all", "--board", "OPENMV_AE3", "--partition", "1"]
    assert main(words) == EXIT_OK
    said = capsys.readouterr()
    [written] = said.out.splitlines()
    assert written.startswith(f"{mine.port}: wrote ")
    left = f"romfsfs: {other.port}: OPENMV_N6 on {other.port}, not OPENMV_AE3: left alone\n"
    assert said.err == left
    assert bytes(mine.flash[1].content).startswith(image.read_bytes())


def test_an_image_that_works_on_one_board_alone_chooses_it(
    camera: Camera, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By what is in it, here its size: more than any partition but those of 32 MiB."""
    image = tmp_path / "large.img"
    image.write_bytes(encode({"a.bin": bytes(25 << 20)}, DEFAULT_RULES))
    only = camera(images={0: encode({"old.txt": b"old"}, DEFAULT_RULES)})
    ports(monkeypatch, only)
    assert main(["push", str(image), "--all"]) == EXIT_DEVICE  # or a line would go on without one
    said = capsys.readouterr().err
    assert f"OPENMV4P on {only.port}, not MPS3_AN547: left alone" in said
    assert "romfsfs: error: no camera of MPS3_AN547 is connected; check the cable" in said
    assert only.statistics.programmed == 0


def test_a_camera_that_another_program_holds_is_waited_for(
    camera: Camera, image: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import serial

    held = camera()
    ports(monkeypatch, held)
    holder = serial.Serial(held.port, exclusive=True)

    def work() -> None:
        until(lambda: log.exists() and len(rows(log)) == 1)
        time.sleep(0.3)
        holder.close()
        until(lambda: len(rows(log)) == 2)

    words = ["push", str(image), "--all", "--watch", "--board", "OPENMV4P", "--log", str(log)]
    with meanwhile(work):
        assert main(words) == EXIT_OK
    assert capsys.readouterr().err.count("the serial port is in use") == 1
    assert [row["outcome"][:7] for row in rows(log)] == ["failed:", "written"]


@pytest.mark.parametrize("named", [True, False])
def test_without_a_backup_nothing_of_a_camera_is_kept(
    camera: Camera, image: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, named: bool,
) -> None:  # fmt: skip
    """But of one that this machine knew already, what it knows stays."""
    before = encode({"old.txt": b"old"}, DEFAULT_RULES)
    new, known = camera(images={0: before}), camera(images={0: before})
    ports(monkeypatch, known)
    assert main(["push", str(image), *([known.port] if named else ["--all"])]) == EXIT_OK
    ports(monkeypatch, new, known)
    other = image.with_name("other.img")
    other.write_bytes(encode({"a.bin": b"1" * 5000}, DEFAULT_RULES))
    capsys.readouterr()
    cameras = [new.port, known.port] if named else ["--all"]
    assert main(["push", str(other), *cameras, "--no-backup"]) == EXIT_OK
    assert "no copy is kept of what a camera holds: undo cannot bring it back" in (
        capsys.readouterr().err
    )
    assert holds(new, other)
    assert holds(known, other)
    assert len(list(sessions())) == 1
    assert main(["undo", known.port]) == EXIT_OK  # what the log has is there
    assert holds(known, image)


@pytest.mark.parametrize("when", ["at first", "later"])
def test_a_full_disk_under_the_log(
    camera: Camera, image: Path, log: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, when: str,
) -> None:  # fmt: skip
    """Nothing is written without a log; a row that cannot be written is said, and the last."""
    only, next_one = camera(), camera()
    next_one.unplug()
    ports(monkeypatch, only, next_one)
    words = ["push", str(image), "--all", "--board", "OPENMV4P", "--watch", "--log"]
    write = os.write

    def full(fd: int, data: bytes) -> int:
        spoiled = b"written" in data or (when == "at first" and data.startswith(b"time,"))
        return write(fd, data[:7] if spoiled else data)

    monkeypatch.setattr(production_log.os, "write", full)
    assert main([*words, str(log)]) == EXIT_FAILURE
    said = capsys.readouterr()
    if when == "at first":
        assert "no space left" in said.err
        assert only.statistics.programmed == 0
        return
    assert rows(log) == []
    assert f"not in the log: {only.port}, written; no more cameras are written" in said.err
    assert "1 written" in said.out


def test_a_row_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    log = production_log.Log(str(path))
    log.row("/dev/ttyACM0", None, "", 'failed: a "quoted", word')
    whole = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with pytest.raises(OSError, match="No space left"):
        log.row("/dev/ttyACM1", None, "", "written")
    monkeypatch.undo()
    assert path.read_bytes() == whole
    log.close()
    assert rows(path)[0]["outcome"] == 'failed: a "quoted", word'


def test_what_cannot_be_meant(
    product: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["push", *words]) == EXIT_USAGE
        return capsys.readouterr().err

    assert "--watch and --log need --all" in refused(str(image), "camera", "--watch")
    assert "--all --watch waits" in refused(str(image), "dfu:OPENMV4", "--all", "--wait")
    assert "it may work on" in refused(str(image), "--all", "--watch")
    assert "--all chooses the cameras itself" in refused(str(image), "camera", "--all")
    assert "blhost cannot tell" in refused(str(image), "dfu:OPENMV_RT1060", "--all")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    words = (str(image), "--all", "--board", "OPENMV4P", "--log", str(notes))
    assert "not a log of push" in refused(*words)
    assert notes.read_text() == "mine\n"


def info(key: str, *, has_id: bool = True) -> DeviceInfo:
    return DeviceInfo(
        "serial", key, f"name of {key}", "OPENMV4P", 0, 8 << 20, firmware="1.2", has_id=has_id
    )


@pytest.mark.parametrize(
    ("key", "has_id", "number"),
    [("B/77/0", True, "77"), ("B/77/0", False, ""), ("B/77", True, ""), ("B/7/7/0", True, "")],
)
def test_what_tells_a_camera_from_all_others(key: str, has_id: bool, number: str) -> None:
    assert production_log.unique_id(info(key, has_id=has_id)) == number


def written() -> WriteReport:
    return WriteReport(1, 1, 1.0, True)


def test_outcomes_are_counted_said_and_written_down(tmp_path: Path) -> None:
    """One after the other, at a line that goes on. The last outcome of each camera counts; what did
    not tell its id may be another than the next on that port, which another program used only."""
    output, reported = Spoken(), []
    log = production_log.Log(str(tmp_path / "log.csv"))

    def report(name: str, outcome: PushResult) -> int:
        reported.append(name)
        return outcome.exit_code if isinstance(outcome, RomfsError) else 0

    order = production.Order("x.img", "OPENMV4P", None, PushOptions(), "the digest")
    line = production.Line(output, order, dict, log, report)
    busy = DeviceBusy("in use")
    for name, about, outcome in (
        ("p1", info("B/1/0"), written()),
        ("p2", None, busy),
        ("p2", None, busy),
        ("p2", info("B/2/0"), None),
        ("p3", info("B//0", has_id=False), written()),
        ("p4", info("N6/4/0"), production._LeftAlone("N6 on p4: left alone")),
        ("p5", info("B/5/0"), DeviceLost("gone")),
        ("p6", info("B/5/0"), DeviceLost("gone again")),
        ("p7", info("B/7/0"), VerifyError("other bytes")),
        ("p8", info("B/7/0"), written()),
        ("p1", None, DeviceLost("no answer")),
        ("p1", None, busy),
        ("p1", info("B/8/0"), written()),
        ("p8", None, busy),
        ("p8", info("B/7/0"), production._LeftAlone("written before: left alone")),
    ):  # fmt: skip
        if about is not None:
            line._infos[name] = about
        line._note(name, outcome)
    assert line._infos == {}
    assert output.said == [
        "note: p3: name of B//0 reports no unique id: it is written and counted each time it "
        "is plugged in",
        "note: p4: N6 on p4: left alone",
        "note: p8: written before: left alone",
    ]
    assert reported == ["p1", "p2", "p2", "p3", "p5", "p6", "p7", "p8", "p1", "p1", "p1", "p8"]
    assert line._written == {"1", "2", "7", "8"}
    found = [(r["port"], r["id"], r["firmware"], r["digest"], r["outcome"]) for r in rows(
        tmp_path / "log.csv")]  # fmt: skip
    assert found == [
        ("p1", "1", "1.2", "the digest", "written"),
        ("p2", "", "", "", "failed: in use"),
        ("p2", "2", "1.2", "the digest", "had it already"),
        ("p3", "", "1.2", "the digest", "written"),
        ("p5", "5", "1.2", "", "failed: gone"),
        ("p6", "5", "1.2", "", "failed: gone again"),
        ("p7", "7", "1.2", "", "failed: other bytes"),
        ("p8", "7", "1.2", "the digest", "written"),
        ("p1", "", "", "", "failed: no answer"),
        ("p1", "", "", "", "failed: in use"),
        ("p1", "8", "1.2", "the digest", "written"),
        ("p8", "", "", "", "failed: in use"),
    ]
    line._ending = True
    assert line.run(watch=True) == EXIT_DEVICE
    assert output.said[3:] == [
        "note: waiting for cameras; Ctrl-C stops after the writes in progress",
        "4 written, 1 had it already, 2 failed",  # the one with the id 5, and one without an answer
    ]
    log.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_success_hides_no_other_camera_s_failure(again: bool) -> None:
    """Two that tell one id at the same time are two; one of them that comes back is known by it."""
    order = production.Order("x.img", "OPENMV4P", None, PushOptions())
    line = production.Line(
        Spoken(), order, dict, None,
        lambda name, outcome: outcome.exit_code if isinstance(outcome, RomfsError) else 0,
    )  # fmt: skip
    line._infos["p1"] = info("B/1/0")
    if not again:
        line._infos["p2"] = info("B/1/0")
    line._note("p1", VerifyError("other bytes"))
    line._infos["p2"] = info("B/1/0")
    line._note("p2", written())
    line._ending = True
    assert line.run(watch=True) == (EXIT_OK if again else VerifyError("other bytes").exit_code)


def test_who_is_not_connected_is_said_whole(tmp_path: Path) -> None:
    for board, words in (("OPENMV4P", " of OPENMV4P"), (None, "")):
        order = production.Order("x.img", board, None, PushOptions())
        line = production.Line(Spoken(), order, dict, None, lambda name, outcome: 0)
        with pytest.raises(DeviceAbsent) as caught:
            line.run(watch=False)
        assert caught.value.line == (
            f"no camera{words} is connected; check the cable; romfsfs doctor says what else may be "
            "missing"
        )


def test_boot_loaders_by_their_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (
        DfuCamera(1, 2, "1-1", "n1", ("OPENMV4", "OPENMV4P"), ()),
        DfuCamera(1, 2, "1-2", "n2", ("OPENMV_N6",), ()),
        DfuCamera(1, 2, "", "n3", ("OPENMV4P",), ()),
    )  # fmt: skip
    monkeypatch.setattr(plugged, "dfu_cameras", lambda: found)
    look = plugged.loaders("dfu:OPENMV4P:0")
    assert look() == {"dfu:OPENMV4P:0@1-1": "n1", "dfu:OPENMV4P:0": "n3"}
    with pytest.raises(UsageError) as caught:
        plugged.loaders("dfu:OPENMV_RT1060")
    assert caught.value.line == (
        "blhost cannot tell the boot loaders of OPENMV_RT1060 apart (dfu:OPENMV_RT1060); run --all "
        "while their firmware runs; or plug them in one after the other, each with: romfsfs push "
        "IMAGE dfu:OPENMV_RT1060 --wait"
    )
