"""Running external tools: limits, output, and what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from romfsfs.devices.bootloader.programs import run
from romfsfs.errors import DeviceLost
from romfsfs.system import programs


def test_output_and_status() -> None:
    pieces: list[str] = []
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    outcome = run([sys.executable, "-c", code], 20, on_output=pieces.append)
    assert outcome.status == 3
    assert sorted(outcome.output.split()) == ["err", "out"]
    assert "".join(pieces) == outcome.output


def test_a_tool_that_hangs() -> None:
    with pytest.raises(DeviceLost, match=r"did not finish within 1 s; unplug") as caught:
        run([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], 1)
    assert "here" in caught.value.detail


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=debian\n", "sudo apt install dfu-util"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "sudo apt install dfu-util"),
        ("ID=fedora\n", "sudo dnf install dfu-util"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install dfu-util"),
        ("ID=arch\n", "sudo pacman -S dfu-util"),
        ("ID=plan9\n", "install dfu-util with your system's package manager"),
    ],
)
def test_install_commands(monkeypatch: pytest.MonkeyPatch, os_release: str, command: str) -> None:
    monkeypatch.setattr(programs.sys, "platform", "linux")
    assert programs.install_command("dfu-util", os_release) == command
    monkeypatch.setattr(programs.sys, "platform", "darwin")
    assert programs.install_command("dfu-util", os_release) == "brew install dfu-util"


def test_importing_the_file_device_imports_no_pyserial() -> None:
    code = (
        "import sys; from romfsfs.devices.open import open_device\n"
        "open_device('/tmp/no such.img')\n"
        "assert 'serial' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
