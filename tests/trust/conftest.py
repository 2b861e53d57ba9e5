"""Real mounts of the whole program, to be hurt.

`$ROMFSFS_LONG` (`scripts/soak`) makes the random tests run long and the exhaustive ones
exhaustive; without it they take their share of a minute. What a test did, in figures, it gives to
`record_property`: `scripts/soak` adds them up (the greatest counts where the name begins with
`peak`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.register_assert_rewrite("real_mount")

from real_mount import RealMount, memory_folder  # noqa: E402

LONG = os.environ.get("ROMFSFS_LONG", "") not in ("", "0")


# Mounts by ordinary users are made as the tests of `romfsfs.fs` make them.
_FS = Path(__file__).parent.parent / "fs"


def _conftest_of_fs() -> ModuleType:
    sys.path.insert(0, str(_FS))
    spec = importlib.util.spec_from_file_location("fs_conftest", _FS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fs = _conftest_of_fs()
nobody = _fs.nobody
as_nobody = _fs.as_nobody
users_place = _fs.users_place


@pytest.fixture(scope="session")
def long_run() -> bool:
    return LONG


@pytest.fixture(params=_fs.BINDINGS)
def binding(request: pytest.FixtureRequest, fuse_device: None) -> str:
    return str(request.param)


@pytest.fixture
def make_mount(fuse_device: None) -> Iterator[Callable[..., RealMount]]:
    """Makes places to mount (nothing is mounted yet), and clears them away."""
    made: list[RealMount] = []

    def make(binding: str = "auto", *, board: str | None = None) -> RealMount:
        made.append(RealMount(memory_folder("romfsfs-trust-"), binding, board=board))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@pytest.fixture
def place(binding: str, make_mount: Callable[..., RealMount]) -> RealMount:
    """A place to mount, on each binding."""
    return make_mount(binding)


@pytest.fixture
def mounted(place: RealMount) -> Iterator[RealMount]:
    """A mount that must end as it should and have nothing to complain about."""
    place.mount()
    yield place
    assert place.is_mounted
    assert place.complaints() == []
    place.umount()
    assert not list(place.session.glob("hidden/*"))


@pytest.fixture(scope="session")
def python_of() -> Callable[[tuple[str, ...]], str]:
    """The Python that a user may run, whose command prefix this is given."""
    found: Callable[[tuple[str, ...]], str] = _fs._python_for
    return found
