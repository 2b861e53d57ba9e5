"""Plain values of conversions, compared as a whole: what is chosen, counted, said of tools."""

from __future__ import annotations

import signal
import warnings
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.convert import (
    Excludes,
    FileOptions,
    Options,
    Rule,
    State,
    Target,
    admit,
    mpy,
    script_text,
)
from romfsfs.convert.admission.models import mebibytes
from romfsfs.convert.options import (
    DEFAULT_TIMEOUT_SECONDS,
    OptionError,
    checked,
    described,
    difference,
    profile_file,
)
from romfsfs.convert.script_text import excerpt, name_escape, text_problem
from romfsfs.convert.types import (
    Conversion,
    Diagnostic,
    Figures,
    Product,
    error,
    failure,
    info,
    time_out,
    warning,
)
from romfsfs.system.runner import Outcome


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (Figures(), ""),
        (Figures(npu=3), ""),
        (Figures(operators=3), ""),
        (Figures(1, 3), "1 of 3 operators on the NPU (33%)"),
        (Figures(3, 3), "3 of 3 operators on the NPU (100%)"),
        (Figures(0, 3), "3 operators, all on the CPU"),
        (Figures(0, 1), "1 operator, all on the CPU"),
        (Figures(0, 0), "0 operators, all on the CPU"),
        (Figures(sram=0, flash=1234), "0 B SRAM, 1,234 B flash"),
        (Figures(seconds=0.0), "an estimated 0 ms per inference"),
        (
            Figures(1, 2, 1 << 20, 5000, 0.01234),
            "1 of 2 operators on the NPU (50%), 1,048,576 B SRAM, 5,000 B flash, "
            "an estimated 12.3 ms per inference",
        ),
    ],
)
def test_the_figures_of_a_model(figures: Figures, text: str) -> None:
    assert figures.text == text


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (0, "", "tool made no file: it said nothing"),
        (3, "one\n\n two \n\n", "tool failed with exit status 3: two"),
        (-signal.SIGSEGV, "x", "tool was killed by SIGSEGV: x"),
        (-99, "", "tool was killed by signal 99: it said nothing"),
    ],
)
def test_how_a_tool_ended(status: int, output: str, said: str) -> None:
    outcome = Outcome(status, output, False, 1.0)
    assert failure("tool", outcome) == Diagnostic("error", "tool-failed", said, output)
    last = f"its last output: {outcome.last_line}" if outcome.last_line else "it said nothing"
    assert time_out("tool", outcome, 1.5) == Diagnostic(
        "error", "time-out", f"tool did not finish in 1.5 s and was stopped; {last}", output
    )


def test_diagnostics_are_lines_and_the_worst_is_shown() -> None:
    found = (info("a", "for\n your  information"), warning("b", "careful"), error("c", "no", "all"))
    assert found == (
        Diagnostic("info", "a", "for your information"), Diagnostic("warning", "b", "careful"),
        Diagnostic("error", "c", "no", "all"),
    )  # fmt: skip
    for count, message in enumerate(["", "for your information", "careful", "no"]):
        assert Conversion(State.READY, "x", diagnostics=found[:count]).message == message
        assert Product(None, found[:count]).failed == (count == 3)
    both = (warning("b", "first"), warning("b", "second"))
    assert Conversion(State.READY, "x", diagnostics=both).message == "first"


@pytest.mark.parametrize(
    ("board", "march", "architecture", "name"),
    [
        (None, None, None, "the camera"), (None, "armv6m", "armv6m", "the camera"),
        ("OPENMV2", None, "armv7emsp", "OPENMV2"), ("OPENMV2", "armv6m", "armv6m", "OPENMV2"),
    ],
)  # fmt: skip
def test_a_target(
    board: str | None, march: str | None, architecture: str | None, name: str
) -> None:
    target = Target(get_board(board) if board else None, march=march)
    assert (target.architecture, target.name) == (architecture, name)


@pytest.mark.parametrize(
    ("optimise", "strategy", "level"),
    [(None, "Performance", 3), ("Size", "Size", 3), (0, "Performance", 0)],
)
def test_each_tool_takes_what_is_meant_for_it(
    optimise: str | int | None, strategy: str, level: int
) -> None:
    options = FileOptions(optimise=optimise)
    assert (options.strategy, options.level) == (strategy, level)


@pytest.mark.parametrize(
    "values",
    [
        {}, {"convert": True}, {"convert": False}, {"optimise": "Performance"},
        {"optimise": "Size"}, {"optimise": 0}, {"optimise": 3}, {"align": 4}, {"align": 65536},
        {"profile": "n6"}, {"mpool": ""}, {"profile": "big@/a/n.json", "mpool": "/a/n.mpool"},
    ],
)  # fmt: skip
def test_values_that_can_be(values: dict[str, Any]) -> None:
    assert checked(values) == FileOptions(**values)
    assert checked(values).record() == values
    assert checked({"arguments": ["--a", ""]}) == FileOptions(arguments=("--a", ""))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("convert", 0, "convert is 0; it can be true or false"),
        ("optimise", -1, "optimise is -1; it can be 'Performance' or 'Size' (Vela), or 0 to 3 "
         "(ST Edge AI)"),
        ("align", 3, "align is 3; it can be a power of two from 4 to 65536"),
        ("arguments", "-a", "arguments is '-a'; it can be a list of strings, ['--option', "
         "'value']"),
        ("mpool", 1, "mpool is 1; it can be the name of a file"),
        ("profile", "a\0", "profile is 'a\\x00'; it can be the name of a profile, a file, or "
         "NAME@FILE"),
        ("aline", 4, "unknown option 'aline'; known are convert, optimise, profile, mpool, "
         "arguments, align"),
    ],
)  # fmt: skip
def test_what_is_said_of_values_that_cannot_be(name: str, value: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        checked({name: value})
    assert str(caught.value) == said


def test_profiles_and_files() -> None:
    shown = {text: profile_file(text) for text in ("", "n6", "n6@f", "a/b", "a.json", "n@a.json")}
    assert shown == {
        "": "", "n6": "", "n6@f": "f", "a/b": "a/b", "a.json": "a.json", "n@a.json": "a.json",
    }  # fmt: skip


def test_what_differs_in_words() -> None:
    old = described({"npu": "a", "system": "b", "none": ""})
    assert old == "npu=a; system=b"
    assert difference(old, old) == ""
    assert difference(old, "npu=c; more=x=y") == (
        "npu was a, is c; system was b, is not set; more was not set, is x=y"
    )
    assert difference("", "a=1") == "a was not set, is 1"


def test_options_are_asked_once_for_each_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    names = Rule.names

    def count(rule: Rule, path: str) -> bool:
        asked.append(path)
        return names(rule, path)

    monkeypatch.setattr(Rule, "names", count)
    options = Options((Rule("*.py", FileOptions(convert=False)),), "/tool", 7.0)
    for _ in range(2):
        assert options.for_path("a.py") == FileOptions(convert=False)
        assert options.for_path("a.txt") == FileOptions()
    assert asked == ["a.py", "a.txt"]
    assert Options().for_path("a.py") == FileOptions()
    first = Rule("*", FileOptions(align=8))
    assert options.over([first]) == Options((first, *options.rules), "/tool", 7.0)
    assert options.record() == {"rules": [["*.py", {"convert": False}]], "stedgeai": "/tool"}
    assert Options.from_record(options.record()) == Options(
        options.rules, "/tool", DEFAULT_TIMEOUT_SECONDS
    )
    later = options.extended(Options((first,), None, 9.0))
    assert later == Options((*options.rules, first), "/tool", 9.0)


def test_junk_folders_are_asked_for_in_any_order() -> None:
    """What was said of one folder is not said of the next."""
    excludes = Excludes()
    paths = ["a.py", ".git/x", "a.py", ".git/y", "lib/.git/z", "lib/a.py", "x/lib/a.py", ".git"]
    assert [path for path in paths if excludes.matches(path)] == [
        ".git/x", ".git/y", "lib/.git/z", ".git",
    ]  # fmt: skip
    assert not Excludes(["!x"]).matches("x")
    assert Excludes(["x", "!x"]).matches("a/x") is False
    assert Excludes(["x*", "!xy"]).matches("xz")
    assert not Excludes(["x*", "!xy"]).matches("xy")


def test_what_is_in_one_folder_is_asked_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Excludes, "matches_name", lambda _, name: asked.append(name) or name == "j")
    excludes = Excludes()
    found = [excludes.matches(path) for path in ("a/b/c", "a/b/d", "a/j/e", "a/j/f", "g", "j")]
    assert found == [False, False, True, True, False, True]
    assert asked == ["a", "b", "c", "d", "a", "j", "g", "j"]


@pytest.mark.parametrize(
    ("head", "header"),
    [
        (b"M\x06\x00\x1f", mpy.Header((6, 0), "")),
        (b"M\x06\x1f\x1f", mpy.Header((6, 3), "armv7emsp")),
        (b"M\x06\x05\x1f", mpy.Header((6, 1), "x86")),
        (b"M\x05\x03\x1f", mpy.Header((5, 0), "")),
        (b"M\x06\x30\x1f", mpy.Header((6, 0), "rv64imc")),
        (b"M\x06\x34\x1f", mpy.Header((6, 0), "number 13")),
        (b"M\x06\x00", None), (b"m\x06\x00\x1f", None), (b"", None),
    ],
)  # fmt: skip
def test_headers_of_bytecode(head: bytes, header: mpy.Header | None) -> None:
    assert mpy.parse_header(head) == header


def test_versions_in_words() -> None:
    assert [mpy.version_text(version) for version in ((5, 0), (6, 0), (6, 3), (7, 1))] == [
        "5", "6.0", "6.3", "7.1",
    ]  # fmt: skip
    assert mpy.version_text((6, 3), native=False) == "6"
    native, plain = mpy.Header((6, 3), "armv6m"), mpy.Header((6, 0), "")
    assert [mpy.mismatch(native, version) for version in ((6, 3), (6, 2), (5, 0))] == [
        "", "is bytecode 6.3", "is bytecode 6.3",
    ]  # fmt: skip
    assert [mpy.mismatch(plain, version) for version in ((6, 3), (5, 0))] == ["", "is bytecode 6"]


def test_which_cores_run_which_native_code() -> None:
    arm = ["armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp"]
    others = ["x86", "armv6", "xtensawin", "rv32imc", "number 15"]
    for code in (*arm, *others):
        found = [core for core in (*arm, *others) if mpy.runs(code, core)]
        assert found == (arm[arm.index(code) :] if code in arm else [code])


def test_two_sizes_are_told_apart() -> None:
    mib = 1 << 20
    assert [mebibytes(need, 4 * mib) for need in (5 * mib + 99, 4 * mib + 52_000, 4 * mib + 1)] == [
        "5.0 of 4.0 MiB", "4.05 of 4.00 MiB", "4.000 of 4.000 MiB",
    ]  # fmt: skip


def said(path: str, data: bytes, here: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    found = admit(path, lambda at, count: data[at : at + count], len(data), Target(here=here))
    return [(each.severity, each.code, each.message) for each in found]


def hidden(by: str, module: str) -> list[tuple[str, str, str]]:
    message = (
        f"{by} on the camera hides it: `import {module}` takes that one; delete or rename it there"
    )
    return [("warning", "hidden", message)]


def test_names_against_what_is_on_the_camera() -> None:
    start = [(
        "warning", "not-started", "stock firmware starts main.py from /flash, not from ROMFS; move "
        "its code to another module, and import that in /flash/main.py",
    )]  # fmt: skip
    here = ("/flash", "main.py", "app.py", "lib2", "x.mpy")
    assert said("main.py", b"") == said("main.py", b"", here) == start
    assert said("main.py", b"", ("/rom",)) == []
    assert said("app.py", b"", here) == hidden("/flash/app.py", "app")
    assert said("lib/app.py", b"", here) == hidden("/flash/app.py", "app")
    assert said("lib2/__init__.py", b"", here) == hidden("/flash/lib2", "lib2")
    assert said("x.py", b"", ("/", "x.mpy")) == hidden("/x.mpy", "x")
    for path in ("other.py", "lib2/app.py", "app.txt", "lib/lib/app.py"):
        assert said(path, b"", here) == []
    hides = [(
        "warning", "hides-module", "hides the firmware's os from every `import os`; rename it, "
        "unless that is intended (`import uos` gets the built-in one)",
    )]  # fmt: skip
    assert said("os.py", b"#" * (256 << 10) + b"uos") == hides
    assert said("os.py", b"#" * ((256 << 10) - 3) + b"uos") == []


def test_looking_at_a_script_leaves_no_trace_in_python() -> None:
    before = list(warnings.filters)
    assert text_problem("a.py", "# é\nx = '\\d'\n".encode()) is None
    assert warnings.filters == before


def test_what_is_no_text_in_whole() -> None:
    assert text_problem("a.py", b"x = '\xe9'".replace(b"x", b"# \xe9\nx")) == Diagnostic(
        "error", "encoding", "a.py:2: not UTF-8, the only encoding that MicroPython reads; save it "
        "as UTF-8",
        "    x = '\N{REPLACEMENT CHARACTER}'\n    ^\n",
    )  # fmt: skip
    first = b"#!/bin/x\n# vim: coding=cp1252\nx = '\xe9'"
    found = text_problem("a.py", first)
    assert found is not None
    assert "a.py:3: not UTF-8 (it declares cp1252), the" in found.message
    late = text_problem("a.py", b"\n" + first)
    assert late is not None
    assert "a.py:4: not UTF-8, the" in late.message
    assert text_problem("a.py", "x = “hi”\n".encode()) == Diagnostic(
        "error", "look-alike", "a.py:1: “ (U+201C, left double quotation mark) is not valid in "
        "Python code; type \" or '", "    x = “hi”\n        ^\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("character", "instead"),
    [
        ("“", "type \" or '"), ("«", "type \" or '"), ("＂", "type \" or '"), ("–", "type -"),
        ("−", "type -"), ("\u3000", "type a plain space"),
        ("\u200b", "remove it: it cannot be seen"),
        ("（", "type ("), ("，", "type ,"), ("。", "replace it"), ("×", "replace it"),
    ],
)  # fmt: skip
def test_what_to_type_instead(character: str, instead: str) -> None:
    found = text_problem("a.py", f"x = 1 {character} 2\n".encode())
    assert found is not None
    assert found.message.endswith(f"; {instead}")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("BULLET", "write \\u2022"),
        ("LINEAR B SYLLABLE B008 A", "write \\U00010000"),
        ("GRINNING FACE", "write \\U0001f600"),
        ("nonsense", "write the character itself"),
    ],
)  # fmt: skip
def test_a_name_that_micropython_does_not_know(name: str, instead: str) -> None:
    source = f"x = 1\ny = '\\N{{{name}}}'\n".encode()
    assert name_escape("a.py", source) == Diagnostic(
        "error", "script-error", f"a.py:2: MicroPython does not know \\N{{{name}}}; {instead}",
        f"    y = '\\N{{{name}}}'\n         ^\n",
    )  # fmt: skip
    assert name_escape("a.py", b"x = 1\n") is None


def test_a_script_that_is_too_large_to_be_looked_at() -> None:
    text = "x = '\xe9'".encode("latin-1")
    for size, codes in ((1 << 20, ["encoding"]), ((1 << 20) + 1, [])):
        data = text.ljust(size, b"\n")
        assert [code for _, code, _ in said("lib/a.py", data)] == codes


def test_excerpts_of_a_source() -> None:
    source = b"one\n\ttwo\r\n\n" + b"x" * 300
    assert [excerpt(source, number, column) for number, column in (
        (1, None), (2, None), (2, 1), (2, 3), (3, 1), (0, 1), (5, 1), (1, 0), (1, 99), (4, 999),
    )] == [
        "    one\n    ^\n", "        two\n        ^\n", "        two\n    ^\n",
        "        two\n      ^\n", "", "", "", "    one\n    ^\n", "    one\n       ^\n",
        f"    {'x' * 200}\n    {' ' * 200}^\n",
    ]  # fmt: skip


def test_what_an_older_python_blames_a_number_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.11.4: it names the literal, and the character behind it is at fault."""
    answer = SyntaxError("invalid decimal literal", ("a.py", 2, 5, "x = 1\N{EN DASH}2\n", 2, 5))

    def parse(_: str) -> None:
        raise answer

    monkeypatch.setattr(script_text.ast, "parse", parse)
    source = "\nx = 1\N{EN DASH}2\n".encode()
    assert text_problem("a.py", source) == Diagnostic(
        "error", "look-alike", "a.py:2: – (U+2013, en dash) is not valid in Python code; type -",
        "    x = 1–2\n         ^\n",
    )  # fmt: skip
    for message, text, offset in (
        ("invalid syntax", "x = 1–2\n", 5), ("invalid decimal literal", "x = 1a\n", 5),
        ("invalid decimal literal", "x = 1", 5), ("invalid decimal literal", "x = 1é\n", 5),
        ("invalid decimal literal", "x = 1🙂\n", 5),
    ):  # fmt: skip
        answer = SyntaxError(message, ("a.py", 2, offset, text, 2, offset))
        assert text_problem("a.py", source) is None
    answer = SyntaxError("invalid character '–' (U+2013)")
    found = text_problem("a.py", source)
    assert found is not None
    assert found.message.startswith("a.py:1: – (U+2013, en dash)")
    for error_ in (ValueError("NUL"), RecursionError(), MemoryError()):
        answer = error_  # type: ignore[assignment]
        assert text_problem("a.py", source) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\N{ZERO WIDTH SPACE}\n", "a.py:1: (U+200B, zero width space) is not valid in Python "
         "code; remove it: it cannot be seen"),
        ("# é\n\nx = 1\u0080\n", "a.py:3: (U+0080, a control character) is not valid in Python "
         "code; remove it: it cannot be seen"),
        ("x =\u00a01\n", "a.py:1: \u00a0 (U+00A0, no-break space) is not valid in Python code; "
         "type a plain space"),
        ("\N{GREEK SMALL LETTER ALPHA} = 1\n", None), ("x = 'é'\n", None), ("# “\n", None),
        ("'''“\n'''\n", None), ('"""“\n"""\n', None), ("'\\'“'\n", None), ("x = 1\0 + “\n", None),
    ],
)  # fmt: skip
def test_characters_that_are_not_python_in_whole(text: str, said: str | None) -> None:
    found = text_problem("a.py", text.encode())
    wanted = " ".join(said.split()) if said else None  # a line, as all diagnostics are
    assert (found and (found.severity, found.code, found.message)) == (
        wanted and ("error", "look-alike", wanted)
    )


def test_encodings_in_whole() -> None:
    mark = ("byte-order-mark", "a.py starts with a byte order mark, which MicroPython takes for "
            "part of the first name; save it as UTF-8 without BOM")  # fmt: skip
    for data, found in (
        (b"\xff\xfe", ("encoding", "a.py is UTF-16; save it as UTF-8")),
        (b"\xfe\xff", ("encoding", "a.py is UTF-16; save it as UTF-8")), (b"\xef\xbb\xbf", mark),
        (b"\xef\xbbx", ("encoding", "a.py:1: not UTF-8, the only encoding that MicroPython reads; "
                        "save it as UTF-8", "    \N{REPLACEMENT CHARACTER}x\n    ^\n")),
        (b"", None), (b"x = 1", None),
    ):  # fmt: skip
        assert text_problem("a.py", data) == (Diagnostic("error", *found) if found else None)
