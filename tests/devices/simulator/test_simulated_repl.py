"""The simulated camera's REPL, byte for byte what MicroPython's `pyexec.c` does."""

from __future__ import annotations

import pytest
from ota_slots import marker, one_slot, two_slots

from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import PartitionConfig

BANNER = (
    b"MicroPython v1.25.0 on 2025-07-01; OPENMV4P with STM32H743\r\n"
    b'Type "help()" for more information.\r\n>>> '
)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("1 + \\", "1", "2"), ("(1,", "2)", "(1, 2)"), ("[1,", "2]", "[1, 2]"),
        ("{1:", "2}", "{1: 2}"), ('"""a', 'b"""', r"'a\nb'"), ("'''a", "b'''", r"'a\nb'"),
    ],
)  # fmt: skip
def test_an_input_of_two_lines(camera, connect, first, second, said):
    host = connect(camera(), raw=False)
    host.send(b"\x02")
    host.until(b">>> ")
    host.send(f"{first}\r".encode())
    host.until(b"... ")
    host.send(f"{second}\r".encode())
    assert host.until(b">>> ") == f"{second}\r\n{said}\r\n>>> ".encode()


def test_a_user_types_at_the_prompt_and_is_echoed(camera, connect):
    host = connect(camera(), raw=False)
    host.send(b"\x02")
    host.until(b"\r\n" + BANNER)
    host.send(b"1 +x\x08 1\r")
    assert host.until(b">>> ") == b"1 +x\x08 \x08 1\r\n2\r\n>>> "
    host.send(b"for i in range(2):\r")
    host.until(b"... ")
    host.send(b" print(i)\r")
    host.until(b"... ")
    host.send(b"\r")
    assert host.until(b">>> ") == b"\r\n0\r\n1\r\n>>> "
    host.send(b"half a line\x03")
    assert host.until(b">>> ").endswith(b"half a line\r\n>>> ")
    host.send(b"1/0\r")
    assert b"ZeroDivisionError: divide by zero\r\n" in host.until(b">>> ")
    host.send(b"\x04")
    assert host.until(b">>> ") == b"\r\nMPY: soft reboot\r\n" + BANNER


def test_snippets_share_their_globals_until_a_soft_reset(camera, connect):
    host = connect(camera())
    assert host.run("import sys\nx = 41\nprint(x)\nsys.stdout.write('a\\n')") == b"41\r\na\r\n"
    assert host.value("x + 1") == 42
    host.send(b"\x04")
    assert host.until(b"CTRL-B to exit\r\n>") == (
        b"OK\r\nMPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>"
    )
    host.begin("x")
    assert host.finish()[1] == (
        b"Traceback (most recent call last):\r\n"
        b'  File "<stdin>", line 1, in <module>\r\n'
        b"NameError: name 'x' isn't defined\r\n"
    )
    host.send(b"\x02")
    assert host.until(b">>> ") == b"\r\n" + BANNER


def test_what_micropython_cannot_compile_is_an_error_of_the_snippet(camera, connect):
    host = connect(camera())
    host.begin("match x:\n case 1: pass")
    assert b"SyntaxError: invalid syntax" in host.finish()[1]
    host.begin("import threading")
    assert b"ImportError: no module named 'threading'" in host.finish()[1]
    host.begin("def f():\n  raise ValueError(3)\nf()")
    assert host.finish()[1].splitlines()[1:3] == [
        b'  File "<stdin>", line 3, in <module>',
        b'  File "<stdin>", line 2, in f',
    ]


def test_raw_paste_tells_the_host_how_much_it_may_send(camera, connect):
    host = connect(camera())
    source = b"x = '" + b"a" * 600 + b"'\nprint(len(x))"
    host.send(b"\x05A\x01")
    assert host.read(5) == b"R\x01\x80\x00\x01"
    window = 256
    while source:
        host.send(source[:window])
        source = source[window:]
        if source:
            assert host.read(1) == b"\x01"
            window = 128
    host.send(b"\x04")
    assert host.until(b">").lstrip(b"\x01") == b"\x04600\r\n\x04\x04>"
    host.send(b"\x05A\x01")
    host.read(5)
    host.send(b"while True: pass\x03")
    assert host.until(b">").startswith(b"\x04\x04Traceback")
    host.send(b"\x05B\x01")
    assert host.read(3) == b"R\x00>"


def test_ctrl_c_ends_a_snippet_and_is_data_after_kbd_intr(camera, connect):
    simulator = camera()
    host = connect(simulator)
    host.begin("print('on')\nwhile True: pass")
    host.until(b"on\r\n")
    host.send(b"\x03")
    assert host.finish()[1].endswith(b"KeyboardInterrupt: \r\n")
    host.begin(
        "import sys, micropython\nmicropython.kbd_intr(-1)\nprint('on')\n"
        "data = sys.stdin.buffer.read(6)\nprint(data)\n"
    )
    host.until(b"on\r\n")
    host.send(b"\x01\x03\x04\x00\r\n")
    assert host.finish() == (b"b'\\x01\\x03\\x04\\x00\\r\\n'\r\n", b"")
    # the next snippet can be interrupted again
    host.begin("import time\nprint('on')\ntime.sleep(60)")
    host.until(b"on\r\n")
    host.send(b"\x03\x03\x03\x03")
    assert host.finish()[1].endswith(b"KeyboardInterrupt: \r\n")
    assert simulator.statistics.interrupts >= 2


def test_input_that_a_snippet_leaves_goes_to_the_repl(camera, connect):
    host = connect(camera())
    host.begin("import sys\nprint('on')\nprint(sys.stdin.readline())")
    host.until(b"on\r\n")
    host.send(b"a line\rprint('next')\x04")
    assert host.finish()[0] == b"a line\r\n\r\n"
    assert host.until(b">") == b"OKnext\r\n\x04\x04>"


def test_interrupts_in_quick_succession_lose_no_snippet(camera, connect):
    host = connect(camera())
    for number in range(40):
        host.begin(f"print({number})\nfor i in range({number * 300}): pass")
        host.send(b"\x03")
        output, error = host.finish()
        assert error.endswith(b"KeyboardInterrupt: \r\n") or not error
        assert output in (b"", f"{number}\r\n".encode())
    assert host.value("6 * 7") == 42


def test_an_error_is_not_put_where_the_next_snippet_comes(camera, connect):
    """A Ctrl-C that comes at its end may have it put once more, when the next one is there."""
    simulator = camera()
    host = connect(simulator)
    host.begin("1/0")
    assert host.finish()[1].endswith(b"ZeroDivisionError: divide by zero\r\n")
    assert simulator._camera._executor.scratch(3) == b"1/0"


def test_a_script_that_prints_holds_the_port_until_ctrl_c(camera, connect):
    simulator = camera(
        boot_script="print('boot.py')",
        main_script="import time\nwhile True:\n print('frame')\n time.sleep_ms(1)",
    )
    host = connect(simulator, raw=False)
    host.until(b"frame\r\nframe\r\n")
    host.send(b"\r\x03")
    assert b"KeyboardInterrupt" in host.until(b">>> ")
    host.enter_raw()
    host.send(b"\x04")
    assert host.until(b"exit\r\n>").startswith(b"OK\r\nMPY: soft reboot\r\nboot.py\r\nraw REPL")


def test_a_script_may_ignore_ctrl_c_for_a_while(camera, connect):
    script = (
        "import time\nfor i in range(3):\n try:\n  while True:\n   print('on', i)\n"
        "   time.sleep_ms(20)\n except KeyboardInterrupt: print('no', i)\n"
    )
    host = connect(camera(main_script=script), raw=False)
    for number in range(3):
        host.until(b"on %d\r\n" % number * 2)  # for two together it ends but once
        host.send(b"\x03")
        host.until(b"no %d\r\n" % number)
    host.until(b">>> ")


def test_the_firmware_says_what_camera_it_is(camera, connect):
    host = connect(camera("OPENMV_N6"))
    host.run("import sys, os, omv, machine, vfs")
    assert host.value("sys.implementation._machine") == "OpenMV N6 with STM32N657X0"
    assert host.value("sys.implementation[3] & 0xff, os.uname().release") == (6, "1.25.0")
    assert host.value("omv.arch(), omv.board_type()") == ("OpenMV N6", "N6")
    assert len(host.value("machine.unique_id()")) == 12
    assert host.value("os.listdir('/'), os.getcwd()") == (["flash"], "/flash")
    assert host.value("sys.path") == ["", ".frozen", "/rom", "/rom/lib", "/flash", "/flash/lib"]


def test_firmware_may_lack_modules_and_binary_streams(camera, connect):
    host = connect(camera("OPENMV2", missing=("hashlib", "binascii.crc32", "deflate")))
    host.run("import sys, binascii")
    assert host.value("hasattr(sys.stdin, 'buffer') or hasattr(sys.stdout, 'buffer')") is False
    assert host.value("hasattr(binascii, 'crc32'), hasattr(binascii, 'hexlify')") == (False, True)
    host.begin("import hashlib")
    assert host.finish()[1].endswith(b"ImportError: no module named 'hashlib'\r\n")
    host.begin("from binascii import crc32")
    assert b"ImportError" in host.finish()[1]
    host.begin("bytearray(1000000)")
    assert b"MemoryError" in host.finish()[1]
    assert host.value("1 + 1") == 2


def test_a_host_at_the_ide_s_rate_finds_no_repl(camera, connect):
    simulator = camera()
    host = connect(simulator, raw=False, baudrate=921600)
    host.send(b"\r\x03\r\x01")
    assert host.quiet(0.3)
    assert connect(simulator).value("2 + 2") == 4


def test_files_hide_modules_of_the_firmware_as_on_the_camera(camera, connect):
    """Those of the same name, not the u name, nor those that no file can hide."""
    files = {f"{name}.py": b"mine = 1\n" for name in ("binascii", "os", "machine", "vfs", "sys")}
    host = connect(camera(flash_files=files | {"lib/helper.py": b"value = 7\n"}))
    host.run("import binascii, os, machine, vfs, sys, ubinascii, uos, umachine, helper")
    assert host.value("binascii.mine, os.mine, machine.mine, helper.value") == (1, 1, 1, 7)
    assert host.value("hasattr(vfs, 'mine'), hasattr(sys, 'mine')") == (False, False)
    assert host.value("ubinascii.hexlify(b'a'), uos.getcwd()") == (b"61", "/flash")
    assert host.value("len(umachine.unique_id())") == 12


def started(connect, simulator, before=0):
    """What the scripts that ran at power-up have left in `started`; they print nothing."""
    simulator.wait_until(lambda camera: camera.statistics.wire_out >= before + len(BANNER) - 30)
    host = connect(simulator)
    found = host.value("started, __import__('os').getcwd(), __import__('sys').path[4:]")
    host.serial.close()
    return found


@pytest.mark.parametrize("card", [None, {"main.py": b"started = 'card'\n"}])
def test_the_current_folder_s_main_py_starts_and_rom_s_does_not(camera, connect, card):
    """The SD card's where there is one; `_boot.py` sets the rest."""
    rom = encode({"main.py": b"started = 'rom'\n", "app.py": b"name = 'app'\n"}, DEFAULT_RULES)
    simulator = camera(images={0: rom}, sd_files=card, main_script="import app\nstarted = app.name")
    folders = ["/flash", "/flash/lib", *(["/sdcard", "/sdcard/lib"] if card else [])]
    assert started(connect, simulator) == ("card" if card else "app", folders[-2], folders)


@pytest.mark.parametrize(("newer", "older"), ["AB", "BA"])
def test_openmv_ota_s_firmware_starts_the_newer_slot_that_is_whole(camera, connect, newer, older):
    """A byte changed in it, and the other one starts."""
    size = 256 * 1024
    a, b = (encode({"main.py": b"started = '%s'\n" % name}, DEFAULT_RULES) for name in (b"A", b"B"))
    image = two_slots(size, a, b, newer=newer)
    simulator = camera(partitions=(PartitionConfig(size),), images={0: image}, runs_rom=True)
    assert started(connect, simulator)[:2] == (newer, "/rom")
    place = image.index(b"'%s'" % newer.encode())
    simulator.flash[0].load(image[:place] + b'"' + image[place + 1 :])
    before = simulator.statistics.wire_out
    simulator.replug()
    assert started(connect, simulator, before)[0] == older


ROM = encode({"main.py": b"started = 'rom'\n"}, DEFAULT_RULES)
H7 = one_slot(128 * 1024, ROM, stride=32)


def changed(content, at, data):
    return content[:at] + data + content[at + len(data) :]


@pytest.mark.parametrize(
    ("board", "content", "starts"),
    [
        ("OPENMV2", one_slot(128 * 1024, ROM), True),
        ("OPENMV4", H7, True),
        ("OPENMV4", one_slot(128 * 1024, ROM), False),  # its records are 32 bytes apart
        ("OPENMV4", changed(H7, 120 * 1024 + 128, b"\xff" * 8), True),  # without a counter
        ("OPENMV4", changed(H7, 120 * 1024 + 64, b"\xff" * 16), False),  # not confirmed
        ("OPENMV4", changed(H7, 120 * 1024, marker(b"pending") + b"\xff" * 64), True),
        ("OPENMV4", changed(H7, 124 * 1024 + 100, b"?"), False),  # its CRC
        ("OPENMV4", changed(H7, 124 * 1024 + 4, b"\1"), False),
        ("OPENMV4", ROM, False),
        ("OPENMV4P", one_slot(8 << 20, ROM), False),  # where it looks for two
    ],
)
def test_what_openmv_ota_s_firmware_starts(camera, connect, board, content, starts):
    """OPENMV2 to OPENMV4 have one slot, over all of the partition."""
    simulator = camera(board, images={0: content}, runs_rom=True)
    simulator.wait_until(lambda each: each.statistics.wire_out > 0)
    found = connect(simulator).value("globals().get('started'), __import__('os').listdir('/')")
    assert (found[0] == "rom", "rom" in found[1]) == (starts, starts)


def test_what_a_script_writes_to_flash_is_there_after_power_was_off(camera, connect):
    simulator = camera()
    host = connect(simulator)
    host.run("with open('/flash/count.txt', 'w') as file: file.write('3')")
    host.serial.close()
    simulator.replug()
    assert connect(simulator).value("open('count.txt').read()") == "3"


def test_ctrl_c_behind_the_bytes_of_a_packet_interrupts(camera, connect):
    """Seen where the port's packets are taken, not where they are read; TinyUSB's handler empties
    the ring with it."""
    for usb, left in (("tinyusb", b"tail"), ("stm32", b"headtail")):
        host = connect(camera(usb=usb))
        host.begin(
            "import sys, time\ntry:\n print('on')\n time.sleep(20)\n"
            "except KeyboardInterrupt: print('stopped')\n"
            f"print(sys.stdin.buffer.read({len(left)}))"
        )
        host.until(b"on\r\n")
        host.send(b"head\x03tail")
        assert host.until(b"stopped\r\n")
        assert host.finish()[0] == repr(left).encode() + b"\r\n"


def test_a_full_ring_keeps_ctrl_c_out(camera, connect):
    """512 bytes that a script does not read; as soon as it reads some, the Ctrl-C gets in."""
    simulator = camera(byte_seconds=0.001)
    host = connect(simulator)
    host.begin("import sys, time\nprint('on')\ntime.sleep(1)\nprint('awake')\nsys.stdin.read(9999)")
    host.until(b"on\r\n")
    host.send(b"x" * 600 + b"\x03")
    assert host.until(b"awake\r\n") == b"awake\r\n"
    assert host.finish()[1].endswith(b"KeyboardInterrupt: \r\n")


def test_reading_binary_input_waits_for_all_of_it(camera, connect):
    """Whatever poll says."""
    host = connect(camera())
    host.begin(
        "import sys, select\np = select.poll()\np.register(sys.stdin, 1)\nb = bytearray(10)\n"
        "print('on')\np.poll(10000)\nprint('there')\nprint(sys.stdin.buffer.readinto(b), bytes(b))"
    )
    host.until(b"on\r\n")
    host.send(b"12345")
    host.until(b"there\r\n")
    assert host.quiet(0.3)
    host.send(b"67890")
    assert host.finish() == (b"10 b'1234567890'\r\n", b"")
