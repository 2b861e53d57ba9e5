"""romfsfs from Python, as its documentation shows it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import romfsfs
from romfsfs.errors import ConversionError, DeviceAbsent, SessionBusy, UsageError
from romfsfs.session.session import Session, sessions
from romfsfs.simulator import Simulator
from romfsfs.system.files import digest_file


def test_continuous_integration_commits_to_three_cameras(
    camera: Callable[..., Simulator], product: Path, tmp_path: Path
) -> None:
    digest = romfsfs.build(product, tmp_path / "ci.img", board="OPENMV4P")
    assert digest == digest_file(tmp_path / "ci.img")
    for simulator in (camera(), camera(), camera()):
        with romfsfs.open(simulator.port) as editor:
            shutil.copytree(product, editor.path, dirs_exist_ok=True)
            assert {entry.path for entry in editor.status().entries} >= {"app.py", "lib/net.py"}
            report = editor.commit()
            assert report.digest == digest, "the same tree gives the same bytes, there as here"
            assert report.write is not None
            assert report.write.verified
            (editor.path / "app.py").write_text("def run():\n    return 43\n")
            changed = editor.commit(compact=True)
        (product / "app.py").write_text("def run():\n    return 43\n")
        assert changed.digest == romfsfs.build(product, tmp_path / "2.img", board="OPENMV4P")
        (product / "app.py").write_text("def run():\n    return 42\n")


def test_an_image_file_is_edited_and_reverted(tmp_path: Path) -> None:
    image = tmp_path / "app.img"
    with romfsfs.open(image, board="OPENMV_AE3", new=True) as editor:
        (editor.path / "app.py").write_text("print('hello')\n")
        assert "A app.py -> app.mpy" in editor.status().text() or editor.status().pending
        report = editor.commit()
        assert report.digest == digest_file(image)
        with pytest.raises(SessionBusy):
            romfsfs.open(image)
    with romfsfs.open(image) as editor:
        (editor.path / "app.py").write_text("broken(\n")
        with pytest.raises(ConversionError):
            editor.commit()
        assert editor.revert() == ["app.py"]
        assert editor.commit().clean
        other = editor.commit_to(str(tmp_path / "copy.img"))
    assert other.digest == digest_file(tmp_path / "copy.img") == report.digest


def test_what_is_refused_changes_nothing_of_what_is_open(tmp_path: Path) -> None:
    """It was another board's afterwards."""
    with romfsfs.open(tmp_path / "app.img", board="OPENMV_AE3", new=True) as editor:
        with pytest.raises(SessionBusy):
            romfsfs.open(tmp_path / "app.img", board="OPENMV_N6")
        assert Session.load(editor.session.folder).info == editor.session.info


def test_images_for_several_boards(product: Path, tmp_path: Path) -> None:
    outcomes = romfsfs.build_many(product, tmp_path / "out", ["OPENMV4P", "OPENMV_AE3:1"])
    assert [each.order.image.name for each in outcomes] == ["OPENMV4P.img", "OPENMV_AE3.1.img"]
    for each in outcomes:
        assert each.built is not None
        assert each.built.digest == digest_file(each.order.image)
    with pytest.raises(UsageError):
        romfsfs.build_many(product, tmp_path / "out", ["OPENMV_5"])


def test_what_the_package_offers() -> None:
    for name in romfsfs.__all__:
        assert getattr(romfsfs, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError):
        romfsfs.nothing  # noqa: B018


def test_an_editor_that_is_closed_touches_nothing(tmp_path: Path) -> None:
    """Who mounted or opened the same since must not lose the tree to a second `close`."""
    image = tmp_path / "app.img"
    with romfsfs.open(image, new=True) as first:
        (first.path / "a.txt").write_text("a")
        first.commit()
        first.close()
        with romfsfs.open(image) as second:
            first.close()
            assert (second.path / "a.txt").read_text() == "a"
            (second.path / "b.txt").write_text("b")
            for use in (first.status, first.commit, first.revert, lambda: first.path):
                with pytest.raises(UsageError, match="the editor is closed"):
                    use()
            with pytest.raises(UsageError, match="the editor is closed"):
                first.commit_to(str(tmp_path / "copy.img"))
            second.commit()


def test_who_is_refused_changes_nothing(tmp_path: Path) -> None:
    image = tmp_path / "app.img"
    with romfsfs.open(image, board="OPENMV_AE3", new=True) as editor:
        with pytest.raises(SessionBusy):
            romfsfs.open(image, board="OPENMV4")
        (editor.path / "a.txt").write_text("a")
        editor.commit()
    with romfsfs.open(image) as editor:
        assert editor.session.info.board == "OPENMV_AE3"
    with pytest.raises(DeviceAbsent):
        romfsfs.open(tmp_path / "never.img")
    assert [session.info.source for session in sessions()] == [str(image)]


ZERO = "a\0b"


@pytest.mark.parametrize(
    "call",
    [
        lambda: romfsfs.open(ZERO), lambda: romfsfs.find(ZERO), lambda: romfsfs.unmount(ZERO),
        lambda: romfsfs.mount("a.img", ZERO),
        lambda: romfsfs.build(ZERO, "b.img"), lambda: romfsfs.build("tree", ZERO),
        lambda: romfsfs.build_many("tree", f"{ZERO}/{{board}}", ["OPENMV4", "OPENMV_N6"]),
        lambda: romfsfs.push(ZERO, ["b.img"]),
    ],
)  # fmt: skip
def test_a_name_with_a_zero_byte_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    with pytest.raises(UsageError, match="a name cannot contain a NUL byte"):
        call()


def test_a_camera_with_a_zero_byte_in_its_name_ends_no_other(tmp_path: Path) -> None:
    image, other = tmp_path / "a.img", tmp_path / "b.img"
    (tmp_path / "tree").mkdir()
    for path in (image, other):
        romfsfs.build(tmp_path / "tree", path)
    outcomes = romfsfs.push(image, [str(other), ZERO])
    assert outcomes.pop(str(other)) is None
    assert isinstance(outcomes.pop(ZERO), UsageError)


def test_a_push_to_a_camera_that_is_open_changes_nothing(
    camera: Callable[..., Simulator], product: Path, tmp_path: Path
) -> None:
    simulator = camera()
    romfsfs.build(product, tmp_path / "a.img")
    with romfsfs.open(simulator.port) as editor:
        board = editor.session.info.board
        editor._device.close()  # the port is free between two commands
        outcome = romfsfs.push(tmp_path / "a.img", [simulator.port], board="OPENMV_N6")
        assert isinstance(outcome[simulator.port], SessionBusy)
        assert next(iter(sessions())).info.board == board != "OPENMV_N6"


@pytest.mark.mount
def test_a_mount_is_made_found_and_ended(tmp_path: Path) -> None:
    image, place = tmp_path / "app.img", tmp_path / "cam"
    place.mkdir()
    romfsfs.build(tmp_path / "cam", image)
    mounted = romfsfs.mount(image, place, board="OPENMV4P")
    assert mounted.mountpoint == place
    try:
        (place / "lib").mkdir()
        (place / "lib/app.py").write_text("x = 1\n")
        found = romfsfs.find(place / "lib")
        assert (found.mountpoint, found.inside) == (place, "lib")
        assert not found.session.status().clean
    finally:
        romfsfs.unmount(place)
    assert list(place.iterdir()) == []
    again = romfsfs.find(image)
    assert again.mountpoint is None
    assert (again.session.work / "lib/app.py").read_text() == "x = 1\n"
    with pytest.raises(UsageError):
        romfsfs.find(tmp_path / "nowhere")
