"""The RT1060's resident boot loader, through NXP's blhost (extra `rt1060`): a `BootLoader`.

The loader listens for about one second after machine.bootloader() (docs/cameras.md, "RT1060").
blhost takes longer than that to start, and looks for it only once. So a process that has already
loaded blhost's own package, spsdk, polls for the loader before the camera is sent there.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from romfsfs.boards import Board, Partition
from romfsfs.boards.model import IMX_LOADER_ID
from romfsfs.devices.bootloader.programs import (
    QUICK,
    failed,
    find_tool,
    run,
    transfer_limit,
)
from romfsfs.errors import DeviceAbsent, DeviceError
from romfsfs.system.files import Progress
from romfsfs.system.runner import Outcome

#: where Linux lists USB devices
_DEVICES = Path("/sys/bus/usb/devices")
#: USB id of the resident boot loader, as blhost takes it
_USB_ID = "0x{:04X},0x{:04X}".format(*IMX_LOADER_ID)
#: seconds until a camera that was sent to its loader must answer there
ENTER_LIMIT = 15.0
_SECTOR = 4096
#: flash is programmed by pages: the one with the header is the smallest last write
_PAGE = 256
_INSTALL = "pip install 'romfsfs[rt1060]'"
_RETRY = "replug the camera and repeat the command; if that happens again, use its serial port"
_STATUS = re.compile(r"Response status = ([0-9]+)")
_ARMED = "armed"
#: Polls for the loader and sends it a first command, after which it stays. SPSDKError: the loader
#: is listed, but cannot be opened yet.
_WAIT = f"""
import sys, time
from spsdk.exceptions import SPSDKError
from spsdk.mboot.interfaces.usb import MbootUSBInterface
from spsdk.mboot.mcuboot import McuBoot
end = time.monotonic() + float(sys.argv[2])
print("{_ARMED}", flush=True)
while time.monotonic() < end:
    try:
        for interface in MbootUSBInterface.scan(sys.argv[1]):
            with McuBoot(interface) as loader:
                if loader.get_property(1):
                    sys.exit(0)
    except SPSDKError as error:
        print(error, flush=True)
    time.sleep(0.01)
sys.exit(1)
"""


def blhost_argv(tool: str, *words: str, answer: float = 5.0) -> list[str]:
    """blhost on the loader's USB device. answer: seconds until the loader must answer; it is silent
    while it erases, which took 70 s for 4 MiB (openmv/qt-creator, pull request 17)."""
    return [tool, "-u", _USB_ID, "-t", str(int(answer * 1000)), *words]


def wait_argv(python: str, seconds: float) -> list[str]:
    """A process that prints that it is ready, then waits for the loader and keeps it there."""
    return [python, "-c", _WAIT, _USB_ID.replace(",", ":"), f"{seconds:g}"]


def succeeded(outcome: Outcome) -> bool:
    """Whether it exited with 0 and printed no other `Response status` (it may exit 0 anyway)."""
    return outcome.status == 0 and not any(
        code.strip("0") for code in _STATUS.findall(outcome.output)
    )


class BlhostLoader:
    """The ROMFS partition of an RT1060 in its boot loader; made by `find_loader`."""

    kind = "rt1060"
    #: the loader does not report the chip's unique id, and blhost not where it is plugged in
    identity = path = ""
    header_unit = _PAGE

    def __init__(self, tool: str, board: Board, partition: Partition) -> None:
        target = partition.imx
        assert target is not None
        self._tool = tool
        self._at = hex(target.address)
        self.capacity = min(target.size, partition.size)
        self.name = f"{board.name} in its boot loader"

    def read(self, path: Path, length: int, progress: Progress) -> None:
        progress("reading", 0, length)
        self._run("read", length, "read-memory", self._at, str(length), str(path))
        progress("reading", length, length)

    def write(self, path: Path, progress: Progress) -> None:
        size = path.stat().st_size
        with open(path, "ab") as file:
            # the loader's flash driver wants whole pages; FF leaves the rest erased
            file.write(b"\xff" * (-size % _PAGE))
        progress("writing", 0, size)
        self._run("write", size, "write-memory", self._at, str(path))
        progress("writing", size, size)

    def erase(self, length: int, progress: Progress) -> None:
        progress("erasing", 0, length)
        whole = -(-length // _SECTOR) * _SECTOR
        self._run("erase", length, "flash-erase-region", self._at, str(whole))

    def reset(self) -> None:
        argv = blhost_argv(self._tool, "reset")
        outcome = run(argv, QUICK)
        if not succeeded(outcome):
            raise failed(
                argv, outcome, "reset the camera", "what was written is verified; replug it"
            )

    def _run(self, what: str, length: int, *words: str) -> None:
        limit = transfer_limit(length)
        argv = blhost_argv(self._tool, *words, answer=limit)
        outcome = run(argv, limit + QUICK)
        if not succeeded(outcome):
            raise failed(argv, outcome, f"{what} the ROMFS", _RETRY)


def find_loader(
    board: Board, partition: Partition, enter: Callable[[], object], limit: float
) -> BlhostLoader:
    """The board's loader; `enter` sends the board there if it is not there yet, and is called from
    another thread. limit: seconds in which the loader must answer after that.

    DeviceAbsent; DeviceError (no blhost or spsdk, several loaders).
    """
    tool = find_tool("blhost", _INSTALL)
    loader = BlhostLoader(tool, board, partition)
    _refuse_several(board)
    there = succeeded(run(blhost_argv(tool, "get-property", "1"), QUICK))
    if not there and not _enter(tool, enter, limit):
        raise DeviceAbsent(
            f"no {board.name} answers in its boot loader",
            next_step="connect it, let it start, and repeat the command",
        )
    return loader


def _refuse_several(board: Board) -> None:
    """DeviceError where Linux lists several such loaders: each call of blhost may find another.

    blhost's `-u BUS#DEVICE` cannot select one for certain: 1#7 is also part of 1#71.
    """
    there = 0
    for device in _DEVICES.glob("*/idVendor"):
        with contextlib.suppress(OSError, ValueError):
            found = int(device.read_text(), 16), int(device.with_name("idProduct").read_text(), 16)
            there += found == IMX_LOADER_ID
    if there > 1:
        raise DeviceError(
            f"{there} boot loaders with the USB id of {board.name} are connected, and blhost "
            "cannot tell them apart",
            next_step="nothing was changed; unplug all but one, and repeat the command for each",
        )


def _enter(tool: str, enter: Callable[[], object], limit: float) -> bool:
    """Send the camera to its loader while a process polls for it; whether that found it.

    That process is the first to talk to the loader, which then stays for blhost. DeviceError.
    """
    heard = ""
    entered = False

    def listen(piece: str) -> None:
        nonlocal heard, entered
        heard += piece
        if not entered and _ARMED in heard:
            entered = True
            enter()

    argv = wait_argv(_python_of(tool), limit)
    outcome = run(argv, limit + 2 * QUICK, on_output=listen)
    if not entered:  # no spsdk: nothing was sent to the camera
        raise failed(argv, outcome, "load spsdk, which blhost belongs to", _INSTALL)
    return outcome.status == 0


def _python_of(tool: str) -> str:
    """The Python that has blhost's package: the one beside blhost, else ours, which also finds what
    is installed for this user alone."""
    beside = Path(os.path.realpath(tool)).parent / "python3"
    return str(beside) if beside.exists() else sys.executable
