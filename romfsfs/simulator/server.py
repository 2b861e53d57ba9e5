"""Running a simulated camera: in a thread for tests, or in the foreground for the command line.

A thread of its own runs the camera (`start`). Every other thread may use `faults`, read
`statistics` and `flash`, and call the methods of `Simulator`, which the camera's thread carries
out between two steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from romfsfs.simulator.camera import Camera
from romfsfs.simulator.config import SimulatorConfig
from romfsfs.simulator.executor import find_micropython
from romfsfs.simulator.faults import Faults, Statistics
from romfsfs.simulator.flash import Flash
from romfsfs.simulator.link import Port
from romfsfs.system.interrupts import interrupt

#: seconds until a camera that does not do what it was asked to is taken for broken
CALL_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Simulator:
    """A camera on a pty; a context manager that powers it up and puts it away.

    config: the camera. link: path of the symbolic link to the port (None: in a temporary folder).
    flash_file: keeps partition 0 from one run to the next, and FILE.1 partition 1 (created or
    grown to the partition's size). micropython: see `find_micropython`, which raises ToolMissing.
    """

    def __init__(
        self,
        config: SimulatorConfig,
        *,
        link: str | os.PathLike[str] | None = None,
        flash_file: str | os.PathLike[str] | None = None,
        micropython: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config
        program = find_micropython(micropython)
        self.statistics = Statistics()
        self.faults = Faults(self.statistics)
        self.flash = Flash(config, self.faults, self.statistics, flash_file)
        self._folder = tempfile.TemporaryDirectory(prefix="romfsfs-simulator-")
        self._port = Port(link if link is not None else Path(self._folder.name, "camera"))
        self._camera = Camera(config, self.flash, self.faults, self.statistics, self._port, program)
        self._calls: list[tuple[Callable[[], None], Future[None]]] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> str:
        """The path that the host opens; stays the same when the camera is plugged in again."""
        return self._port.link

    @property
    def plugged(self) -> bool:
        """Whether there is a port now."""
        return self._port.is_open

    @property
    def runs(self) -> bool:
        """Whether it was started and its thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def silent(self) -> bool:
        """Whether the camera hangs: by `silence`, or by a snippet that wedged the hardware."""
        return self._camera.silent

    def start(self) -> Simulator:
        """Power up and run the camera in a thread of its own; returns when the port is there."""
        self._thread = threading.Thread(target=self._run, name="simulated camera", daemon=True)
        self._thread.start()
        try:
            self.replug()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Power off and free everything; `flash` can no longer be read. May be called twice."""
        self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join(CALL_SECONDS)
        if self._wake_write >= 0:
            self._camera.power_off()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1
            self.flash.close()
            self._folder.cleanup()

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def unplug(self) -> None:
        """Pull the camera's cable: power and port go at once."""
        self._call(self._camera.power_off)

    def replug(self) -> None:
        """Plug the camera in (again): it boots with the flash as it is."""
        self._call(self._camera.power_on)

    def silence(self, silent: bool = True) -> None:
        """Have the camera neither listen nor answer until `replug`; the port stays."""
        self._call(lambda: setattr(self._camera, "silent", silent))

    def wait_until(
        self, condition: Callable[[Simulator], bool], seconds: float = CALL_SECONDS
    ) -> None:
        """Return when the condition holds; TimeoutError if it does not within these seconds."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s")
            time.sleep(0.002)

    def _call(self, function: Callable[[], None]) -> None:
        """Have the camera's thread call `function`, and raise here what that raises."""
        if not self.runs:
            raise RuntimeError("the simulated camera has ended")
        done: Future[None] = Future()
        self._calls.append((function, done))
        self._wake()
        done.result(CALL_SECONDS)

    def _wake(self) -> None:
        if self._wake_write >= 0:
            os.write(self._wake_write, b"!")

    def _run(self) -> None:
        while not self._closing:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            while self._calls:
                function, done = self._calls.pop(0)
                try:
                    done.set_result(function())
                except Exception as error:  # noqa: BLE001 (raised again by who waits)
                    done.set_exception(error)
            self._camera.step(time.monotonic())
            if not self._closing:
                self._camera.wait(self._wake_read)


def run_simulator(
    config: SimulatorConfig,
    *,
    link: str | os.PathLike[str] | None = None,
    flash_file: str | os.PathLike[str] | None = None,
    micropython: str | os.PathLike[str] | None = None,
    ready: Callable[[Simulator], None] = lambda camera: None,
) -> Statistics:
    """Run a camera in the foreground until Ctrl-C or SIGTERM; for the main thread.

    ready: called once the port exists; it may print `camera.port`. Returns what the camera did.
    Raises ToolMissing without MicroPython, UsageError if `link` is an existing file.
    """
    camera = Simulator(config, link=link, flash_file=flash_file, micropython=micropython)
    # SIGINT too: shells start background commands with it ignored
    ends = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, interrupt) for number in ends]
    try:
        with camera:
            ready(camera)
            while camera.runs:
                time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in zip(ends, previous, strict=True):
            signal.signal(number, handler)
    return camera.statistics
