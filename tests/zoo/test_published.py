"""The zoo and the default images that OpenMV publishes, fetched from servers like GitHub's."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError
from zoo_server import FILES, MODELS, Published, proxy

from romfsfs.boards import get_board
from romfsfs.cli import main
from romfsfs.devices.open import open_device
from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide import published as places
from romfsfs.ide import remote
from romfsfs.ide.archive import Fetching
from romfsfs.ide.defaults import DefaultImage, find_defaults, find_version, version_text
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.executor import ENVIRONMENT
from romfsfs.zoo import open_zoo
from romfsfs.zoo.choose import IDE, open_known, open_source
from romfsfs.zoo.sources import Zoo

BLAZE = "google/face/blaze/blaze_128.tflite"
N6 = get_board("OPENMV_N6")
AE3 = get_board("OPENMV_AE3")
IMAGE = encode({"main.py": b"print('default')\n", "data": os.urandom(200_000)}, DEFAULT_RULES)
OLDER = encode({"main.py": b"print('older')\n", "data": os.urandom(200_000)}, DEFAULT_RULES)
YES = Fetching(agree=lambda what: None)
OFFLINE = Fetching(offline=True)


def content(zoo: Zoo, path: str) -> bytes:
    with open(zoo.open(path), "rb") as file:
        return file.read()


def found(firmware: str = "", fetching: Fetching = YES) -> DefaultImage:
    return find_defaults(N6, firmware=firmware, fetching=fetching)[0]


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, str]]:
    assert main(["zoo", "list", "--json", "--all", *words]) == 0
    return {model["path"]: model for model in json.loads(capsys.readouterr().out)["models"]}


def test_the_list_costs_little_and_a_model_what_it_is(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    models = listed(capsys, "--yes")
    assert set(models) == MODELS
    assert models[BLAZE]["title"] == "BlazeFace"
    server = published.server
    assert server.sent < len(server.files[path]) // 2
    requests = len(server.requests)
    assert set(listed(capsys, "--offline")) == MODELS
    assert len(server.requests) == requests
    zoo = open_source(IDE, OFFLINE)
    assert zoo.open_here(BLAZE) is None
    with pytest.raises(RomfsError, match="not on this machine") as caught:
        zoo.open(BLAZE)
    assert "--offline" in caught.value.next_step
    assert content(open_source(IDE, Fetching()), BLAZE) == FILES[BLAZE]
    assert content(zoo, BLAZE) == FILES[BLAZE]
    assert all(request.status != 416 for request in server.requests)


def test_shapes_are_shown_of_what_is_here_or_fetched_for_them(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.publish("4.8.1")
    assert main(["zoo", "list", "--yes", "--all"]) == 0
    assert "--shapes" in capsys.readouterr().err
    assert main(["zoo", "list", "--all", "--shapes"]) == 0
    assert "--shapes" not in capsys.readouterr().err
    assert content(open_source(IDE, OFFLINE), BLAZE) == FILES[BLAZE]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y", "n"])
def test_it_is_asked_once_before_anything_is_sent(
    published: Published, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:  # fmt: skip
    published.publish("4.8.1")
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    assert main(["zoo", "list", "--all"]) == (answer != "y")
    asked = capsys.readouterr().err
    assert "Download a list of less than 1 MB from github.com/openmv? [y/N]" in asked
    if answer == "y":
        assert main(["zoo", "list", "--all"]) == 0
        assert "Fetch" not in capsys.readouterr().err
    else:
        assert "nothing was downloaded" in asked
        assert published.server.requests == []


def test_nobody_is_there_to_be_asked(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.publish("4.8.1")
    assert main(["zoo", "list", "--all"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert main(["zoo", "list", "--all", "--offline"]) == 1
    assert "nothing has been downloaded yet" in capsys.readouterr().err
    assert open_zoo(None) is None
    assert published.server.requests == []


def test_the_defaults_of_the_newest_version(published: Published) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE, OPENMV_AE3__1=OLDER)
    image = found()
    assert image.read() == IMAGE
    assert image.version == (4, 8, 1)
    assert image.label == (
        f"OPENMV_N6 4.8.1 ({published.server.url}{path}, firmware/OPENMV_N6/romfs0.img)"
    )
    assert published.server.sent < len(published.server.files[path]) - 300_000
    published.server.requests.clear()
    assert found(fetching=OFFLINE).read() == IMAGE
    assert published.server.requests == []
    assert find_defaults(AE3, 1, fetching=YES)[0].read() == OLDER
    with pytest.raises(RomfsError, match=r"no default image of OPENMV2.* github"):
        find_defaults(get_board("OPENMV2"), fetching=YES)


@pytest.mark.parametrize(
    ("firmware", "version"),
    [
        ("OpenMV 4.7.0, MicroPython 1.25", (4, 7, 0)),
        ("4.8.0", (4, 8, 0)),
        ("4.6.0", (4, 8, 0)),  # never published
        ("4.5.9", (4, 8, 0)),  # resources of this number, with other firmware
        ("", (4, 8, 0)),
    ],
)
def test_the_version_of_the_cameras_firmware_where_there_is_one(
    published: Published, firmware: str, version: tuple[int, int, int]
) -> None:
    published.publish("4.5.9", firmware="4.5.2", OPENMV_N6__0=OLDER)
    published.publish("4.7.0", OPENMV_N6__0=OLDER)
    published.publish("4.8.1", firmware="4.8.0", OPENMV_N6__0=IMAGE)
    image = found(firmware)
    assert image.version == version
    assert image.read() == (OLDER if version == (4, 7, 0) else IMAGE)
    assert found(firmware, OFFLINE) == image


def test_a_newer_version_is_seen_by_update(published: Published) -> None:
    published.publish("4.8.0", OPENMV_N6__0=OLDER)
    assert found().version == (4, 8, 0)
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    assert found().version == (4, 8, 0)
    assert found(fetching=Fetching(update=True)).version == (4, 8, 1)
    assert found().read() == IMAGE


def test_what_was_cut_goes_on_where_it_stopped(published: Published) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    open_source(IDE, YES)
    server = published.server
    places.resources(YES, "").keep([
        info for info in places.resources(YES, "").infos() if "settings" in info.filename
    ])  # fmt: skip

    def parts() -> list[tuple[int, int]]:
        wanted = [r.range for r in server.requests if r.path == path and r.status == 206]
        return [(int(first), int(last)) for first, _, last in (r.partition("-") for r in wanted)]

    server.requests.clear()
    server.drop_after = [50_000, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(RomfsError) as caught:
        found()
    assert "continues where it stopped" in caught.value.next_step
    start, end = parts()[0]
    piece = remote._READ
    begun = start + 50_000 // piece * piece
    assert set(parts()[1:]) == {(begun, end)}
    server.requests.clear()
    server.drop_after = [6 * piece, 0, 3 * piece]
    assert found().read() == IMAGE  # the next command
    further = [begun + count * piece for count in (0, 6, 6, 9)]
    assert parts() == [(first, end) for first in further]


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_an_address_that_has_expired_is_asked_for_again(published: Published, status: int) -> None:
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    places.resources(YES, "1 MB").infos()
    published.server.statuses = [status, status]
    assert found().read() == IMAGE


@pytest.mark.parametrize(
    ("status", "why"), [(403, "answered 403"), (404, "has no such file"), (500, "answered 500")]
)
def test_what_the_server_refuses_is_said(published: Published, status: int, why: str) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    if status == 404:
        del published.server.files[path]
        published.server.assets.discard(path)
    else:
        published.server.statuses = [status] * 20
    with pytest.raises(RomfsError, match=why):
        found()
    assert not places.is_known(), "nothing to list, even where the version is known"
    published.server.statuses = []
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    assert found().read() == IMAGE


def test_each_request_begins_at_the_address_that_does_not_expire(published: Published) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    found()
    hosts = [request.host for request in published.server.requests if request.path == path]
    assert hosts == ["127.0.0.1", "localhost"] * (len(hosts) // 2)
    assert all(r.status in (200, 206, 302) for r in published.server.requests)


@pytest.mark.parametrize("where", ["http://127.0.0.1:1/x", "file:///etc/passwd"])
def test_a_redirect_that_gives_up_encryption_is_refused(published: Published, where: str) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    published.server.redirects[path] = where
    with pytest.raises(RomfsError, match="cannot fetch it"):
        found()


def test_a_certificate_that_nobody_vouches_for(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(RomfsError, match="certificate is not accepted") as caught:
        found()
    assert "SSL_CERT_FILE" in caught.value.next_step
    assert published.server.requests == []


def test_a_proxy_of_the_environment(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    with proxy() as running:
        monkeypatch.setenv("https_proxy", running.url)
        assert found().read() == IMAGE
        assert {where.partition(":")[0] for where in running.connected} == {
            "127.0.0.1",
            "localhost",
        }
        running.connected.clear()
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        found(fetching=Fetching(update=True))
        assert running.connected == []


def test_a_release_that_is_replaced_meanwhile_is_never_joined_to_the_old(
    published: Published,
) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=OLDER)
    places.resources(YES, "1 MB").infos()
    published.server.drop_after = [70_000] + [0] * 8
    with pytest.raises(RomfsError, match="continues where it stopped"):
        found()
    published.server.drop_after = []
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    assert path in published.server.files
    with pytest.raises(RomfsError, match="another version now"):
        found()
    assert found().read() == IMAGE


def test_what_is_damaged_in_the_cache_is_fetched_again(published: Published) -> None:
    published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    image = found()
    data = bytearray(image.path.read_bytes())
    data[1000] ^= 1
    image.path.write_bytes(data)
    assert found().read() == IMAGE


def test_what_was_fetched_lies_there_once(published: Published) -> None:
    """A member as a file, and of the zip only its end, where the directory is."""
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    image = found()
    kept = sorted(path.name for path in image.path.parent.iterdir())
    assert [name for name in kept if not re.match(r"[0-9a-f]{16}-", name)] == [
        "about.json", "lock", *(name for name in kept if name.startswith("range-")),
    ]  # fmt: skip
    size = len(published.server.files[path])
    assert [name for name in kept if name.startswith("range-")] == [
        f"range-{max(0, size - remote._DIRECTORY_BYTES)}-{size - 1}"
    ]


def test_two_at_once_fetch_it_once(published: Published) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    places.resources(YES, "1 MB").infos()
    published.server.sent = 0
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: found(), range(4)))
    assert all(image.read() == IMAGE for image in images)
    assert published.server.sent < len(IMAGE) + 50_000
    assert path


def test_a_mount_shows_what_was_listed(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.publish("4.8.1")
    assert open_known(IDE) is None
    listed(capsys, "--yes")
    published.server.requests.clear()
    tree = open_zoo("OPENMV_N6")
    assert tree is not None
    assert [name for name, _ in tree.list("google/face/blaze")] == [
        "blaze_128.tflite",
        "blaze_128.txt",
    ]
    assert published.server.requests == []
    fd, _, size = tree.open(BLAZE)
    assert os.pread(fd, size, 0) == FILES[BLAZE]
    os.close(fd)


def test_no_network_at_all(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "VERSION_URL", "https://127.0.0.1:1/version")
    with pytest.raises(RomfsError) as refused:
        found()
    assert refused.value.what == "the download failed: Connection refused"


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (Exception("Connection aborted.", OSError(errno.EPIPE, "Broken pipe")), "Broken pipe"),
        (Exception(MaxRetryError(HTTPConnectionPool("h"), "/x", OSError(1, "No"))), "No"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_why_a_download_failed_is_said_in_the_system_s_words(wrapped: Exception, said: str) -> None:
    assert remote._cause(wrapped) == said


def test_a_version_that_is_none(published: Published) -> None:
    published.publish("4.8.1")
    published.server.files["/version-v2.txt"] = b"<html>Welcome to our hotel</html>"
    with pytest.raises(RomfsError, match="not a version number: '<html>Welcome"):
        found()
    assert places.known_version() == ""


def test_nothing_is_fetched_that_nobody_agreed_to(published: Published) -> None:
    with pytest.raises(UsageError, match="have not agreed"):
        found(fetching=Fetching())
    assert published.server.requests == []


def test_a_zip_that_somebody_names_is_not_asked_about(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published.publish("4.8.1", OPENMV_N6__0=IMAGE)
    url = published.server.url + path
    assert set(listed(capsys, "--from", url)) == MODELS
    assert find_defaults(N6, 0, url)[0].read() == IMAGE


@pytest.mark.parametrize("known", [False, True])
def test_a_camera_is_reset_without_an_ide(
    published: Published, micropython: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, known: bool,
) -> None:  # fmt: skip
    """With the defaults of its firmware, or with others, which it is told of."""
    monkeypatch.setenv(ENVIRONMENT, str(micropython))
    with Simulator(preset("OPENMV_N6")) as camera:
        assert main(["reset", camera.port, "--force", "--yes", "--offline"]) == 1
        assert "nothing has been downloaded yet" in capsys.readouterr().err
        firmware = "9.9.9"
        if known:
            with contextlib.closing(open_device(camera.port)) as opened:
                firmware = opened.info().firmware
        version = find_version(firmware)
        assert version is not None
        published.publish(version_text(version), OPENMV_N6__0=IMAGE)
        published.publish("99.0.1", OPENMV_N6__0=OLDER)
        assert main(["reset", camera.port, "--force"]) == 2
        assert "Download up to 25.2 MB from github.com/openmv?" in capsys.readouterr().err
        assert published.server.requests == []
        assert main(["reset", camera.port, "--force", "--yes"]) == 0
        holds = bytes(camera.flash[0].content)
        told = capsys.readouterr().err
        if known:
            assert holds.startswith(IMAGE)
            assert "were not found" not in told
        else:
            assert holds.startswith(OLDER)
            assert "its default contents were not found, those of 99.0.1 are used" in told
