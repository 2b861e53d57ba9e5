"""Every error with its place in the tree and its exit code, and how names and words are shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import romfsfs
from romfsfs import errors
from romfsfs.errors import RomfsError


def classes(above: type[RomfsError]) -> list[type[RomfsError]]:
    return [above, *(each for below in above.__subclasses__() for each in classes(below))]


def test_the_tree_at_the_top_of_the_module_is_true() -> None:
    """Each line: how deep, the class, the exit code."""
    assert errors.__doc__ is not None
    drawn: dict[str, tuple[str, int]] = {}
    above = {-1: "Exception"}
    for line in errors.__doc__.splitlines():
        found = re.fullmatch(r"    ([ |`-]*)(\w+) +(\d+)  \S.*", line)
        if found:
            depth = len(found[1]) // 4
            above[depth] = found[2]
            drawn[found[2]] = above[depth - 1], int(found[3])
    ours = [each for each in classes(RomfsError) if each.__module__ == errors.__name__]
    assert {each.__name__: (each.__bases__[0].__name__, each.exit_code) for each in ours} == drawn
    assert len(drawn) == 18
    detailed = {each.__name__ for each in ours if each.show_detail}
    assert detailed == {"ConversionError", "ToolMissing", "PlanError"}
    assert errors.EXIT_OK == 0


@pytest.mark.parametrize(
    ("text", "shown", "word"),
    [
        ("plain", "plain", "plain"), ("a b's", "a b's", "'a b'\"'\"'s'"), ("-x", "-x", "./-x"),
        ("é\u2028", "é\\u2028", "$'é\\xe2\\x80\\xa8'"), ("a\nb", "a\\nb", "$'a\\x0ab'"),
        ("\x1b[1m", "\\x1b[1m", "$'\\x1b[1m'"), ("-\t", "-\\t", "$'./-\\x09'"),
        ("\udc80\udcff", "\\x80\\xff", "$'\\x80\\xff'"), ("\udc7f", "\\udc7f", None),
        ("\udd00", "\\udd00", None), ("'\\\n", "'\\\\n", "$'\\'\\\\\\x0a'"), ("", "", "''"),
    ],
)  # fmt: skip
def test_names_as_they_are_shown_and_as_a_shell_takes_them(
    text: str, shown: str, word: str | None
) -> None:
    assert errors.printable(text) == shown
    if word is not None:
        assert errors.shell_word(text) == errors.shell_word(Path(text) if text else "") == word


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({}, "bad"), ({"where": "a\nb"}, "bad (a\\nb)"), ({"next_step": "do x"}, "bad; do x"),
        ({"where": "a  b", "next_step": " do\n\n  x\t y \r\n"}, "bad (a  b); do x  y"),
        ({"detail": "more\nof it"}, "bad"),
    ],
)  # fmt: skip
def test_an_error_is_a_line(words: dict[str, str], line: str) -> None:
    error = RomfsError("bad", **words)
    assert error.line == str(error) == line
    assert error.args == ("bad",)
    kept = {"what": "bad", "where": "", "next_step": "", "detail": "", **words}
    assert vars(error) == kept
    assert RomfsError("one\n\ttwo").line == "one two"


def test_errors_with_facts_of_their_own() -> None:
    def told(error: RomfsError) -> tuple[Any, ...]:
        facts = {name: value for name, value in vars(error).items() if isinstance(value, int)}
        return type(error).__name__, error.line, facts

    image = errors.ImageFormatError("no end", 31, next_step="look")
    assert told(image) == (
        "ImageFormatError", "not a valid ROMFS image: no end (offset 0x1f); look", {"offset": 31},
    )  # fmt: skip
    assert told(image.at("a.img", "stop")) == (
        "ImageFormatError", "not a valid ROMFS image: no end (a.img, offset 0x1f); stop",
        {"offset": 31},
    )  # fmt: skip
    assert image.at("a").reason == "no end"
    assert told(errors.too_large(3000, 1000, "x", "less")) == (
        "CapacityError", "the image is 2,000 B too large, there is room for 1,000 B (x); less",
        {"size": 3000, "capacity": 1000},
    )  # fmt: skip
    assert told(errors.DeviceAnswer("no", where="p")) == ("DeviceAnswer", "no (p)", {"errno": 0})
    assert told(errors.DeviceAnswer("no", errno=5)) == ("DeviceAnswer", "no", {"errno": 5})
    assert told(errors.file_exists(Path("a"))) == (
        "UsageError", "the file exists (a); choose another name, or replace it with --force", {},
    )  # fmt: skip


def test_the_package_itself_imports_nothing() -> None:
    """`romfsfs --version` needs none of it."""
    code = "import sys, romfsfs; print(sorted(n for n in sys.modules if n.startswith('romfsfs')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100,
        cwd=Path(romfsfs.__file__).parents[1],
    )  # fmt: skip
    assert done.stdout == "['romfsfs']\n"
    with pytest.raises(AttributeError, match=r"^module 'romfsfs' has no attribute 'none'$"):
        romfsfs.none  # noqa: B018
    assert set(romfsfs.__all__) == {*romfsfs._API, "__version__"}
