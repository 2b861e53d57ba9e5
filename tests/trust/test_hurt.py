"""Killed, or refused by the disk, at any change of any file: nothing is lost, nothing is torn.

`hurt.py` counts the places and hurts one run at each; here at every so many-th, in the rounds of a
long run (every $ROMFSFS_LONG-th, from another one on in each) at all. `tests/session` kills at the
steps that the code itself names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from real_mount import CHECKOUT, CLEAN, LONG, ROUND

HERE = Path(__file__).parent
SECONDS = 3600 if LONG else 100

pytestmark = pytest.mark.timeout(SECONDS + 10)


Record = Callable[[str, object], None]


def hurt(
    record: Record, operation: str, how: str, every: int, **environment: str
) -> dict[str, Any]:
    every = LONG or every
    first = 1 + ROUND % every
    done = subprocess.run(
        [sys.executable, HERE / "hurt.py", operation, how, str(every), str(first)],
        env={**os.environ, **CLEAN, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{operation} {how}: {found['tried']} of {found['places']} places")
    record("places_killed_at" if how == "kill" else "places_refused_at", found["tried"])
    return found


@pytest.mark.parametrize(
    ("operation", "every"),
    [
        ("open", 13), ("commit", 11), ("recover", 11), ("undo", 9), ("build", 7),
        ("mounted-commit", 15), ("mounted-undo", 15), ("daemon", 13),
    ],
)  # fmt: skip
def test_killed(operation: str, every: int, record_property: Record) -> None:
    assert hurt(record_property, operation, "kill", every)["found"] == {}


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`faults.c` as a library to preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler; install gcc to let system calls fail")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, HERE / "faults.c"]
    subprocess.run([*command, "-ldl"], check=True, timeout=60)
    return library


@pytest.mark.parametrize(
    ("how", "operation", "every"),
    [
        ("EIO", "commit", 11), ("EIO", "open", 9), ("EIO", "undo", 11), ("EIO", "build", 7),
        ("ENOSPC+", "commit", 13), ("ENOSPC+", "recover", 13), ("EROFS+", "commit", 13),
    ],
)  # fmt: skip
def test_refused_by_the_disk(
    faults: Path, how: str, operation: str, every: int, record_property: Record
) -> None:
    environment = {"LD_PRELOAD": str(faults), "ROMFSFS_FAULTS": str(faults)}
    assert hurt(record_property, operation, how, every, **environment)["found"] == {}


def test_a_killed_tool_is_not_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone kills the compiler (or the system does, short of memory): the next commit is fine."""
    import romfsfs
    from romfsfs.convert import tools
    from romfsfs.errors import ConversionError
    from romfsfs.image.writer import encode

    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    image = tmp_path / "app.img"
    image.write_bytes(encode({}))
    start = tools._start

    def killed(argv: Sequence[str], *args: Any) -> Any:
        process = start(["sleep", "60"], *args)  # what would be running
        process.kill()
        return process

    with romfsfs.open(str(image)) as editor:
        (editor.path / "app.py").write_text("x = 1\n")
        with monkeypatch.context() as hurting:
            hurting.setattr(tools, "_start", killed)
            with pytest.raises(ConversionError, match="1 problem") as refused:
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
