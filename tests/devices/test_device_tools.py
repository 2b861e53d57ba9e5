"""Running external tools: limits, output, and what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tool_time import is_up_after

from romfsfs.devices.bootloader.programs import run
from romfsfs.errors import DeviceLost
from romfsfs.system import programs


def test_output_and_status() -> None:
    pieces: list[str] = []
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    outcome = run([sys.executable, "-c", code], 60, on_output=pieces.append)
    assert outcome.status == 3
    assert sorted(outcome.output.split()) == ["err", "out"]
    assert "".join(pieces) == outcome.output


def test_a_tool_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    is_up_after("here", 1.0, monkeypatch)
    with pytest.raises(DeviceLost, match=r"did not finish within 1 s; unplug") as caught:
        run([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], 1)
    assert "here" in caught.value.detail


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "sudo apt-get install dfu-util"),
        ("pacman", "sudo pacman -S other"),
        ("none", "install dfu-util with the system's package manager"),
    ],
)
def test_install_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manager: str, command: str
) -> None:
    program = tmp_path / manager
    program.write_text("")
    program.chmod(0o755)
    which = programs.shutil.which
    monkeypatch.setattr(programs.shutil, "which", lambda name, path: which(name, path=tmp_path))
    monkeypatch.setattr(programs.sys, "platform", "linux")
    names = {"pacman": "other", "brew": "third"}
    assert programs.install_command("dfu-util", names) == command
    monkeypatch.setattr(programs.sys, "platform", "darwin")
    assert programs.install_command("dfu-util", names) == "brew install third"


def test_importing_the_file_device_imports_no_pyserial() -> None:
    code = (
        "import sys; from romfsfs.devices.open import open_device\n"
        "open_device('/tmp/no such.img')\n"
        "assert 'serial' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
