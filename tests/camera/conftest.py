"""The whole of romfsfs on simulated cameras: `run` a command here, `connect` a camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from camera_rig import Rig

import romfsfs
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.executor import ENVIRONMENT


@pytest.fixture(scope="session")
def conversion_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversions")


@pytest.fixture(autouse=True)
def romfsfs_dirs(
    tmp_path: Path, conversion_cache: Path, micropython: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(conversion_cache))
    monkeypatch.setenv("PYTHONPATH", str(Path(romfsfs.__file__).parent.parent))
    monkeypatch.setenv(ENVIRONMENT, str(micropython))
    monkeypatch.delenv("ROMFSFS_PORTS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Simulator]]:
    """`connect("OPENMV4P", images={0: ...})`: one more camera that `camera` may mean."""
    with ExitStack() as stack:
        cameras: list[Simulator] = []

        def call(board: str, **changes: Any) -> Simulator:
            cameras.append(stack.enter_context(Simulator(preset(board, **changes))))
            monkeypatch.setenv("ROMFSFS_PORTS", ":".join(camera.port for camera in cameras))
            return cameras[-1]

        yield call


@pytest.fixture
def rig(tmp_path: Path, capfd: pytest.CaptureFixture[str], fuse_device: None) -> Iterator[Rig]:
    rig = Rig(tmp_path, capfd)
    yield rig
    rig.close()
