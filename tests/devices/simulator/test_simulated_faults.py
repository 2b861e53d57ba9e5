"""What goes wrong with a simulated camera, and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import time

import pytest
import serial

from romfsfs.simulator import TO_CAMERA, TO_HOST, Statistics

WRITE = "import vfs\nprint(vfs.rom_ioctl(4, 0, {offset}, bytes({size})))"


def gone(host) -> bool:
    """Does the port behave as one whose cable was pulled?"""
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            host.serial.read(1)
    except (serial.SerialException, OSError):
        return True
    return False


def test_a_power_cut_leaves_exactly_what_was_programmed(camera, connect):
    simulator = camera(main_script="print('up')")
    host = connect(simulator)
    simulator.faults.power_cut_after_programmed(5001)
    host.leave(WRITE.format(offset=100, size=20000))
    assert gone(host)
    assert not simulator.plugged
    assert not os.path.lexists(simulator.port)
    content = simulator.flash[0].content
    assert content == b"\xff" * 100 + bytes(5001) + b"\xff" * (len(content) - 5101)
    simulator.replug()
    host = connect(simulator)
    assert host.value("bytes(__import__('vfs').rom_ioctl(2, 0)[5099:5103])") == b"\0\0\xff\xff"
    assert host.run(WRITE.format(offset=6000, size=6000)) == b"0\r\n", "one cut is one cut"


def test_a_power_cut_while_erasing_leaves_a_block_half_erased(camera, connect):
    simulator = camera()
    simulator.flash[0].load(bytes(16384))
    host = connect(simulator)
    simulator.faults.power_cut_after_erased(4096 + 1000)
    host.leave("import vfs\nvfs.rom_ioctl(3, 0, 16384)")
    assert gone(host)
    content = simulator.flash[0].content
    assert content[: 4096 + 1000] == b"\xff" * 5096
    half = content[5096:8192]
    assert half not in (bytes(len(half)), b"\xff" * len(half))
    assert content[8192:16384] == bytes(8192)
    assert simulator.statistics.erased_blocks == 2


@pytest.mark.parametrize("count", [1, 60, 300])
def test_the_power_may_go_at_any_byte_on_the_wire(camera, connect, count):
    simulator = camera()
    host = connect(simulator)
    before = simulator.statistics.wire_in + simulator.statistics.wire_out
    simulator.faults.cut_after_wire_bytes(count)
    host.send(b"print('x' * 200)" + b" " * 100 + b"\x04")
    assert gone(host)
    after = simulator.statistics.wire_in + simulator.statistics.wire_out
    assert after - before == count
    simulator.replug()
    assert connect(simulator).value("1") == 1


def test_a_stuck_block_answers_well_and_does_not_change(camera, connect):
    simulator = camera()
    simulator.flash[0].load(b"\x55" * 12288)
    host = connect(simulator)
    simulator.faults.stuck_block(1, on="both")
    host.run("import vfs")
    assert host.value("vfs.rom_ioctl(3, 0, 12288)") == 4
    assert host.value("vfs.rom_ioctl(4, 0, 0, bytes(12288))") == 0
    assert simulator.flash[0].content[:12288] == bytes(4096) + b"\x55" * 4096 + bytes(4096)
    simulator.faults.clear()
    assert host.value("vfs.rom_ioctl(4, 0, 4096, bytes(4))") == 0
    assert simulator.flash[0].read(4094, 8) == bytes(6) + b"\x55\x55"


def test_chosen_calls_fail_with_a_negative_answer(camera, connect):
    simulator = camera()
    host = connect(simulator)
    simulator.faults.fail_ioctl(nth=2, command=4, answer=-5, count=2)
    answers = [int(host.run(WRITE.format(offset=n * 16, size=16))) for n in range(5)]
    assert answers == [0, -5, -5, 0, 0]
    assert simulator.flash[0].content[:80] == bytes(16) + b"\xff" * 32 + bytes(32)
    simulator.faults.fail_ioctl(answer=-110)
    assert host.value("vfs.rom_ioctl(3, 0, 1), vfs.rom_ioctl(3, 0, 1)") == (-110, 4)


def test_bytes_are_garbled_and_lost_in_either_direction(camera, connect):
    simulator = camera()
    host = connect(simulator)
    simulator.faults.garble(TO_HOST, 3, mask=0x01)
    assert host.run("print('abcd')") == b"a" + b"c" + b"cd\r\n"
    simulator.faults.lose(TO_HOST, 4)
    assert host.run("print('abcd')") == b"abd\r\n"
    simulator.faults.garble(TO_CAMERA, 7, mask=0x20)
    assert host.run("print('abcd')") == b"Abcd\r\n"
    simulator.faults.lose(TO_CAMERA, 7)
    assert host.run("print('abcd')") == b"bcd\r\n"


def test_a_silent_camera_keeps_its_port(camera, connect):
    simulator = camera()
    host = connect(simulator)
    simulator.silence()
    host.send(b"print(1)\x04\x03")
    assert host.quiet(0.3)
    simulator.replug()
    assert gone(host)
    assert connect(simulator).value("1") == 1


def test_a_camera_that_resets_itself_comes_back(camera, connect):
    simulator = camera(reset_seconds=0.1, main_script="import machine")
    host = connect(simulator)
    host.leave("import machine\nmachine.reset()")
    assert gone(host)
    simulator.wait_until(lambda camera: camera.plugged)
    host = connect(simulator)
    assert simulator.statistics.power_ups == 2
    host.leave("import machine\nmachine.bootloader()")
    assert gone(host)
    time.sleep(0.2)
    assert not simulator.plugged
    simulator.replug()
    host = connect(simulator)
    host.begin("import machine\nmachine.soft_reset()")
    assert host.until(b"exit\r\n>").endswith(b"MPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>")


def test_the_camera_dies_while_it_prints(camera, connect):
    simulator = camera(main_script="while True: print('x' * 1000)")
    host = connect(simulator, raw=False)
    host.read(20000)
    simulator.unplug()
    simulator.unplug()
    assert gone(host)


def test_nothing_of_before_comes_after_power_was_gone(camera, connect):
    simulator = camera(main_script="print('started')\nwhile True: print('x' * 100)", rate=20_000)
    simulator.wait_until(lambda camera: len(camera._camera._tx) > 0)
    simulator.unplug()
    simulator.replug()
    assert connect(simulator, raw=False).read(7) == b"started"


def test_a_new_camera_has_seen_nothing():
    assert not any(vars(Statistics()).values())


def crash(simulator) -> None:
    """What an asynchronous KeyboardInterrupt does to MicroPython for Linux now and then."""
    os.kill(simulator._camera._executor._process.pid, signal.SIGSEGV)


def test_micropython_that_ctrl_c_tore_apart_starts_again(camera, connect):
    """A camera cannot be torn apart so; it would answer."""
    simulator = camera(main_script="print('up')")
    host = connect(simulator)
    host.begin("print('on')\nwhile True: pass")
    host.until(b"on\r\n")  # before it begins, Ctrl-C may be lost
    host.send(b"\x03")
    assert b"KeyboardInterrupt" in host.finish()[1]
    host.begin("while True: pass")
    crash(simulator)
    host.until(b"MPY: soft reboot\r\n")
    host.until(b"raw REPL; CTRL-B to exit\r\n>")
    assert host.value("1 + 1") == 2
    assert simulator.statistics.soft_resets == 1


def test_micropython_that_crashed_by_itself_is_a_camera_that_hangs(camera, connect):
    simulator = camera()
    host = connect(simulator, raw=False)
    host.send(b"\r")  # opening a port throws away what was said before
    host.until(b">>> ")
    host.enter_raw()
    host.begin("while True: pass")
    crash(simulator)
    simulator.wait_until(lambda camera: camera.silent)
    host.send(b"\x03\r\x03\x01")
    assert host.quiet(0.3)
