"""The command line as users call it: `run` in this process, `Mounts` on real mounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_mounts import Mounts, Ran

import romfsfs
from romfsfs.cli import doctor, main
from romfsfs.devices.file import FileDevice
from romfsfs.errors import RomfsError
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import make_folder
from romfsfs.session.rebase.read import make_ready, session_for
from romfsfs.session.session import Session


@pytest.fixture(scope="session")
def conversion_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversions")


@pytest.fixture(autouse=True)
def romfsfs_dirs(tmp_path: Path, conversion_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(conversion_cache))
    monkeypatch.setenv("PYTHONPATH", str(Path(romfsfs.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`run("status", "app.img")`: a command in this process."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert not err.startswith("Traceback")
        assert "\nTraceback" not in err  # the compiler's own is indented
        return Ran(code, out, err)

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small image of two files."""
    path = tmp_path / "app.img"
    path.write_bytes(encode({"a.txt": b"first\n", "lib/b.bin": bytes(range(200))}))
    return path


@pytest.fixture
def session(image: Path) -> Session:
    """A session that was mounted and left with an edit."""
    device = FileDevice(image)
    with make_folder(str(image)).lock_for_mount("app.img"):
        session = session_for(device, str(image))
        make_ready(session, device)
    (session.work / "a.txt").write_text("edited\n")
    return session


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has nothing, for a user who may do nothing."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise RomfsError("not there")

    for name in ("load_binding", "check_device", "check_allow_other", "find_compiler", "version",
                 "find_tool", "find_micropython"):  # fmt: skip
        monkeypatch.setattr(doctor, name, fail)
    monkeypatch.setattr(doctor, "find_on_path", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    monkeypatch.setattr(doctor.os, "getgroups", list)
    monkeypatch.setattr(doctor, "_is_all_accessible", lambda: False)
    monkeypatch.setattr(doctor, "_RULES", ())


@pytest.fixture
def mounts(tmp_path: Path, run: Callable[..., Ran], fuse_device: None) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path, run)
    yield mounts
    mounts.close()
