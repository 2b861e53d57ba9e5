"""A camera on the bus: its firmware (the simulated camera) or its boot loader, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cdc import SerialDevice
from dfu import BLOCK, DfuDevice, DfuSeDevice, Ram, Setting
from usbip import UsbDevice

from romfsfs.simulator import Simulator, preset

KIB, MIB = 1024, 1 << 20
#: seconds between a device that leaves and the next one: the firmware's start
START_SECONDS = 0.5
#: what a loader waits for a host at power-up
WINDOW = 1.5
#: seconds for whatever has to happen: emulation beside other work is slow
PATIENCE = 300.0
#: board -> ids of firmware and loader, names of the loader's settings, and of those with flash of
#: the simulated camera: its partition, and what the loader erases
UsbId = tuple[int, int]
BOARDS: dict[str, tuple[UsbId, UsbId, list[str], dict[str, tuple[int, int]]]] = {
    "OPENMV4P": (
        (0x37C5, 0x124A), (0x37C5, 0x924A),
        ["BOOTLOADER", "FILESYSTEM", "FIRMWARE", "SPI_FLASH", "ROMFS0"], {"ROMFS0": (0, 64 * KIB)},
    ),
    "OPENMV_N6": (
        (0x37C5, 0x1206), (0x37C5, 0x9206),
        ["BOOTLOADER", "FIRMWARE", "FILESYSTEM", "ROMFS0"], {"ROMFS0": (0, 64 * KIB)},
    ),
    "OPENMV_AE3": (
        (0x37C5, 0x16E3), (0x37C5, 0x96E3),
        ["BOOT", "HP", "HE", "ROMFS1", "TOC", "RWFS", "ROMFS0", "RECOVERY"],
        {"ROMFS0": (0, 4 * KIB), "ROMFS1": (1, 0)},
    ),
    "ARDUINO_GIGA": (
        (0x2341, 0x0066), (0x2341, 0x0366),
        ["@Internal Flash   2MB   /0x08000000/01*128Ka,15*128Kg",
         "@Ext RAW  Flash 16MB   /0x90000000/4096*04Kg"],
        {"@Ext RAW  Flash 16MB   /0x90000000/4096*04Kg": (0, 4 * KIB)},
    ),
}  # fmt: skip
#: where Arduino's partition is in its flash
ARDUINO_OFFSET = 0xB00000


class PartitionMemory:
    """The simulated camera's flash, `offset` bytes into the loader's memory."""

    def __init__(self, simulator: Simulator, index: int, offset: int = 0) -> None:
        self._partition = simulator.flash.partitions[index]
        self._offset = offset
        self.size = self._partition.config.size + offset

    def read(self, offset: int, count: int) -> bytes:
        data = self._partition.read(max(0, offset - self._offset), count)
        return data if offset >= self._offset else b"\xff" * count

    def put(self, offset: int, data: bytes) -> None:
        if offset >= self._offset:
            self._partition._put(offset - self._offset, data)


class UsbCamera:
    """A camera of a board that is plugged in, pulled out, and changes between its two devices.

    port: of the bus. A context manager, within which it may be plugged in. cable_goes: the next
    time that its firmware goes, the cable was pulled (`simulator.faults` says when); otherwise it
    went to its loader. silent: its firmware listens to nobody.
    """

    cable_goes = silent = False

    def __init__(
        self, board: str, port: int, micropython: Path, *, serial: str = "33004B",
        **changes: object,
    ) -> None:  # fmt: skip
        self.board, self.port, self.serial = board, port, serial
        self.firmware_id, self.loader_id, names, flash = BOARDS[board]
        self.simulator = Simulator(preset(board, **changes), micropython=micropython)
        arduino = board.startswith("ARDUINO")
        self.settings = []
        for name in names:
            if name in flash:
                index, erase = flash[name]
                memory = PartitionMemory(self.simulator, index, ARDUINO_OFFSET if arduino else 0)
                self.settings.append(Setting(name, memory, erase))
            else:
                self.settings.append(Setting(name, Ram(BLOCK * 16), BLOCK, read_only=True))
        self.dfu_class = DfuSeDevice if arduino else DfuDevice
        self.device: UsbDevice | None = None
        self._changes = 0  # of what is on the bus; what was to come later is overtaken by one
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watch_firmware, daemon=True)

    def __enter__(self) -> UsbCamera:
        self.simulator.start()
        self.simulator.unplug()
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._watch.join(10)
        self.unplug()
        self.simulator.close()

    def romfs(self, index: int = 0) -> bytes:
        return self.simulator.flash.partitions[index].content

    @property
    def loader(self) -> DfuDevice | None:
        return self.device if isinstance(self.device, DfuDevice) else None

    def setting(self, name: str = "ROMFS0") -> Setting:
        return next(s for s in self.settings if s.name == name or (s.name or "").startswith("@Ext"))

    def unplug(self) -> None:
        with self._lock:
            self._changes += 1
            device, self.device = self.device, None
        if device is not None:
            device.pull()
        if self.simulator.plugged:
            self.simulator.unplug()

    def plug(self, *, window: bool = True, port: int | None = None) -> None:
        """Power: the loader first, for as long as it waits, then the firmware."""
        self.port = self.port if port is None else port
        if window:
            self.attach_loader(WINDOW)
        else:
            self._attach_firmware()

    def _attach_firmware(self) -> None:
        with self._lock:
            self._changes += 1
            if not self.simulator.plugged:
                self.simulator.replug()
            self.simulator.silence(self.silent)
            self.device = SerialDevice(
                *self.firmware_id, self.serial, self.simulator.port, self._touched
            )
            self.device.attach(self.port)

    def _touched(self) -> None:
        if self.dfu_class is DfuSeDevice:
            threading.Thread(target=self.simulator.unplug, daemon=True).start()

    def attach_loader(self, window: float | None = None) -> None:
        """It starts its loader. window: seconds until that starts the firmware."""
        with self._lock:
            self._changes += 1
            device = self.dfu_class(
                *self.loader_id, self.serial, self.settings, self._loader_left,
                self._loader_pulled, window,
            )  # fmt: skip
            self.device = device
            device.attach(self.port)

    def _loader_left(self) -> None:
        self.device = None
        self._later(self._attach_firmware)

    def _loader_pulled(self) -> None:
        self.device = None

    def _later(self, action: Callable[[], None]) -> None:
        """Do that when it has started, unless something else is on the bus by then."""
        changes = self._changes

        def run() -> None:
            if not self._stop.wait(START_SECONDS) and changes == self._changes:
                action()

        threading.Thread(target=run, daemon=True).start()

    def _watch_firmware(self) -> None:
        """The firmware may go by itself: into the loader, or for a restart."""
        while not self._stop.wait(0.02):
            device = self.device
            if not isinstance(device, SerialDevice) or self.simulator.plugged:
                continue
            with self._lock:
                if self.device is not device:
                    continue
                self.device = None
            device.pull()
            if self.cable_goes:
                self.cable_goes = False
            elif self.simulator._camera._power_on_at is not None:
                self._later(self._wait_for_restart)
            else:
                self._later(self.attach_loader)

    def _wait_for_restart(self) -> None:
        while not self.simulator.plugged and not self._stop.wait(0.02):
            pass
        self._attach_firmware()


def wait_for(condition: Callable[[], object], every: float = 0.05) -> None:
    """Until it holds, which is looked at every so many seconds; TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("not in time")
        time.sleep(every)


def tty_of(camera: UsbCamera) -> str:
    """The camera's serial port, once the kernel and udev have it."""
    found: list[str] = []

    def look() -> bool:
        for path in sorted(Path("/sys/class/tty").glob("ttyACM*")):
            try:
                serial = (path / "device/../serial").read_text().strip()
            except OSError:
                continue
            if serial == camera.serial and Path("/dev", path.name).exists():
                found[:] = [f"/dev/{path.name}"]
                return True
        return False

    wait_for(look)
    return found[0]
