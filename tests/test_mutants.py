"""What `scripts/mutants` does to a source file, and how it finds the place again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "benchlib"))

import mutants
from mutants import nearest
from mutations import Mutation, mutations

SOURCE = b'''"""A module."""
LIMIT: int = 3


def sync(path, limit=2):
    """\xc3\xa4: what it does."""
    with locked(path):
        if not path or (a is  not b and 1 < a):
            raise ValueError("x")
    log.info("nobody asserts this")
    assert path == 1
    total.sum += 1
    done()
'''


def test_each_fault_is_one_change_of_the_text_that_still_parses() -> None:
    found = mutations("x.py", SOURCE)
    changed = []
    for each in found:
        lines = zip(SOURCE.splitlines(), each.applied(SOURCE).splitlines(), strict=True)
        compile(each.applied(SOURCE), "x.py", "exec")
        changed.append([after.decode().strip() for before, after in lines if before != after])
    assert sorted(line for [line] in changed) == sorted([
        "LIMIT: int = (3 + 1)",
        "def sync(path, limit=(2 + 1)):",
        "if True:",
        "if not (not path or (a is  not b and 1 < a)):",
        "if not path and (a is  not b and 1 < a):",
        "if not path or (a is b and 1 < a):",
        "if not path or (a is  not b or 1 < a):",
        "if not path or (a is  not b and 1 >= a):",
        "if not path or (a is  not b and 1 <= a):",
        "if not path or (a is  not b and (1 + 1) < a):",
        "pass",
        "pass",
        "pass",
        "total.sum += (1 + 1)",
    ])  # fmt: skip


def test_a_fault_keeps_its_name_while_the_file_changes_elsewhere() -> None:
    names = {each.name for each in mutations("x.py", SOURCE)}
    assert names <= {each.name for each in mutations("x.py", b"import os\n\n" + SOURCE)}
    assert len(names) == len(mutations("x.py", SOURCE))


def test_tests_that_name_the_module_come_first() -> None:
    """By an import, a helper's import, or a text that says what is replaced."""
    fault = Mutation("romfsfs/session/keep/settling.py", "", 1, 0, 0, "")
    (_, near), (_, far) = nearest(fault)
    by_name, by_helper = "tests/session/test_session_keep.py", "tests/trust/test_two_at_once.py"
    assert near.index(by_name) < near.index(by_helper) < near.index("tests/session/test_recipe.py")
    assert "tests/cli/test_cli_exit_codes.py" in far
    assert not set(near) & set(far)


def test_a_fault_that_could_not_be_put_in_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout below /tmp is not there any more when the file is to be mounted: 98 of 98 were
    noticed in a minute."""
    monkeypatch.setattr(mutants, "TMP", mutants.TMP.with_name("tmp-of-test"))
    monkeypatch.setattr(mutants.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=99))
    with pytest.raises(SystemExit):
        mutants.pytest(Path("x.py"), b"", 1)
