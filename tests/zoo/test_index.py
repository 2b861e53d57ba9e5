"""Which board sees which model: `index.csv`."""

from __future__ import annotations

import pytest

from romfsfs.errors import RomfsError
from romfsfs.zoo.index import parse_index


def test_the_first_line_that_matches_decides() -> None:
    rules = parse_index('"face/small", "N6"\n"face", "H7"\n', "index.csv")
    assert rules.shows("google/face/small/a.tflite", "OPENMV_N6")
    assert not rules.shows("google/face/small/a.tflite", "PORTENTA_H7")
    assert rules.shows("google/face/large/a.tflite", "PORTENTA_H7")


def test_boards_match_in_any_case_and_anywhere_in_the_name() -> None:
    rules = parse_index('"x", "openmv_(n6|ae3)"\n"y", "^OPENMV4$"', "index.csv")
    assert rules.shows("a/x", "OPENMV_AE3")
    assert rules.shows("a/y", "openmv4")
    assert not rules.shows("a/y", "OPENMV4P")


def test_an_empty_board_hides_a_file_from_every_board_but_not_from_all() -> None:
    rules = parse_index('"old", ""\n"old", "N6"', "index.csv")
    assert not rules.shows("a/old/x.tflite", "OPENMV_N6")
    assert rules.shows("a/old/x.tflite", None)


def test_a_file_that_no_line_is_about_is_shown() -> None:
    assert parse_index('"x/", "N6"', "index.csv").shows("mine.tflite", "OPENMV2")


def test_paths_match_as_in_the_ide_and_from_the_vendor() -> None:
    rules = parse_index('"/models/st/", "N6"\n"^google/", "H7"', "index.csv")
    assert not rules.shows("st/a.tflite", "H7")
    assert not rules.shows("google/a.tflite", "N6")


def test_comments_blank_lines_and_line_ends_say_nothing() -> None:
    text = '\ufeff# comment\r\n\r\n   # another\r\n  "x" ,"N6"  # why\r\n'
    assert len(parse_index(text, "index.csv").rules) == 1


@pytest.mark.parametrize("line", ['"x"', "x, y", '"x" "y"', '"(", "N6"', '"x", "[N6"'])
def test_what_is_not_understood_is_named_with_its_line(line: str) -> None:
    with pytest.raises(RomfsError) as caught:
        parse_index(f'# one\n"a", "b"\n{line}\n', "/zoo/models/index.csv")
    assert caught.value.where == "/zoo/models/index.csv, line 3"
