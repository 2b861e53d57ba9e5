"""A zoo as the OpenMV IDE keeps it, as a zip, and behind a local HTTP server."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from zoo_server import FILES, Handler, Server

from romfsfs.zoo import download, tree


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, cache and home of this test alone; nothing chosen, nothing installed."""
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"ROMFSFS_{name}", str(tmp_path / name.lower()))
    for name in ("ROMFSFS_ZOO", "ROMFSFS_IDE_RESOURCES", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(tree, "_CHOICE_SECONDS", 0.0)
    monkeypatch.setattr("romfsfs.zoo.catalog._CHECK_SECONDS", 0.0)
    monkeypatch.setattr(tree, "_trees", {})


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """A resource folder with `models/` in it."""
    folder = tmp_path / "resources"
    for path, data in FILES.items():
        file = folder / "models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


@pytest.fixture
def make_zip(tmp_path: Path) -> Callable[..., Path]:
    """A zip with these members (name -> bytes)."""

    def make(members: dict[str, bytes], name: str = "zoo.zip") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return tmp_path / name

    return make


@pytest.fixture
def resource_zip(make_zip: Callable[..., Path]) -> Path:
    return make_zip({f"resources/models/{path}": data for path, data in FILES.items()})


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server("")
    handler = functools.partial(Handler, state)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            with contextlib.suppress(Exception):
                running.shutdown()
            thread.join(10)
