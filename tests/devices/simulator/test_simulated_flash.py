"""The flash of the simulated boards: what `rom_ioctl` does and answers on each kind."""

from __future__ import annotations

import random
import time

import pytest

from romfsfs.errors import UsageError
from romfsfs.simulator import PartitionConfig, Simulator, preset, preset_names

#: a ROMFS image with the one file `a.txt`
IMAGE = b"\xd2\xcd\x31\x10" + b"\x05\x0e" + b"\x05a.txt" + b"\x02\x06" + b"hello!"


def test_erasing_sets_and_programming_only_clears_bits(camera, connect):
    simulator = camera()
    host = connect(simulator)
    host.run("import vfs")
    assert host.value("vfs.rom_ioctl(1), len(vfs.rom_ioctl(2, 0))") == (1, 8 << 20)
    assert host.value("vfs.rom_ioctl(6, 0)") == 4096
    assert host.value("vfs.rom_ioctl(3, 0, 5000)") == 4
    assert simulator.statistics.erase_counts == {(0, 0): 1, (0, 1): 1}
    assert host.value("vfs.rom_ioctl(4, 0, 4094, b'\\xf0\\x0f\\xaa\\x55')") == 0
    assert host.value("vfs.rom_ioctl(4, 0, 4094, b'\\x3c\\x3c\\xff\\x00')") == 0
    assert simulator.flash[0].read(4092, 8) == b"\xff\xff\x30\x0c\xaa\x00\xff\xff"
    assert simulator.statistics.bad_programs == 2  # page by page, and it crossed one
    # the memory map is live, and an erase by range takes whole blocks
    host.run("m = vfs.rom_ioctl(2, 0)")
    assert host.value("bytes(m[4094:4098])") == b"\x30\x0c\xaa\x00"
    assert host.value("vfs.rom_ioctl(3, 0, 4096, 1)") == 4
    assert host.value("bytes(m[4094:4098])") == b"\x30\x0c\xff\xff"


def test_wrong_calls_are_answered_with_a_negative_number(camera, connect):
    simulator = camera()
    host = connect(simulator)
    host.run("import vfs")
    for call in (
        "5, 0",
        "2, 1",
        "3, 0",
        "3, 0, (8 << 20) + 1",
        "3, 0, 4096, 8 << 20",
        "4, 0, (8 << 20) - 1, b'ab'",
        "4, 0, 0",
        "7, 0",
        "6",
    ):
        assert host.value(f"vfs.rom_ioctl({call})") == -22, call
    assert simulator.statistics.erased_blocks == simulator.statistics.programmed == 0


def test_older_firmware_erases_the_start_when_asked_for_a_range(camera, connect):
    simulator = camera(erase_by_range=False)
    simulator.flash[0].load(bytes(16384))
    host = connect(simulator)
    host.run("import vfs")
    assert host.value("vfs.rom_ioctl(6, 0)") == -22
    assert host.value("vfs.rom_ioctl(3, 0, 8192, 4096)") == 4
    assert simulator.flash[0].content[:16384] == b"\xff" * 8192 + bytes(8192)


@pytest.mark.parametrize(("board", "word"), [("OPENMV2", 16), ("OPENMV4", 32)])
def test_internal_flash_erases_as_a_whole_and_takes_whole_words(camera, connect, board, word):
    """The H7 refuses what does not begin with a word, and fills up one that is short."""
    simulator = camera(board)
    host = connect(simulator)
    host.run("import vfs")
    size = simulator.config.partitions[0].size
    assert host.value("vfs.rom_ioctl(6, 0)") == size
    assert host.value("vfs.rom_ioctl(3, 0, 1)") == 16
    assert simulator.statistics.erased_blocks == 1
    assert host.value(f"vfs.rom_ioctl(4, 0, 0, bytes({2 * word + 9}))") == 0
    tail = bytes(9).ljust(word, b"\xff") if word == 32 else b"\xff" * word
    assert simulator.flash[0].read(0, 3 * word) == bytes(2 * word) + tail
    assert simulator.statistics.dropped_tails == 1
    answer = host.value(f"vfs.rom_ioctl(4, 0, {4 * word + 16}, bytes(16))")
    assert answer == (-5 if word == 32 else 0)


@pytest.mark.parametrize("board", ["OPENMV3", "OPENMV4"])
def test_an_m7_reads_its_internal_flash_as_its_cache_has_it(camera, connect, board):
    """Also what was never read, which is less kind than a cache of 16 KiB."""
    host = connect(camera(board, images={0: IMAGE}))
    host.run("import vfs, uctypes, machine\np = vfs.rom_ioctl(2, 0)\na = uctypes.addressof(p)")
    assert host.value("vfs.rom_ioctl(3, 0, 1), vfs.rom_ioctl(4, 0, 0, b'new!' * 16)") == (16, 0)
    assert host.value("bytes(p[:4])") == IMAGE[:4]
    host.run("machine.mem32[0xe000ef70] = a + 33\nmachine.mem32[0xe000ef60] = a")
    assert host.value("bytes(p[:4]), bytes(p[32:64])") == (IMAGE[:4], b"new!" * 8)
    host.run("machine.mem32[0xe000ef70] = a")
    assert host.value("bytes(p[:64])") == b"new!" * 16


def test_mram_needs_no_erase_and_writes_whole_words(camera, connect):
    simulator = camera("OPENMV_AE3")
    host = connect(simulator)
    host.run("import vfs")
    assert host.value("vfs.rom_ioctl(1), len(vfs.rom_ioctl(2, 1))") == (2, 1 << 20)
    host.run("import machine\nstate = machine.disable_irq()")
    for data in (b"\x00" * 16, b"\xa5" * 16):
        assert host.value(f"vfs.rom_ioctl(4, 1, 32, {data!r})") == 0
        assert simulator.flash[1].read(32, 16) == data
    assert host.value("vfs.rom_ioctl(3, 1, 64)") == 16
    assert simulator.flash[1].read(32, 16) == b"\xa5" * 16
    assert simulator.statistics.erased_blocks == 0
    host.run("vfs.rom_ioctl(4, 1, 0, bytes(4))")
    assert simulator.flash[1].read(0, 4) == bytes(4)
    assert simulator.flash[1].read(4, 12) != bytes(12), "a short word takes what lies behind it"
    assert host.value("machine.enable_irq(state), vfs.rom_ioctl(4, 0, 0, bytes(4))")[1] == 0
    host.begin("vfs.rom_ioctl(4, 1, 32, bytes(16))")
    simulator.wait_until(lambda each: each.silent)
    assert simulator.flash[1].read(32, 16) == b"\xa5" * 16, "an interrupt came"


def test_rt1060_hands_out_a_block_device(camera, connect):
    simulator = camera("OPENMV_RT1060", images={0: IMAGE})
    host = connect(simulator)
    host.run("import vfs, os\nd = vfs.rom_ioctl(2, 0)")
    assert host.value("d.ioctl(4, 0), d.ioctl(5, 0)") == (2048, 4096)
    assert host.value("vfs.rom_ioctl(3, 0, 4096), vfs.rom_ioctl(6, 0)") == (-22, -22)
    assert host.value("os.listdir('/rom')") == ["a.txt"]
    assert host.value("d.ioctl(6, 1)") == 0
    host.run("d.writeblocks(1, b'abcd', 4)\nb = bytearray(10)\nd.readblocks(1, b, 0)")
    assert host.value("b") == b"\xff\xff\xff\xffabcd\xff\xff"
    host.run("d.writeblocks(1, b'xy')")  # without an offset it erases by itself
    assert simulator.flash[0].read(4096, 10) == b"xy" + b"\xff" * 8
    assert host.value("bytes(memoryview(d)[:4])") == IMAGE[:4]
    simulator.faults.fail_ioctl(command=103)
    assert host.value("d.ioctl(6, 1)") == 1
    simulator.faults.fail_ioctl(command=104)
    host.begin("d.writeblocks(1, b'xy', 0)")
    assert b"OSError: flash block write command failed" in host.finish()[1]


def test_reading_the_tail_of_an_h7_plus_hangs_it(camera, connect):
    simulator = camera("OPENMV4P", images={0: IMAGE})
    host = connect(simulator)
    host.run("import vfs\nm = vfs.rom_ioctl(2, 0)")
    assert host.value("len(bytes(m[-4096:-512]))") == 4096 - 512
    host.begin("print('last words')\nm[-512]")
    host.until(b"last words\r\n")
    simulator.wait_until(lambda camera: camera.silent)
    host.send(b"\x03\r\x03\x01")
    assert host.quiet(0.3)
    simulator.replug()
    assert connect(simulator).value("bytes(__import__('vfs').rom_ioctl(2, 0)[:2])") == IMAGE[:2]


def test_an_image_is_mounted_at_boot_with_the_real_reader(camera, connect):
    simulator = camera(images={0: IMAGE})
    host = connect(simulator)
    host.run("import os, vfs")
    assert host.value("os.listdir('/rom'), open('/rom/a.txt').read()") == (["a.txt"], "hello!")
    host.run("vfs.umount('/rom')\nvfs.rom_ioctl(3, 0, 4096)")
    host.send(b"\x04")
    host.until(b"exit\r\n>")
    assert host.value("__import__('os').listdir('/')") == ["flash"]
    host.run(f"import vfs, os\nvfs.rom_ioctl(4, 0, 0, {IMAGE!r})")
    host.send(b"\x04")
    host.until(b"exit\r\n>")
    assert host.value("__import__('os').listdir('/rom')") == ["a.txt"]


def test_an_image_of_8_mib_is_taken_as_it_comes(camera, connect):
    simulator = camera("OPENMVPT")
    host = connect(simulator)
    data = random.Random(8).randbytes(8 << 20)
    started = time.process_time()
    host.run("import vfs, sys, micropython\nvfs.rom_ioctl(3, 0, 8 << 20)")
    host.begin(
        "micropython.kbd_intr(-1)\nb = bytearray(4096)\nprint('on')\n"
        "for offset in range(0, 8 << 20, 4096):\n"
        " sys.stdin.buffer.readinto(b)\n"
        " if vfs.rom_ioctl(4, 0, offset, b): raise OSError\n"
    )
    host.until(b"on\r\n")
    for start in range(0, len(data), 65536):
        host.send(data[start : start + 65536])
    assert host.finish() == (b"", b"")
    assert time.process_time() - started < 30
    assert simulator.flash[0].content == data
    assert simulator.statistics.programmed == 8 << 20
    assert simulator.statistics.wire_in > 8 << 20


def test_erasing_takes_its_time_and_is_not_interrupted(camera, connect):
    simulator = camera(erase_seconds=0.02)
    host = connect(simulator)
    started = time.monotonic()
    host.begin("import vfs\nprint(vfs.rom_ioctl(3, 0, 20 * 4096))")
    simulator.wait_until(lambda camera: camera.statistics.erased_blocks > 2)
    host.send(b"\x03")
    output, error = host.finish()
    assert 0.38 < time.monotonic() - started < 30
    assert simulator.statistics.erased_blocks == 20
    assert b"KeyboardInterrupt" in error or output == b"4\r\n"


def test_a_flash_file_keeps_the_content(camera, connect, micropython, tmp_path):
    path = tmp_path / "flash"
    path.write_bytes(IMAGE)
    for _ in range(2):
        with Simulator(preset("OPENMV4"), flash_file=path, micropython=micropython) as simulator:
            host = connect(simulator)
            assert host.value("__import__('os').listdir('/rom')") == ["a.txt"]
            host.run("import vfs\nvfs.rom_ioctl(4, 0, 64, bytes(32))")
    content = path.read_bytes()
    assert len(content) == 128 * 1024
    assert content[:97] == IMAGE.ljust(64, b"\xff") + bytes(32) + b"\xff"


def test_every_board_starts(camera, connect):
    for board in preset_names():
        host = connect(camera(board.lower()))
        count = len(preset(board).partitions)
        assert host.value("__import__('vfs').rom_ioctl(1)") == count


def test_unknown_boards_are_a_usage_error():
    with pytest.raises(UsageError, match="no board OPENMV9"):
        preset("OPENMV9")
    changed = preset("OPENMV2", partitions=(PartitionConfig(8192),))
    assert changed.partitions[0].erase_size == 4096
