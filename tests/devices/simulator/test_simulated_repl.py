"""The simulated camera's REPL, byte for byte what MicroPython's `pyexec.c` does."""

from __future__ import annotations

import time

BANNER = (
    b"MicroPython v1.25.0 on 2025-07-01; OPENMV4P with STM32H743\r\n"
    b'Type "help()" for more information.\r\n>>> '
)


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
    host.send(b"\x05x = 'pasted'\rprint(x)\r\x04")
    assert host.until(b">>> ").endswith(b"\r\npasted\r\n>>> ")
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


def test_firmware_without_raw_paste_restarts_the_raw_repl(camera, connect):
    host = connect(camera(raw_paste=False))
    host.send(b"\x05A\x01")
    assert host.until(b">") == b"raw REPL; CTRL-B to exit\r\n>"


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
        "import time\nfor i in range(3):\n try:\n  while True: time.sleep_ms(1)\n"
        " except KeyboardInterrupt: print('no', i)\n"
    )
    host = connect(camera(main_script=script), raw=False)
    for number in range(3):
        time.sleep(0.05)
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
    assert host.value("os.listdir('/')") == []
    assert host.value("sys.path") == ["", ".frozen", "/rom", "/rom/lib"]


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
