"""What dfu-util and blhost get of this machine, and how they are stopped."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import fuzz_camera
import needs
import pytest
from processes import ended, until
from tool_time import is_up_after

from romfsfs.devices.bootloader import programs
from romfsfs.devices.serial_camera import repl
from romfsfs.errors import DeviceError, DeviceLost

SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3cret", "GITHUB_TOKEN": "s3cret", "PYTHONSTARTUP": "s3cret"}


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A tool that says what it sees; its argument is code to run."""
    path = tmp_path / "dfu-util"
    path.write_text(f"#!{sys.executable} -I\nimport os, sys\nexec(sys.argv[1])\n")
    path.chmod(0o700)
    return path


def run(fake: Path, code: str, limit: float = 60) -> str:
    return programs.run([str(fake), code], limit).output


def test_no_secret_of_the_users_environment(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    seen = run(fake, "print(open('/proc/self/environ').read())")
    assert "s3cret" not in seen
    assert "PATH=" in seen
    names = {entry.partition("=")[0] for entry in seen.split("\0") if "=" in entry}
    assert names <= {
        "PATH",
        "HOME",
        "LD_LIBRARY_PATH",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "PYTHONIOENCODING",
    }


def test_a_folder_of_its_own_no_input_and_limits(fake: Path) -> None:
    code = (
        "import resource; print(oct(os.stat('.').st_mode & 0o777), os.listdir('.'),"
        " repr(sys.stdin.read()), os.getsid(0) == os.getpid(),"
        " sorted(map(int, os.listdir('/dev/fd')))[:4], os.getcwd(), sep='|')"
    )
    *rest, folder = run(fake, code).removesuffix("\n").split("|")
    assert rest == ["0o700", "[]", "''", "True", "[0, 1, 2, 3]"]
    assert not os.path.exists(folder)


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_memory_and_files_are_limited(fake: Path, tmp_path: Path) -> None:
    # the limits are set on the running child, so it may have started before them
    wait = (
        "import resource as r, time\n"
        "def limits(): return [r.getrlimit(kind)[0] for kind in (r.RLIMIT_AS, r.RLIMIT_FSIZE)]\n"
        "while r.RLIM_INFINITY in limits(): time.sleep(0.01)\n"
    )
    assert run(fake, f"{wait}print(limits())") == f"[{4 << 30}, {1 << 30}]\n"
    assert "MemoryError" in run(fake, f"{wait}bytearray(5 << 30)")


def test_a_tool_that_floods_ends_at_its_limit(fake: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DeviceLost, match="did not finish") as caught:
        run(fake, "while True: os.write(1, b'x' * 65536)", limit=1)
    assert time.monotonic() - started < 30
    assert len(caught.value.detail) < 3 << 20


def test_a_tool_and_its_children_are_killed(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '600']);"
        "print('child', child.pid, flush=True); time.sleep(600)"
    )
    is_up_after("child", 1.5, monkeypatch)
    with pytest.raises(DeviceLost) as caught:
        run(fake, code, limit=1.5)
    pid = int(caught.value.detail.split()[-1])
    until(lambda: ended(pid))


def test_a_tool_in_the_current_folder_is_still_found(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PATH` may name folders relative to where the user is; the tool runs elsewhere."""
    monkeypatch.chdir(fake.parent)
    monkeypatch.setenv("PATH", ".")
    assert programs.find_tool("dfu-util") == str(fake)
    assert stat.S_IMODE(fake.stat().st_mode) == 0o700


@pytest.mark.parametrize("received", [2, 3], ids=["unacknowledged", "acknowledged"])
def test_a_camera_may_be_gone_before_it_says_that_it_goes(received: int) -> None:
    """Into the boot loader: the port dies at once, with or without a last word."""
    entered = fuzz_camera.entering()
    parts = [*entered, b"R\x01\xff\xff", b"", b"\x04"][: len(entered) + received]
    pulled = b"\x02" + fuzz_camera.DIVIDER.join(parts)
    with fuzz_camera.fuzz_port(pulled) as port:
        repl.RawRepl(port).start_and_forget("machine.bootloader()")
    pulled = b"\x02" + fuzz_camera.DIVIDER.join(entered)
    with fuzz_camera.fuzz_port(pulled) as port, pytest.raises(DeviceError):
        repl.RawRepl(port).start_and_forget("machine.bootloader()")
