"""A simulated camera's thread, and who talks to it, with a camera that does nothing."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import UsageError
from romfsfs.simulator import Simulator, preset, run_simulator, server
from romfsfs.simulator.faults import Statistics


class Camera:
    """Says what its thread has it do, and in which thread."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.silent = False
        self.refused: Exception | None = None
        self.turns = 0

    def _called(self, name: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls.append(name)

    def power_on(self) -> None:
        self._called("on")
        if self.refused is not None:
            raise self.refused

    def power_off(self) -> None:
        self._called("off")

    def step(self, now: float) -> None:
        self.turns += 1

    def wait(self, wake_fd: int) -> None:
        assert not os.get_blocking(wake_fd)
        assert select.select([wake_fd], [], [], 60)[0], "nobody woke it"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`quiet()`: a simulator with such a camera; what it opened must be closed at the end."""
    monkeypatch.setattr(server, "Camera", Camera)
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    yield lambda **how: Simulator(preset("OPENMV2"), micropython="/bin/sh", **how)
    assert len(os.listdir("/dev/fd")) <= before
    assert not [each for each in tmp_path.iterdir() if each.name.startswith("romfsfs-")]


def test_all_is_done_in_the_camera_s_own_thread(quiet: Any) -> None:
    simulator = quiet()
    camera = simulator._camera
    assert (simulator.runs, simulator.plugged, camera.calls) == (False, False, [])
    assert camera.parts == (
        simulator.config, simulator.flash, simulator.faults, simulator.statistics,
        simulator._port, "/bin/sh",
    )  # fmt: skip
    assert simulator.port == str(Path(simulator._folder.name, "camera"))
    with simulator as same:
        assert same is simulator
        assert simulator.runs
        simulator.unplug()
        simulator.replug()
        simulator.silence()
        assert simulator.silent
        simulator.silence(False)
        assert not simulator.silent
        assert camera.calls == ["on", "off", "on"]
        assert camera.threads == {"simulated camera"}
        turns = camera.turns
        simulator._call(lambda: None)
        assert camera.turns - turns in (0, 1, 2), "it sleeps between two calls"
        with pytest.raises(ZeroDivisionError):
            simulator._call(lambda: 1 // 0)
        thread = simulator._thread
        assert thread.daemon
    assert not thread.is_alive()
    assert not simulator.runs
    simulator.close()
    assert camera.calls == ["on", "off", "on", "off"], "once"
    for call in (simulator.unplug, simulator.replug, simulator.silence):
        with pytest.raises(RuntimeError, match=r"^the simulated camera has ended$"):
            call()


def test_a_simulator_that_was_never_started_is_closed(quiet: Any) -> None:
    simulator = quiet()
    simulator.close()
    assert simulator._camera.calls == ["off"]


def test_a_camera_that_cannot_be_powered_up_leaves_nothing(quiet: Any, tmp_path: Path) -> None:
    simulator = quiet(link=tmp_path / "cam")
    assert simulator.port == str(tmp_path / "cam")
    simulator._camera.refused = UsageError("the port's link would replace a file")
    with pytest.raises(UsageError, match="would replace"):
        simulator.start()
    assert not simulator.runs
    assert simulator._camera.calls == ["on", "off"]


def test_a_condition_is_waited_for_so_long(quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = quiet()
    slept: list[float] = []
    watch = SimpleNamespace(monotonic=lambda: len(slept) * 0.5, sleep=slept.append)
    with monkeypatch.context() as once:
        once.setattr(server, "time", watch)
        simulator.wait_until(lambda camera: camera is simulator)
        simulator.wait_until(lambda camera: len(slept) == 2, seconds=1.0)
        assert slept == [0.002] * 2
        slept.clear()
        with pytest.raises(TimeoutError, match=r"^not within 1\.0 s$"):
            simulator.wait_until(lambda camera: False, seconds=1.0)
        assert slept == [0.002] * 3
        slept.clear()
        with pytest.raises(TimeoutError, match=r"^not within 60\.0 s$"):
            simulator.wait_until(lambda camera: False)
    simulator.close()


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_camera_in_the_foreground(
    quiet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interrupted: bool
) -> None:
    """It ends with a signal, or by itself; the handlers of signals are as before."""
    ends = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in ends]
    seen: list[Any] = []
    slept: list[float] = []

    def ready(camera: Simulator) -> None:
        seen.append((camera.port, camera.runs, [signal.getsignal(number) for number in ends]))
        camera.statistics.execs = 7

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            if interrupted:
                server.interrupt(signal.SIGTERM, None)
            simulators[0].close()

    simulators: list[Simulator] = []
    made = Simulator.__enter__

    def enter(self: Simulator) -> Simulator:
        simulators.append(self)
        return made(self)

    monkeypatch.setattr(Simulator, "__enter__", enter)
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: 1.0, sleep=sleep))
    link = tmp_path / "cam"
    done = run_simulator(preset("OPENMV2"), link=link, micropython="/bin/sh", ready=ready)
    assert done == Statistics(execs=7)
    assert slept == [0.5] * 3
    assert seen == [(str(link), True, [server.interrupt] * 2)]
    assert [signal.getsignal(number) for number in ends] == before
    assert not simulators[0].runs
    assert simulators[0]._camera.calls == ["on", "off"]  # type: ignore[attr-defined]
