"""Killed, or refused by the disk, at any change of any file: nothing is lost, nothing is torn.

`hurt.py` counts the places and hurts one run at each; here at every so many-th, in the rounds of a
long run (every $ROMFSFS_LONG-th, from another one on in each) at all. `tests/session` kills at the
steps that the code itself names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from real_mount import CHECKOUT, CLEAN, LONG, ROUND, compiled

HERE = Path(__file__).parent
SECONDS = 3600 if LONG else 290

pytestmark = pytest.mark.timeout(SECONDS + 10)


Record = Callable[[str, object], None]


def hurt(
    record: Record, operation: str, how: str, every: int, **environment: str
) -> dict[str, Any]:
    found = ran("hurt.py", [operation, how], every, **environment)
    what = {"kill": "killed"}.get(how, "refused" if how.startswith("E") else "interrupted")
    record(f"places_{what}_at", found["tried"])
    return found


def ran(program: str, words: list[str], every: int, **environment: str) -> dict[str, Any]:
    every = LONG or every
    first = 1 + ROUND % every
    done = subprocess.run(
        [sys.executable, HERE / program, *words, str(every), str(first)],
        env={**os.environ, **CLEAN, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{' '.join(words)}: {found['tried']} of {found['places']} places")
    return found


_MOUNTED = (("mounted-commit", 19), ("mounted-undo", 19), ("daemon", 17))


@pytest.mark.parametrize(
    ("operation", "every"),
    [
        ("open", 17), ("commit", 19), ("recover", 17), ("undo", 17), ("build", 11), ("reopen", 23),
        ("rollback", 13), ("revert", 13), ("discard", 17), ("close", 11), ("log", 13), ("new", 17),
        ("zoo", 11), *(pytest.param(*each, marks=pytest.mark.mount) for each in _MOUNTED),
    ],
)  # fmt: skip
def test_killed(operation: str, every: int, record_property: Record) -> None:
    assert hurt(record_property, operation, "kill", every)["found"] == {}


@pytest.mark.parametrize(
    ("how", "operation", "every"),
    [("SIGINT", "commit", 31), ("SIGTERM", "undo", 31), ("SIGHUP", "build", 13),
     *(("SIGINT", each, 1) for each in ("recover", "new", "extract", "zoo") if LONG)],
)  # fmt: skip
def test_interrupted(how: str, operation: str, every: int, record_property: Record) -> None:
    """Ctrl-C, a polite kill, the terminal closed: nothing is left behind, and it says so."""
    assert hurt(record_property, operation, how, every)["found"] == {}


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`faults.c` as a library to preload."""
    return compiled("faults", tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`recorder.c` as a library to preload."""
    return compiled("recorder", tmp_path_factory.mktemp("recorder"))


#: What `cycle` and the others sample is done one by one in a long run.
_SINGLE = ("open", "commit", "recover", "close", "keep", "discard", "log", "build", "commit-to")


@pytest.mark.parametrize(
    ("operation", "every"),
    [("cycle", 71), ("reopen", 53), ("undo", 53), ("revert", 29), ("rollback", 29),
     *((operation, 1) for operation in _SINGLE if LONG)],
)  # fmt: skip
@pytest.mark.program("cc")
def test_the_power_goes(
    recorder: Path, operation: str, every: int, record_property: Record
) -> None:
    """What was not synced is lost, or half of it: see `power.py`."""
    environment = {"LD_PRELOAD": str(recorder), "ROMFSFS_RECORDER": str(recorder)}
    found = ran("power.py", [operation], every, **environment)
    record_property("states_after_a_power_cut", found["tried"])
    assert found["found"] == {}


#: What meets a disk that cannot be read, in a long run.
_READING = (
    "open", "build", "recover", "reopen", "rollback", "discard", "log", "extract", "zoo", "close",
    "new", "commit-to", "mounted-commit", "mounted-undo",
)  # fmt: skip


@pytest.mark.parametrize(
    ("how", "operation", "every"),
    [
        ("EIO", "commit", 11), ("EIO", "open", 9), ("EIO", "undo", 11), ("EIO", "build", 7),
        ("ENOSPC+", "commit", 13), ("ENOSPC+", "recover", 13), ("EROFS+", "commit", 13),
        ("EIO read", "commit", 31), ("EIO read", "undo", 41), ("EIO read", "revert", 31),
        *(("EIO read", operation, 1) for operation in _READING if LONG),
    ],
)  # fmt: skip
@pytest.mark.program("cc")
def test_refused_by_the_disk(
    faults: Path, how: str, operation: str, every: int, record_property: Record
) -> None:
    environment = {"LD_PRELOAD": str(faults), "ROMFSFS_FAULTS": str(faults)}
    assert hurt(record_property, operation, how, every, **environment)["found"] == {}


def test_a_killed_tool_is_not_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone kills the compiler (or the system does, short of memory): the next commit is fine."""
    import romfsfs
    from romfsfs.errors import ConversionError
    from romfsfs.image.writer import encode
    from romfsfs.system import runner

    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    image = tmp_path / "app.img"
    image.write_bytes(encode({}))
    start = runner._start

    def killed(argv: Sequence[str], *args: Any) -> Any:
        process = start(["sleep", "60"], *args)  # what would be running
        process.kill()
        return process

    with romfsfs.open(str(image)) as editor:
        (editor.path / "app.py").write_text("x = 1\n")
        with monkeypatch.context() as hurting:
            hurting.setattr(runner, "_start", killed)
            with pytest.raises(ConversionError, match="1 error") as refused:
                editor.commit()
            assert "SIGKILL" in refused.value.detail
        editor.commit()
        assert not list((tmp_path / "cache/convert/work").iterdir())


def test_the_checkout_is_what_runs() -> None:
    """The child processes of these tests import this checkout, not an installed romfsfs."""
    done = subprocess.run(
        [sys.executable, "-c", "import romfsfs; print(romfsfs.__file__)"],
        env={**os.environ, **CLEAN}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(CHECKOUT)
