"""A zoo as the OpenMV IDE keeps it, as a zip, behind a local server, and as OpenMV publishes it."""

from __future__ import annotations

import ssl
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from zoo_server import FILES, Published, Server, running

from romfsfs.ide import remote
from romfsfs.zoo import tree


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, cache and home of this test alone; nothing chosen, nothing installed."""
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"ROMFSFS_{name}", str(tmp_path / name.lower()))
    for name in ("ROMFSFS_ZOO", "ROMFSFS_IDE_RESOURCES", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(tree, "_CHOICE_SECONDS", 0.0)
    monkeypatch.setattr("romfsfs.zoo.sources._CHECK_SECONDS", 0.0)
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
    with running() as state:
        yield state


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def published(
    authority: trustme.CA, make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Published]:  # fmt: skip
    """What OpenMV publishes, at servers that behave as GitHub's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with running(context) as state:
        base = f"{state.url}/openmv/openmv-ide/releases/download/"
        monkeypatch.setattr("romfsfs.ide.published.VERSION_URL", f"{state.url}/version-v2.txt")
        monkeypatch.setattr("romfsfs.ide.published.RELEASE_URL", base)
        yield Published(state, make_zip)
