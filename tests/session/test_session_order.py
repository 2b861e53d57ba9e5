"""The order in which a status is read: what stops a commit, what may go wrong, what changes."""

from __future__ import annotations

import json

import pytest
from session_desk import Desk

from romfsfs.errors import PlanError
from romfsfs.session.plan.problems import ERROR, INFO, WARNING, Problem, counted, told
from romfsfs.session.rebase.prepare import converted_plan


def test_the_first_line_counts_and_errors_come_before_all_changes(desk: Desk) -> None:
    desk.open()
    for number in range(30):
        desk.write(f"a{number}.txt", b"1")
    desk.write("zä.txt", b"1")
    desk.write("zz.py", b"def f(:\n")
    assert ": 32 changes, 1 warning, 1 still to convert\n" in desk.session.status().text()
    converted_plan(desk.session)
    status = desk.session.status()
    lines = status.text().splitlines()
    assert lines[0].endswith("app.img (no board): 32 changes, 1 error, 1 warning")
    assert lines[1].startswith("  error: zz.py:1: SyntaxError")
    kinds = [line[2] for line in lines[1:-1] if line[2] != " "]  # not what the compiler said
    assert kinds == [*"ew", *"A" * 32, *"n" * kinds.count("n")]
    assert [each["severity"] for each in json.loads(status.json())["problems"]] == [ERROR, WARNING]


def test_what_is_found_elsewhere_is_ordered_with_the_rest(desk: Desk) -> None:
    """Unknown data behind the image is an error that no file has."""
    image = desk.image.read_bytes()
    desk.image.write_bytes(image + b"\xff\x01" * 50)
    desk.open()
    desk.write("zä.txt", bytes(999))
    status = desk.session.status()
    assert [each.code for each in status.problems if each.severity != INFO] == [
        "trailing", "name-ascii",
    ]  # fmt: skip
    assert status.text().splitlines()[1].startswith("  error: 100 bytes of unknown data")


def test_the_same_words_are_said_once_with_a_count(desk: Desk) -> None:
    desk.open()
    for number in range(180):
        desk.write(f"ä{number:03}.txt", b"1")
    status = desk.session.status()
    assert ": 180 changes, 180 warnings\n" in status.text()
    (line,) = [line for line in status.text().splitlines() if "warning:" in line]
    assert line.startswith(
        "  warning: 180 files (ä000.txt, ä001.txt, ä002.txt, ...): the camera reads this name"
    )
    assert status.text(verbose=True).count("  warning: ä") == 180
    assert len(json.loads(status.json())["problems"]) == 180  # scripts get each


def test_a_refused_commit_says_the_same_once_too(desk: Desk) -> None:
    desk.open()
    for number in range(20):
        desk.write(f"bad\n{number:02}", b"1")
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert refused.value.what == "cannot commit: 20 errors; nothing was written"
    (line,) = refused.value.detail.splitlines()
    assert line.startswith("20 files (bad\\n00, bad\\n01, bad\\n02, ...): the name has")


def test_a_conflict_is_one_problem_and_other_words_are_others() -> None:
    conflict = "a.py and a.mpy would both be stored as a.mpy: rename or remove one"
    found = [
        Problem("x", "b", "slow", WARNING),
        Problem("conflict", "a.py", conflict),
        Problem("conflict", "a.mpy", conflict),
        Problem("x", "c", "slow", WARNING),
        Problem("x", "c", "slow", WARNING),
        Problem("x", "d", "slower", WARNING),
        *(Problem("z", path, "all", WARNING) for path in ("1", "2", "3")),
        *(Problem("z", path, "most", WARNING) for path in ("1", "2", "3", "4")),
        Problem("y", "", "a note", INFO),
    ]
    assert [problem.text for problem in told(found)] == [
        conflict, "2 files (b, c): slow", "d: slower", "3 files (1, 2, 3): all",
        "4 files (1, 2, 3, ...): most", "a note",
    ]  # fmt: skip
    assert counted(found) == ["1 error", "10 warnings"]
    assert counted([]) == []
