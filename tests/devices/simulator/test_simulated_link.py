"""The simulated camera's cable: its speed, its delay, and the path it is found at."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from processes import ended, until

from romfsfs.errors import ToolMissing, UsageError, shell_word
from romfsfs.simulator import Simulator, executor, find_micropython, preset


def test_the_rate_holds_in_both_directions(camera, connect):
    host = connect(camera(rate=100_000))
    started = time.monotonic()
    host.begin("import sys\nprint(len(sys.stdin.buffer.read(40000)))")
    host.send(b"x" * 40000)
    assert host.finish()[0] == b"40000\r\n"
    upwards = time.monotonic() - started
    assert 0.38 < upwards < 30
    started = time.monotonic()
    assert len(host.run("sys.stdout.buffer.write(b'x' * 40000)")) == 40000
    assert 0.38 < time.monotonic() - started < 30


def test_latency_delays_every_round_trip_and_not_the_rate(camera, connect):
    host = connect(camera(latency=0.05))
    started = time.monotonic()
    for _ in range(3):
        assert host.value("1") == 1
    assert 0.3 < time.monotonic() - started < 30
    started = time.monotonic()
    host.begin("import sys\nprint(len(sys.stdin.buffer.read(40000)))")
    host.send(b"x" * 40000)
    host.finish()
    assert time.monotonic() - started < 30


def test_output_that_nobody_reads_is_dropped_after_a_while(camera, connect):
    """What lies in the buffers on the way stays; the script goes on without a reader."""
    script = "n = 0\nwhile True:\n print('%099d' % n)\n n += 1"
    simulator = camera(main_script=script)
    simulator.wait_until(lambda camera: camera.statistics.dropped_output > 1 << 16)
    assert simulator.statistics.wire_out < 1 << 18
    host = connect(simulator, raw=False)
    lines = [host.until(b"\r\n").strip() for _ in range(1000)]
    numbers = [int(line) for line in lines if len(line) == 99]
    assert any(after > n + 1 for n, after in itertools.pairwise(numbers))


def test_two_mib_are_read_as_they_lie_in_the_flash(camera, connect):
    simulator = camera("OPENMV_N6")
    data = random.Random(2).randbytes(2 << 20)
    simulator.flash[0].load(data)
    host = connect(simulator)
    host.begin(
        "import sys, vfs\nm = vfs.rom_ioctl(2, 0)\n"
        "for start in range(0, 2 << 20, 65536):\n"
        " sys.stdout.buffer.write(m[start : start + 65536])"
    )
    assert host.read(2 << 20) == data
    assert host.finish() == (b"", b"")


def test_the_link_follows_the_camera_and_replaces_no_file(camera, connect, tmp_path, micropython):
    link = tmp_path / "cam0"
    simulator = camera(link=link)
    assert simulator.port == str(link)
    assert os.readlink(link).startswith("/dev/")
    simulator.unplug()
    assert not link.is_symlink()
    simulator.replug()
    assert connect(simulator).value("1") == 1
    simulator.close()
    assert not link.is_symlink()
    link.write_text("mine")
    with (
        pytest.raises(UsageError, match="would replace a file"),
        Simulator(preset("OPENMV2"), link=link, micropython=micropython),
    ):
        pass
    assert link.read_text() == "mine"


def test_a_call_of_the_camera_takes_its_time_and_ends_with_the_camera(camera):
    """As on a busy machine: unplugging waits for what the camera does just now."""
    simulator = camera()
    done = threading.Event()
    simulator._call(lambda: done.wait(0.5))
    simulator._call(done.set)
    assert done.is_set()
    simulator.close()
    with pytest.raises(RuntimeError, match="the simulated camera has ended"):
        simulator.unplug()


def test_a_camera_that_has_nothing_to_do_sleeps(camera, connect, monkeypatch):
    simulator = camera(main_script="import time\ntime.sleep(100)")
    connect(simulator, raw=False)
    turns = [0]
    step = simulator._camera.step

    def counted(now):
        turns[0] += 1
        step(now)

    monkeypatch.setattr(simulator._camera, "step", counted)
    time.sleep(0.5)
    assert turns[0] < 100


def test_without_micropython_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ROMFSFS_MICROPYTHON", raising=False)
    with pytest.raises(ToolMissing) as missing:
        find_micropython()
    script = Path(__file__).parents[3] / "scripts" / "get-micropython"
    assert missing.value.next_step.startswith(f"fetch it: {shell_word(script)}")
    monkeypatch.setattr(executor, "__file__", str(tmp_path / "romfsfs/simulator/executor.py"))
    with pytest.raises(ToolMissing) as missing:  # what pip installed has no scripts
        find_micropython()
    assert "scripts/" not in missing.value.next_step
    wrong = tmp_path / "micropython"
    wrong.write_text("#!/bin/sh\necho oops >&2\nexit 1\n")
    wrong.chmod(0o755)
    assert find_micropython() == str(wrong)
    with pytest.raises(ToolMissing) as error, Simulator(preset("OPENMV2")):
        pass
    assert "oops" in error.value.detail


def test_what_was_fetched_is_found(monkeypatch, tmp_path):
    """Without an environment variable; the 32-bit one first, and before one on PATH."""
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ROMFSFS_MICROPYTHON", raising=False)
    for bits in ("64", "32"):
        program = tmp_path / "micropython" / bits / "micropython"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
        assert find_micropython() == str(program)
    with pytest.raises(ToolMissing, match="nothing-there"):
        find_micropython("nothing-there")


FOREGROUND = """
import sys
from romfsfs.simulator import preset, run_simulator
done = run_simulator(preset("OPENMV4"), link=sys.argv[1], micropython=sys.argv[2],
                     ready=lambda camera: print(camera.port, flush=True))
print(done.execs)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_in_the_foreground_ends_with_ctrl_c(end, connect, tmp_path, micropython):
    link = tmp_path / "cam0"
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(link), str(micropython)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(link)

        class Port:
            port = str(link)

        assert connect(Port()).value("40 + 2") == 42
        process.send_signal(end)
        assert process.communicate(timeout=60)[0] == "1\n"
        assert process.returncode == 0
    assert not link.is_symlink()


def test_nothing_of_a_killed_simulator_keeps_running(connect, tmp_path, micropython):
    link = tmp_path / "cam0"
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(link), str(micropython)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        class Port:
            port = str(link)

        host = connect(Port())
        host.begin("print('on')\nwhile True: pass")
        host.until(b"on\r\n")
        tasks = Path(f"/proc/{process.pid}/task")
        children = " ".join(listing.read_text() for listing in tasks.glob("*/children")).split()
        child = int(children[0]) if tasks.exists() else None
        process.kill()
        process.wait(60)
    if child is not None:
        until(lambda: ended(child))


def test_what_others_left_in_the_shared_folder_is_left_alone(camera, tmp_path, monkeypatch):
    """They may have planted it: a link to a folder of root's, under a name that is ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    planted = tmp_path / "romfsfs-simulator-planted"
    for folder in (victim, planted):
        folder.mkdir()
        (folder / "file").write_text("precious")
        os.utime(folder, (1, 1))
    (tmp_path / "romfsfs-simulator-link").symlink_to(victim)
    camera()
    assert (planted / "file").read_text() == (victim / "file").read_text() == "precious"
