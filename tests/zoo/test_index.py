"""Which board sees which model: `index.csv`."""

from __future__ import annotations

import pytest

from romfsfs.errors import RomfsError
from romfsfs.zoo.index import BoardFilter, parse_index
from romfsfs.zoo.patterns import shown


def shows(rules: BoardFilter, path: str, board: str | None) -> bool:
    return rules.shown([path], board) == [path]


def test_the_first_line_that_matches_decides() -> None:
    rules = parse_index('"face/small", "N6"\n"face", "H7"\n', "index.csv")
    assert shows(rules, "google/face/small/a.tflite", "OPENMV_N6")
    assert not shows(rules, "google/face/small/a.tflite", "PORTENTA_H7")
    assert shows(rules, "google/face/large/a.tflite", "PORTENTA_H7")


def test_boards_match_in_any_case_and_anywhere_in_the_name() -> None:
    rules = parse_index('"x", "openmv_(n6|ae3)"\n"y", "^OPENMV4$"', "index.csv")
    assert shows(rules, "a/x", "OPENMV_AE3")
    assert shows(rules, "a/y", "openmv4")
    assert not shows(rules, "a/y", "OPENMV4P")


def test_an_empty_board_hides_a_file_from_every_board_but_not_from_all() -> None:
    rules = parse_index('"old", ""\n"old", "N6"', "index.csv")
    assert not shows(rules, "a/old/x.tflite", "OPENMV_N6")
    assert shows(rules, "a/old/x.tflite", None)


def test_a_file_that_no_line_is_about_is_shown() -> None:
    assert shows(parse_index('"x/", "N6"', "index.csv"), "mine.tflite", "OPENMV2")


def test_paths_match_as_in_the_ide_and_from_the_vendor() -> None:
    rules = parse_index('"/models/st/", "N6"\n"^google/", "H7"', "index.csv")
    assert not shows(rules, "st/a.tflite", "H7")
    assert not shows(rules, "google/a.tflite", "N6")


def test_comments_blank_lines_and_line_ends_say_nothing() -> None:
    text = '\ufeff# comment\r\n\r\n   # another\r\n  "x" ,"N6"  # "why"\r\n\n"y", ""'
    rules = ((4, "x", "N6"), (6, "y", ""))
    assert parse_index(text, "index.csv") == BoardFilter(rules, "index.csv")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    ['"x"', "x, y", '"x" "y"', '"(", "N6"', '"x", "[N6"', '"x", "y', 'a"x", "y"', '"x", "y" z'],
)
def test_what_is_not_understood_is_named_with_its_line(line: str) -> None:
    with pytest.raises(RomfsError) as caught:
        parse_index(f'# one\n"a", "b"\n{line}\n', "/zoo/models/index.csv").shown(["a"], "N6")
    assert caught.value.where == "/zoo/models/index.csv, line 3"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('"(a+)+$", "N6"', "take too long"),
        ('".", "(a|aa)+$"', "take too long"),
        ('"' + "(.*)*" * 20 + 'x$", "N6"', "take too long"),
        ('"' + "(" * 20000 + ")" * 20000 + '", "N6"', "not a regular expression|cannot be used"),
    ],
)
def test_patterns_that_take_for_ever_are_ended(line: str, why: str) -> None:
    path = "google/" + "a" * 200 + "!"
    rules = parse_index(line, "index.csv")
    with pytest.raises(RomfsError, match=why) as caught:
        rules.shown([path], path)
    assert "index.csv" in caught.value.where
    next_step = "correct the line, or begin it with #"  # a deep one: how deep is Python's to say
    if "not a regular expression" not in str(caught.value):
        next_step = "simplify them, or see the models of all boards with --all"
    assert caught.value.next_step == next_step
    assert rules.shown([path], None) == [path]


@pytest.mark.parametrize(
    "line",
    ['"' * 16384, '"' + " " * 16384, '"a" ' * 4096, '" , " , ' * 2048, '"' + 'a",' * 5000 + '"b"'],
)
def test_a_long_line_is_read_at_once(line: str) -> None:
    """Its pieces were looked for by a pattern of ours: 16 KB took 20 s."""
    with pytest.raises(RomfsError, match="a line is not"):
        parse_index(line, "index.csv")


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        ([], {"shown": [0, 1, 2]}),
        ([(1, "a", "n6")], {"shown": [0, 1, 2]}),
        ([(1, "a", "H7")], {"shown": [1, 2]}),
        ([(1, "^/models/b", ""), (2, "b|c", "N6")], {"shown": [0, 2]}),
        ([(1, "c", "N6"), (2, "", "")], {"shown": [2]}),
        ([(1, "a", "N6"), (4, "(", "")], {"line": 4, "error": "missing ), unterminated subpattern "
                                          "at position 0"}),
        ([(7, "a", "[")], {"line": 7, "error": "unterminated character set at position 0"}),
    ],
)  # fmt: skip
def test_what_the_program_answers(rules: list[tuple[int, str, str]], answer: object) -> None:
    assert shown(rules, ["a", "b", "c"], "OPENMV_N6") == answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", 'a line is not `"path regex", "board regex"`'),
        ('"(", "N6"', "not a regular expression: missing ), unterminated subpattern at position 0"),
    ],
)
def test_what_is_said_of_an_index_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(RomfsError) as caught:
        parse_index(text, "i").shown(["a"], "N6")
    assert caught.value.line == f"{said} (i, line 1); correct the line, or begin it with #"
