"""The process that runs a camera's snippets, without one: what is said through its mailbox."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import ToolMissing
from romfsfs.simulator import executor, find_micropython, preset
from romfsfs.simulator.executor import (
    ANSWER,
    COMMAND,
    DONE,
    FAILED,
    FRAME,
    IOCTL,
    KIND,
    LENGTH,
    LINE,
    PAGE,
    READY,
    SCRATCH,
    VALUE,
    Executor,
)
from romfsfs.simulator.faults import Faults, Statistics
from romfsfs.simulator.flash import Flash


class Process:
    """A MicroPython that says what it is told to say, and writes down what is done to it."""

    def __init__(self, argv: list[str], **how: Any) -> None:
        self.argv, self.how = argv, how
        self.done: list[Any] = []
        self.returncode: int | None = None
        self.blocks = [os.get_blocking(fd) for fd in (how["stdin"], how["stdout"])]
        _, bell, up, *_ = how["pass_fds"]
        self.blocks += [os.get_blocking(bell), os.get_blocking(up)]
        self.bell, self.up = os.dup(bell), os.dup(up)
        self.output = os.dup(how["stdout"])
        self.prepare()

    def prepare(self) -> None:
        self.says(READY, 0)

    def says(self, kind: int, number: int, *more: int) -> None:
        os.write(self.up, FRAME.pack(kind, number, *more, *[0] * (5 - len(more))))

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.done.append("kill")
        self.returncode = -9

    def wait(self) -> None:
        self.done.append("wait")

    def send_signal(self, number: int) -> None:
        self.done.append(number)

    def close(self) -> None:
        for fd in (self.bell, self.up, self.output):
            os.close(fd)


class Started(SimpleNamespace):
    """An executor with its process, and the flash."""

    def word(self, number: int) -> int:
        return int(struct.unpack_from("=I", self.executor._mailbox, 4 * number)[0])

    def rings(self) -> int:
        """How often the process was told to look into its mailbox."""
        os.set_blocking(self.process.bell, False)
        return len(executor._read_all(self.process.bell))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`started(**config)`: as if MicroPython had been started; all descriptors are closed again."""
    made: list[Any] = []
    before = len(os.listdir("/dev/fd"))
    processes: list[Process] = []

    def popen(argv: list[str], **how: Any) -> Process:
        processes.append(Process(argv, **how))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)

    def start(board: str = "OPENMV_AE3", **config: Any) -> Any:
        settings = preset(board, **config)
        statistics = Statistics()
        flash = Flash(settings, Faults(statistics), statistics)
        made.append(Started(flash=flash, executor=None, config=settings, process=None))
        made[-1].executor = Executor(settings, flash, "/bin/micropython")
        made[-1].process = processes[-1]
        return made[-1]

    yield start
    for each in made:
        if each.executor is not None:
            each.executor.stop()
            each.executor.stop()
            assert each.process.done[-2:] == ["kill", "wait"], "once"
        each.flash.close()
    for process in processes:
        process.close()
    assert len(os.listdir("/dev/fd")) <= before


def test_how_micropython_is_started(started: Any) -> None:
    run = started(
        "OPENMV_AE3", flash_files={"a.txt": b"\xff"}, sd_files={}, boot_script="1",
        byte_seconds=0.0015, heap_size=1 << 20, runs_rom=True, missing=("deflate",),
    )  # fmt: skip
    parts = run.flash.partitions
    room = SCRATCH + (24 << 20)
    camera = Path(executor.__file__).with_name("camera.upy")
    mailbox, bell, up, *flash = run.process.how.pop("pass_fds")
    assert run.process.argv == [
        "/bin/micropython", "-X", f"heapsize={(64 << 10) + (1 << 20) + (512 << 10)}", str(camera),
        str(mailbox), str(room),
    ]  # fmt: skip
    assert flash == [*(part.fd for part in parts),
                     *(volume.file.fileno() for volume in run.flash.volumes)]  # fmt: skip
    run.process.how.pop("stderr")
    assert run.process.how.pop("stdin") == run.executor._input_read
    run.process.how.pop("stdout")
    assert run.process.how == {"start_new_session": True, "env": {"PATH": os.defpath}}
    assert run.process.blocks == [True] * 4, "its own ends"
    ours = run.executor._input, run.executor._input_again, run.executor.output, run.executor.up
    assert [os.get_blocking(fd) for fd in (*ours, run.executor._bell)] == [False] * 5
    assert len(run.executor._mailbox) == room
    text = run.executor._mailbox[SCRATCH : SCRATCH + run.word(LENGTH)]
    said = json.loads(text)
    places = [(each.pop("fd"), each.pop("lead"), each.pop("span")) for each in said["partitions"]]
    assert places == [(part.fd, part.lead, part.span) for part in parts]
    assert [each["size"] for each in said.pop("partitions")] == [24 << 20, 1 << 20]
    volumes = [
        {"fd": volume.file.fileno(), "size": 256 << 10, "files": files}
        for volume, files in zip(run.flash.volumes, ({"boot.py": "1", "a.txt": "\xff"}, {}),
                                 strict=True)
    ]  # fmt: skip
    assert said == {
        "runs_rom": True, "board": "OPENMV_AE3", "machine": run.config.machine,
        "arch_string": run.config.arch_string, "board_type": run.config.board_type,
        "platform": run.config.platform, "mpy": run.config.mpy, "release": "1.25.0",
        "stdio_buffer": True, "missing": ["deflate"], "bell": bell, "up": up,
        "volumes": [["/flash", volumes[0]], ["/sdcard", volumes[1]]],
        "frozen": sorted(path.stem for path in camera.parent.glob("firmware/*.upy")),
        "byte_us": 1500, "unique_id": list(run.config.unique_id), "heap": 1 << 20,
    }  # fmt: skip
    assert (run.executor.running, run.executor.interrupted) == (False, False)
    assert run.executor.interrupt_char == -1
    small = started("OPENMV2", heap_size=64 << 10)
    assert small.process.argv[2] == f"heapsize={(64 << 10) * 3}"
    assert len(small.executor._mailbox) == SCRATCH + (1 << 20)


def test_what_is_said_through_the_mailbox(started: Any) -> None:
    run = started()
    assert run.rings() == 0
    run.executor.run(b"print(1)", LINE)
    assert [run.word(each) for each in (COMMAND, KIND, LENGTH)] == [1, LINE, 8]
    assert run.executor.scratch(8) == b"print(1)"
    run.executor._mailbox[-5:] = b"wrong"
    assert (run.executor.error(5), run.executor.error(0)) == (b"wrong", b"")
    assert (run.executor.running, run.executor.interrupt_char, run.rings()) == (True, 3, 1)
    run.executor.answer(7, -5)
    assert [run.word(each) for each in (ANSWER, VALUE)] == [7, 0xFFFFFFFB]
    run.executor.answer(8, 4096)
    assert [run.word(each) for each in (ANSWER, VALUE)] == [8, 4096]
    assert run.rings() == 2
    run.executor.run(b"", LINE)
    assert (run.word(COMMAND), run.word(LENGTH), run.rings()) == (2, 0, 1)
    run.executor.interrupt()
    assert (run.executor.interrupted, run.process.done) == (True, [signal.SIGINT])


def test_frames_are_handed_on_and_the_end_is_said_once(started: Any) -> None:
    run = started()
    seen: list[tuple[int, ...]] = []
    run.executor.handle = seen.append
    assert run.executor.poll()
    run.executor.run(b"1", LINE)
    run.process.says(IOCTL, 5, 6, 1, 2)
    run.process.says(DONE, 9, FAILED)  # of another
    assert run.executor.poll()
    assert seen == [(IOCTL, 5, 6, 1, 2, 0, 0)]
    assert (run.executor.running, run.executor.interrupt_char) == (True, 3)
    for _ in range(2):  # because Ctrl-C came between saying and noting it
        run.process.says(DONE, 1, FAILED, 3)
    assert run.executor.poll()
    assert seen[1:] == [(DONE, 1, FAILED, 3, 0, 0, 0)]
    assert (run.executor.running, run.executor.interrupt_char) == (False, -1)
    run.process.returncode = 3
    assert not run.executor.poll()
    assert run.executor.exit_code == 3
    run.executor.handle = lambda frame: run.executor.stop()
    run.executor.run(b"1", LINE)
    run.process.says(IOCTL, 5)
    run.process.says(IOCTL, 6)
    assert run.executor.poll(), "stopped by what it asked for"
    assert not run.executor.running


def test_input_as_the_ring_has_it(started: Any) -> None:
    run = started(rx_buffer=700)
    assert run.executor.room == 700
    assert run.executor.feed(b"a" * 300) == 300
    assert run.executor.room == 400
    assert run.executor.feed(b"b" * 400) == 400
    assert run.executor.room == 0
    assert run.executor.feed(b"c") == 1
    assert run.executor.room == 0
    assert run.executor.leftover() == b"a" * 300 + b"b" * 400 + b"c"
    assert (run.executor.room, run.executor.leftover()) == (700, b"")
    assert run.executor.feed(b"x" * (PAGE + 1)) == PAGE
    assert run.executor.feed(b"x") == 0, "it takes no more, and holds nobody up"
    assert len(run.executor.leftover()) == PAGE


def test_output_a_little_at_a_time_or_all(started: Any) -> None:
    run = started()
    assert (run.executor.read_some(), run.executor.read_output()) == (b"", b"")
    os.write(run.process.output, b"x" * 20000)
    assert [len(run.executor.read_some()) for _ in range(3)] == [16384, 3616, 0]
    os.write(run.process.output, b"y" * 65536)
    assert run.executor.read_output() == b"y" * 65536
    os.close(run.process.output)
    run.process.output = os.open(os.devnull, os.O_RDONLY)
    assert run.executor.read_output() == b"", "nobody is there any more"


@pytest.mark.parametrize("running", [True, False])
def test_what_is_waited_for_of_it(started: Any, running: bool) -> None:
    run = started()
    run.executor.running = running
    found = {}
    up, output, into = run.executor.up, run.executor.output, run.executor._input
    for wanted in ((False, False), (True, False), (False, True)):
        asked: dict[int, int] = {}
        poll: Any = SimpleNamespace(register=asked.__setitem__)
        run.executor.register(poll, output=wanted[0], input=wanted[1])
        found[wanted] = asked
    assert found == {
        (False, False): {up: select.POLLIN},
        (True, False): {up: select.POLLIN, output: select.POLLIN},
        (False, True): {up: select.POLLIN, **({into: select.POLLOUT} if running else {})},
    }


def test_a_bell_that_rings_already_or_that_nobody_hears(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started()
    for error in (BlockingIOError, BrokenPipeError):

        def write(fd: int, data: bytes, error: type[OSError] = error) -> int:
            assert (fd, data) == (run.executor._bell, b"!")
            raise error

        with monkeypatch.context() as once:
            once.setattr(os, "write", write)
            run.executor.answer(1, 0)


@pytest.mark.parametrize("ends", [True, False])
def test_a_program_that_is_no_micropython(
    started: Any, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """It ends, or does not say in time that it is ready."""

    def prepare(process: Process) -> None:
        os.write(process.output, b"usage\n")
        process.how["stderr"].write(b"no such option\n")
        process.how["stderr"].flush()
        process.says(IOCTL, 0)
        process.returncode = 2 if ends else None

    clock = iter([0.0, 0.0, 19.5, 20.0])
    waited: list[float] = []
    monkeypatch.setattr(Process, "prepare", prepare)
    monkeypatch.setattr(executor, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(
        executor, "select", SimpleNamespace(select=lambda *how: waited.append(how[-1]))
    )
    monkeypatch.setattr(executor, "_how_to_get_one", lambda: "get it")
    with pytest.raises(ToolMissing) as caught:
        started()
    assert caught.value.line == "/bin/micropython cannot run the simulated camera; get it"
    assert caught.value.detail == "usage\nno such option\n"
    assert waited == [0.5] * (1 if ends else 2)


def test_which_micropython_is_taken_and_what_is_said_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(executor, "__file__", str(tmp_path / "a" / "b" / "executor.py"))

    def said(path: str | None = None) -> str:
        try:
            return find_micropython(path)
        except ToolMissing as error:
            return error.line

    get = "install MicroPython 1.25 or newer (Debian 13: apt-get install micropython)"
    end = "or name one in $ROMFSFS_MICROPYTHON"
    start = "the simulated camera needs MicroPython;"
    assert said() == f"{start} micropython is not installed; {get}, {end}"
    assert said("mine") == f"{start} mine is not installed; {get}, {end}"
    monkeypatch.setenv("ROMFSFS_MICROPYTHON", "theirs")
    assert said() == f"{start} theirs is not installed; {get}, {end}"
    script = tmp_path / "scripts" / "get-micropython"
    monkeypatch.setattr(executor, "__file__", str(tmp_path / "romfsfs" / "simulator" / "x.py"))
    for made in (script, tmp_path / "bin" / "micropython", tmp_path / "bin" / "theirs"):
        made.parent.mkdir(exist_ok=True)
        made.touch(0o755)
    assert said("mine") == f"{start} mine is not installed; fetch it: {script}, {end}"
    assert said() == str(tmp_path / "bin" / "theirs")
    monkeypatch.setenv("ROMFSFS_MICROPYTHON", "")
    assert said() == str(tmp_path / "bin" / "micropython")


def test_a_system_without_pipe2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pipe2", raising=False)
    ends = executor._pipe()
    try:
        assert [os.get_blocking(fd) for fd in ends] == [False, False]
        with pytest.raises(OSError, match="unavailable") as caught:
            os.read(ends[0], 1)
        assert caught.value.errno == errno.EAGAIN
    finally:
        for fd in ends:
            os.close(fd)
