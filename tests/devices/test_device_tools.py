"""Running external tools: limits, output, and what to install."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from romfsfs.devices.tools import install_command, run_tool
from romfsfs.errors import DeviceLost


def test_output_and_status() -> None:
    pieces: list[str] = []
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = run_tool([sys.executable, "-c", code], limit=20, on_output=pieces.append)
    assert result.status == 3
    assert sorted(result.output.split()) == ["err", "out"]
    assert "".join(pieces) == result.output


def test_a_tool_that_hangs_is_killed_with_its_children() -> None:
    code = (
        "import subprocess,sys;subprocess.run([sys.executable,'-c','import time;time.sleep(60)'])"
    )
    started = time.monotonic()
    with pytest.raises(DeviceLost, match="did not finish within 1 s"):
        run_tool([sys.executable, "-c", code], limit=1)
    assert time.monotonic() - started < 10


def test_a_tool_gets_no_input() -> None:
    result = run_tool([sys.executable, "-c", "print(input())"], limit=20)
    assert "EOFError" in result.output


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
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert install_command("dfu-util", os_release) == command
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert install_command("dfu-util", os_release) == "brew install dfu-util"


def test_importing_the_file_device_imports_no_pyserial() -> None:
    code = (
        "import sys; from romfsfs.devices.open import open_device\n"
        "open_device('/tmp/no such.img')\n"
        "assert 'serial' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
