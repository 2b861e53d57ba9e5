"""A zip at a URL, request by request, without a server; what is published, and where IDEs are."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import runpy
import ssl
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

import romfsfs.zoo.patterns as patterns
from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide import archive, places, published, remote
from romfsfs.ide.archive import Fetching
from romfsfs.system.errors import worded
from romfsfs.zoo.choose import open_source
from romfsfs.zoo.index import BoardFilter, parse_index

URL = "https://x/z.zip"
DATA = bytes(range(250)) * 40


class Web:
    """Answers requests of one file, and writes down which part each of them asked for."""

    def __init__(self) -> None:
        self.version = '"1"'
        self.parts = True
        self.asked: list[tuple[int, int]] = []
        self.sessions: list[object] = []
        self.cut = len(DATA)
        self.more = b""

    @contextlib.contextmanager
    def answer(self, session: object, url: str, headers: dict[str, str]) -> Iterator[Any]:
        assert url == URL
        unit, _, span = headers["Range"].partition("=")
        assert (unit, list(headers)) == ("bytes", ["Range"])
        first, last = map(int, span.split("-"))
        self.asked.append((first, last))
        self.sessions.append(session)
        said = f"bytes {first}-{last}/{len(DATA)}" if self.parts else ""
        found = {"Content-Range": said, "ETag": self.version}
        sent = DATA[first : min(last + 1, first + self.cut)] + self.more

        def pieces(size: int) -> Iterator[bytes]:
            yield from (sent[at : at + size] for at in range(0, len(sent), size))

        yield SimpleNamespace(headers=found, iter_content=pieces)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    made = Web()
    monkeypatch.setattr(remote, "_answer", made.answer)
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0.0)
    return made


def kept(file: Any) -> list[str]:
    return sorted(path.name for path in file.folder.iterdir())


def test_what_is_asked_and_what_is_kept(web: Web) -> None:
    told: list[Any] = []
    file = remote._Remote(URL, Fetching(progress=lambda *now: told.append(now)))
    assert (file.known(), remote.is_known(URL)) == (None, False)
    with file.alone():
        assert file.about() == (len(DATA), '"1"')
        assert file.about() == file.known() == (len(DATA), '"1"')
        assert web.asked == [(0, 0)], "asked once"
        assert file.fetch((-100, None)).read(200) == DATA[-100:]
        assert file.fetch((10, 9999), True).read(9999) == DATA[10:]
        assert web.asked[1:] == [(9900, 9999), (10, 9999)]
        assert len(set(map(id, web.sessions))) == 1, "over one connection"
        assert file.about(anew=True) == (len(DATA), '"1"')
        assert web.asked[3:] == [(0, 0)]
    assert kept(file) == ["about.json", "lock", "range-9900-9999"]
    assert json.loads((file.folder / "about.json").read_bytes()) == {
        "size": len(DATA), "version": '"1"',
    }  # fmt: skip
    assert told == [
        ("fetching", 100, 100), ("fetching", 8192, 9990), ("fetching", 9990, 9990),
    ]  # fmt: skip
    assert remote.is_known(URL)
    web.version = '"2"'
    with file.alone():
        assert file.about() == (len(DATA), '"1"')
        with pytest.raises(RomfsError) as caught:
            file.fetch((0, 5))
    assert caught.value.line == (
        f"the server has another version now ({URL}); run the command again"
    )
    assert kept(file) == ["lock"]
    with file.alone():
        file.about()
        (file.folder / "range-1-2").touch()
        web.version = '"3"'
        file.about(anew=True)
    assert kept(file) == ["about.json", "lock"], "nothing of an older version"


def test_a_part_that_was_cut_goes_on(web: Web) -> None:
    file = remote._Remote(URL, Fetching())
    web.cut = 3000
    with file.alone():
        assert file.fetch((0, 8999)).read(9999) == DATA[:9000]
        assert web.asked[1:] == [(0, 8999), (3000, 8999), (6000, 8999)]
        web.cut = 0
        with pytest.raises(RomfsError) as caught:
            file.fetch((0, 9))
    assert caught.value.line == (
        "the download failed: the server sent less than was asked for "
        f"({URL}); repeat the command: it continues where it stopped"
    )
    assert web.asked[4:] == [(0, 9)] * 4
    (file.folder / "range-0-9.part").write_bytes(DATA[:10])
    with file.alone():
        assert file.fetch((0, 9)).read(99) == DATA[:10], "it was all there"
    assert len(web.asked) == 8


def test_a_server_that_sends_more_than_was_asked_for(web: Web) -> None:
    told: list[Any] = []
    web.more = bytes(3 * 8192)
    file = remote._Remote(URL, Fetching(progress=lambda *now: told.append(now)))
    with file.alone():
        assert file.fetch((0, 8999)).read(9999) == DATA[:9000]
    assert (file.folder / "range-0-8999").read_bytes() == DATA[:9000]
    assert told == [("fetching", 8192, 9000), ("fetching", 9000, 9000)]


def test_a_download_that_fills_the_disk(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zip is not at fault, and what is known of it stays."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    zipped = remote.remote_zip(URL, Fetching())
    monkeypatch.setattr(remote, "open", lambda path, mode: Full(), raising=False)
    with pytest.raises(RomfsError) as caught, worded():
        zipped.infos()
    assert caught.value.line == (
        f"no space left on device ({zipped.folder}/range-0-9999.part); free space there and try "
        "again, your edits are kept; $ROMFSFS_CACHE_DIR names another place"
    )
    assert remote.is_known(URL)


@pytest.mark.parametrize(
    ("offline", "update", "asked"),
    [(False, False, 0), (False, True, 1), (True, True, 0), (True, False, 0)],
)
def test_when_a_zip_that_is_known_is_asked_about(
    web: Web, offline: bool, update: bool, asked: int
) -> None:
    with pytest.raises(RomfsError) as caught:
        remote.remote_zip(URL, Fetching(offline=True))
    assert caught.value.line == f"it is not on this machine ({URL}); repeat without --offline"
    assert web.asked == []
    remote.remote_zip(URL, Fetching())
    assert web.asked == [(0, 0)]
    zipped = remote.remote_zip(URL, Fetching(offline=offline, update=update))
    assert len(web.asked) == 1 + asked
    assert zipped.name == URL
    assert zipped.identity() == repr(remote._About(len(DATA), '"1"'))
    assert zipped.folder == archive.zip_folder(URL)
    with pytest.raises(RomfsError, match="not on this machine" if offline else "cannot read"):
        zipped.infos()
    assert remote.is_known(URL) == offline, "nothing is kept of what is no zip"


def test_a_server_that_sends_no_parts(web: Web) -> None:
    web.parts = False
    with pytest.raises(RomfsError) as caught:
        remote.remote_zip(URL, Fetching())
    assert caught.value.line == (
        f"the server does not send parts of a file ({URL}); download the whole file, and name it "
        "with --from"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (requests.exceptions.SSLError("bad"), "its certificate is not accepted: bad ({}); set "
         "$SSL_CERT_FILE to your organisation's certificates"),
        (requests.exceptions.InvalidSchema("odd"), "cannot fetch it: odd ({})"),
        (requests.exceptions.InvalidURL("odd"), "cannot fetch it: odd ({})"),
        (ValueError("odd"), "cannot fetch it: odd ({})"), (None, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("url", [URL, "http://x"])
def test_how_a_server_is_asked(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str, url: str
) -> None:
    """With the system's certificates; of https no redirect leads to http."""
    closed: list[bool] = []

    class Answer:
        status_code = 200

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            closed.append(True)

    asked: list[object] = []

    class Session:
        verify: object = None

        def __init__(self) -> None:
            self.adapters = {"http://": 1, "https://": 2}

        def get(self, url: str, **how: object) -> Answer:
            asked.append(how["verify"])
            if error is not None:
                raise error
            return Answer()

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for cafile, capath, used in (("a", "b", "a"), (None, "b", "b"), (None, None, True)):
        where = SimpleNamespace(cafile=cafile, capath=capath)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda where=where: where)
        session: Any = Session()
        if error is None:
            with remote._answer(session, url, {}):
                assert closed == []
            assert closed.pop()
        else:
            with pytest.raises(RomfsError) as caught, remote._answer(session, url, {}):
                pass
            assert caught.value.line == said.format(url)
        assert session.verify == used
        assert list(session.adapters) == (["https://"] if url == URL else ["http://", "https://"])
    monkeypatch.setenv("SSL_CERT_FILE", "mine")
    with contextlib.suppress(RomfsError), remote._answer(session, url, {}):
        pass
    assert asked == [None, None, None, "mine"]


@pytest.mark.parametrize(
    ("text", "version"),
    [(None, ""), (b"4.8.1", "4.8.1"), (b" v4.8.1\n", " v4.8.1\n"), (b"x", ""), (b"\xff", "")],
)
def test_which_version_was_the_newest(
    monkeypatch: pytest.MonkeyPatch, text: bytes | None, version: str
) -> None:
    """It is asked for where it is not known, or anew; and offline never."""
    file = archive.zip_folder(published.VERSION_URL) / "version"
    if text is not None:
        file.write_bytes(text)
    assert published.known_version() == version
    known = {f"{published.RELEASE_URL}v4.8.1/openmv-ide-resources-4.8.1.zip"}
    monkeypatch.setattr(remote, "is_known", lambda url: url in known)
    assert published.is_known() == (version == "4.8.1")
    asked: list[str] = []

    def newest(**how: Any) -> str:
        try:
            return published._newest(Fetching(agree=asked.append, **how), "5 MB")
        except RomfsError as error:
            return error.line

    page = "<html>" + "x" * 50
    monkeypatch.setattr(remote, "fetch_text", lambda url, limit: asked.append(url) or page)
    no = "nothing has been downloaded yet (github.com/openmv); repeat without --offline"
    assert newest(offline=True) == newest(offline=True, update=True) == (version or no)
    assert asked == []
    wrong = f"not a version number: {page[:40]!r} ({published.VERSION_URL})"
    assert newest() == (version or wrong)
    assert newest(update=True) == wrong
    ask = [] if version else ["5 MB from github.com/openmv"]
    url = [published.VERSION_URL]
    assert asked == ask + (url if ask else []) + ask + url
    page = " v5.0.12 "
    assert newest(update=True) == "5.0.12"
    assert file.read_bytes() == b"5.0.12"


def test_where_resources_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own copies, the program on PATH, where programs are installed; then what is of
    third parties. Each once, and only with what is needed in it."""
    home = tmp_path / "home"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    ide = tmp_path / "ide-5"
    names = (
        "home/.config/OpenMV/qtcreator/firmware", "home/.config/OpenMV/openmvide/models",
        "home/.config/OpenMV/other/none", "home/.config/OpenMV/openmvide/third-party/b/models",
        "home/.config/OpenMV/openmvide/third-party/a/firmware",
        "home/.config/OpenMV/openmvide/third-party/c/none", "ide-5/share/qtcreator/models",
        "home/openmvide/share/qtcreator/models", "ide-5/bin",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    config = home / ".config" / "OpenMV"
    found = [config / "openmvide", config / "qtcreator", home / "openmvide/share/qtcreator"]
    vendors = [config / "openmvide" / "third-party" / each for each in "ab"]
    assert places.resource_folders() == [*found, *vendors]
    program = ide / "bin" / "openmvide"
    program.touch(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "openmvide").symlink_to(program)
    assert places.resource_folders() == [
        *found[:2], ide / "share" / "qtcreator", found[2], *vendors,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://[x", "not a URL: Invalid IPv6 URL (http://[x); {}"),
        ("ftp://x/y.zip", "not a URL of a server: http or https, and a name (ftp://x/y.zip); {}"),
        ("https://", "not a URL of a server: http or https, and a name (https://); {}"),
        ("/none", "there is no such model zoo (/none); {}"),
        ("/dev/null", "there is no such model zoo (/dev/null); {}"),
    ],
)
def test_what_is_no_source_in_words(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(text, Fetching())
    how = "name one with --from: a resource folder, a zip, or a URL"
    assert caught.value.line == said.format(how)


@pytest.mark.parametrize("limited", [True, False])
def test_patterns_run_with_little_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limited: bool
) -> None:
    resource = patterns.resource
    limits: list[Any] = []

    def limit(kind: int, values: tuple[int, int]) -> None:
        limits.append((kind, values))
        if kind == resource.RLIMIT_AS and not limited:
            raise ValueError

    monkeypatch.setattr(resource, "setrlimit", limit)
    asked = json.dumps(([(1, "a", "N6")], ["a", "b"], "H7"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked))
    runpy.run_path(str(patterns.__file__), run_name="__main__")
    assert json.loads(capsys.readouterr().out) == {"shown": [1]}
    assert limits == [(resource.RLIMIT_CPU, (1, 2)), (resource.RLIMIT_AS, (1 << 29,) * 2)]


def test_a_file_of_a_zip_that_is_whole(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    data = os.urandom(3000)
    zipped = archive.local_zip(make_zip({"a.lite": data, "folder/": b""}))
    (info,) = zipped.infos()
    path = tmp_path / "copy"
    found = []
    for content in (data, data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1]), b""):
        path.write_bytes(content)
        found.append(archive._is_whole(path, info))
    path.unlink()
    assert [*found, archive._is_whole(path, info)] == [True, *[False] * 5]


def test_the_largest_file_of_a_zip(
    make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = archive.local_zip(make_zip({"a.lite": b"x" * 100}))
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 99)
    with pytest.raises(RomfsError, match=r"^a file of 100 bytes: no camera"):
        zipped.keep(zipped.infos())
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 100)
    (path,) = zipped.keep(zipped.infos())
    assert path.read_bytes() == b"x" * 100


def test_a_folder_of_a_zip_is_used_by_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: list[int] = []
    monkeypatch.setattr(fcntl, "flock", lambda fd, kind: how.append(kind))
    old = os.umask(0)
    try:
        with archive.locked(tmp_path):
            assert how == [fcntl.LOCK_EX], "it waits"
    finally:
        os.umask(old)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600

    errors: list[Exception] = [zipfile.BadZipFile("x"), struct.error("x")]

    def damaged(path: Path) -> bool:
        raise errors.pop()

    monkeypatch.setattr(zipfile, "is_zipfile", damaged)
    while errors:
        assert archive.is_zip(tmp_path / "x.zip"), "who opens it hears what is wrong"
    monkeypatch.setattr(zipfile, "is_zipfile", lambda path: False)
    assert not archive.is_zip(tmp_path / "x.zip")


def test_a_zip_is_read_alone_and_by_its_end_first(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    @contextlib.contextmanager
    def locked(folder: Path) -> Iterator[None]:
        done.append(("locked", folder))
        yield
        done.append("free")

    class Read:
        def __init__(self, url: str, *, initial_buffer_size: int, fetcher: Any) -> None:
            done.append((url, initial_buffer_size, fetcher(url, 1, x=2)))

        def __enter__(self) -> Read:
            return self

        def __exit__(self, *_: object) -> None:
            done.append("closed")

    monkeypatch.setattr(remote, "locked", locked)
    monkeypatch.setattr(remote.remotezip, "RemoteZip", Read)
    file = remote._Remote(URL, Fetching())
    with file.opened() as opened:
        assert isinstance(opened, Read)
        done.append("read")
    assert web.asked == [(0, 0), (0, len(DATA) - 1)], "all of a file so small"
    assert done == [
        ("locked", file.folder), (URL, 256 << 10, file), "read", "closed", "free",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (subprocess.CalledProcessError(1, "x", stderr=b"Traceback\n  of\nMemoryError: \xff\n"),
         "its patterns cannot be used: MemoryError: \N{REPLACEMENT CHARACTER}"),
        (subprocess.CalledProcessError(-9, "x", stderr=b""), "its patterns take too long"),
        (subprocess.TimeoutExpired("x", 60.0), "its patterns take too long"), (None, ""),
    ],
)  # fmt: skip
def test_how_patterns_are_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str
) -> None:
    asked: list[Any] = []

    def run(argv: Any, **how: Any) -> Any:
        asked.append((argv, how))
        if error is not None:
            raise error
        return SimpleNamespace(stdout=b'{"shown": [1]}')

    monkeypatch.setattr(subprocess, "run", run)
    rules = parse_index('"a", "N6"', "zoo/index.csv")
    if error is None:
        assert rules.shown(["a", "b"], "N6") == ["b"]
    else:
        with pytest.raises(RomfsError) as caught:
            rules.shown(["a", "b"], "N6")
        assert caught.value.line == (
            f"{said} (zoo/index.csv); simplify them, or see the models of all boards with --all"
        )
    given = json.dumps(([[1, "a", "N6"]], ["a", "b"], "N6")).encode()
    how = {"input": given, "capture_output": True, "timeout": 60.0, "check": True}
    assert asked == [([sys.executable, "-I", "-S", Path(patterns.__file__)], how)]
    assert rules.shown(["a", "b"], None) == ["a", "b"]
    assert BoardFilter().shown(["a"], "N6") == ["a"]
    assert len(asked) == 1
