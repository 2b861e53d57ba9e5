"""Downloads that are cut, resumed, refused and checked."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from zoo_server import Server

from romfsfs.errors import RomfsError, VerifyError
from romfsfs.system.files import digest_bytes
from romfsfs.zoo.download import download, kept

DATA = bytes(range(256)) * 2000  # 512,000 bytes


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "zoo.zip"


def leftovers(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if ".part" in p.name)


def test_a_file_is_kept_with_its_digest_and_not_asked_for_again(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    seen: list[tuple[str, int, int]] = []
    fetched = download(
        server.url + "/zoo.zip", target, progress=lambda *report: seen.append(report)
    )
    assert fetched.digest == digest_bytes(DATA)
    assert target.read_bytes() == DATA
    assert ("downloading", len(DATA), len(DATA)) in seen
    record = json.loads((target.parent / "zoo.zip.json").read_text())
    assert record["sha256"] == digest_bytes(DATA)
    assert record["url"] == server.url + "/zoo.zip"
    assert download(server.url + "/zoo.zip", target) == fetched
    assert len(server.asked) == 1
    assert leftovers(target) == []


def test_a_cut_connection_is_resumed_at_the_byte_where_it_stopped(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    server.drop_after = [100_000, 150_000]
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=250000-"]


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(server: Server, target: Path) -> None:
    server.files["/zoo.zip"] = DATA
    server.drop_after = [300_000, 0, 0, 0]
    with pytest.raises(RomfsError) as caught:
        download(server.url + "/zoo.zip", target)
    assert "goes on where it stopped" in caught.value.next_step
    assert not target.exists()
    server.asked.clear()
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA
    assert server.asked == [("/zoo.zip", "bytes=300000-")]


def test_a_server_that_ignores_ranges_sends_everything_again(server: Server, target: Path) -> None:
    server.files["/zoo.zip"] = DATA
    server.ranges = False
    server.drop_after = [400_000]
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA
    assert server.asked[-1] == ("/zoo.zip", "bytes=400000-")


def test_another_version_since_is_never_joined_to_what_came_before(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    server.drop_after = [300_000, 0, 0, 0]
    with pytest.raises(RomfsError):
        download(server.url + "/zoo.zip", target)
    server.files["/zoo.zip"] = DATA[::-1]
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA[::-1]


def test_without_a_version_nothing_is_resumed_unless_the_digest_is_known(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    server.etags = False
    server.drop_after = [300_000]
    download(server.url + "/zoo.zip", target)
    assert [asked for _, asked in server.asked] == [None, None]
    server.asked.clear()
    server.drop_after = [300_000]
    other = target.with_name("other")
    download(server.url + "/zoo.zip", other, sha256=digest_bytes(DATA))
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-"]
    assert other.read_bytes() == DATA


def test_a_part_that_was_complete_when_the_process_died_is_used(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    server.drop_after = [300_000, 0, 0, 0]
    with pytest.raises(RomfsError):
        download(server.url + "/zoo.zip", target)
    target.with_name("zoo.zip.part").write_bytes(DATA)
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA


def test_a_wrong_digest_or_size_is_a_verification_mismatch_and_leaves_nothing(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    with pytest.raises(VerifyError, match="SHA-256"):
        download(server.url + "/zoo.zip", target, sha256="0" * 64)
    with pytest.raises(VerifyError, match="bytes instead of"):
        download(server.url + "/zoo.zip", target, size=1000)
    server.lengths = False
    with pytest.raises(VerifyError, match="more than 1,000 bytes"):
        download(server.url + "/zoo.zip", target, size=1000)
    assert not target.exists()
    assert leftovers(target) == []


@pytest.mark.parametrize("lengths", [True, False])
def test_what_never_ends_is_bounded(server: Server, target: Path, lengths: bool) -> None:
    server.files["/zoo.zip"] = DATA
    server.lengths = lengths
    with pytest.raises(RomfsError, match="larger than the 100,000 bytes"):
        download(server.url + "/zoo.zip", target, limit=100_000)
    assert leftovers(target) == []


def test_update_asks_whether_there_is_another_version(server: Server, target: Path) -> None:
    url = server.url + "/zoo.zip"
    server.files["/zoo.zip"] = DATA
    first = download(url, target)
    assert download(url, target, update=True) == first
    server.files["/zoo.zip"] = b"new"
    assert download(url, target, update=True).digest == digest_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_changed_file_in_the_cache_is_noticed(server: Server, target: Path) -> None:
    server.files["/zoo.zip"] = DATA
    download(server.url + "/zoo.zip", target)
    target.write_bytes(b"damaged")
    assert kept(target) is None
    download(server.url + "/zoo.zip", target)
    assert target.read_bytes() == DATA


def test_passing_trouble_is_waited_out_and_lasting_trouble_is_named(
    server: Server, target: Path
) -> None:
    server.files["/zoo.zip"] = DATA
    server.statuses = [503, 503]
    download(server.url + "/zoo.zip", target)
    with pytest.raises(RomfsError, match="404"):
        download(server.url + "/none.zip", target.with_name("none"))
    with pytest.raises(RomfsError, match="refused"):
        download("http://127.0.0.1:1/zoo.zip", target.with_name("refused"))
    with pytest.raises(RomfsError, match="cannot download from there"):
        download("ftp://127.0.0.1/zoo.zip", target.with_name("ftp"))


def test_redirects_are_followed_but_not_out_of_http(server: Server, target: Path) -> None:
    server.files["/zoo.zip"] = DATA
    server.redirects = {"/latest": "/zoo.zip", "/out": "ftp://127.0.0.1/zoo.zip"}
    download(server.url + "/latest", target)
    assert target.read_bytes() == DATA
    with pytest.raises(RomfsError, match="refused: a redirect"):
        download(server.url + "/out", target.with_name("out"))


def test_a_server_that_says_nothing_is_given_up(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/zoo.zip"
        with pytest.raises(RomfsError, match="timed out"):
            download(url, target, timeout=0.05)


def test_two_at_once_download_it_once(server: Server, target: Path) -> None:
    server.files["/zoo.zip"] = DATA
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download(server.url + "/zoo.zip", target)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 4
    assert len(set(results)) == 1
    assert len(server.asked) == 1
