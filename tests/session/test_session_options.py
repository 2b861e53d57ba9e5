"""`romfs.toml` in a work tree: obeyed at once, never stored, and not obeyed when it is a gift."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.errors import ConversionError
from romfsfs.image.reader import read_image
from romfsfs.session.plan.shadow import Change
from romfsfs.session.revert import leave_work

TREE = """
board = "OPENMV4"
exclude = ["*.psd"]
["raw.py"]
convert = false
["lib/*.bin"]
align = 256
"""


def problems(desk: Desk) -> list[str]:
    return [problem.text for problem in desk.session.status().errors]


def test_it_is_obeyed_and_never_stored(desk: Desk) -> None:
    desk.open()
    for path in ("raw.py", "other.py", "pic.psd"):
        desk.write(path, b"x = 1\n")
    desk.write("lib/big.bin", bytes(999))
    desk.write("romfs.toml", TREE.encode())
    status = desk.session.status()
    assert status.record()["board"] == "OPENMV4"
    assert status.capacity == 128 << 10
    entries = {entry.path: entry for entry in status.entries}
    assert entries["romfs.toml"].change is entries["pic.psd"].change is Change.IGNORED
    assert entries["raw.py"].stored_as == "raw.py"
    assert entries["other.py"].stored_as == "other.mpy"
    desk.commit()
    assert sorted(desk.stored()) == ["a.txt", "lib/b.bin", "lib/big.bin", "other.mpy", "raw.py"]
    (lib,) = [n for n in read_image(desk.image.read_bytes()).root.children if n.name == "lib"]
    assert [child.extent.offset % 256 for child in lib.children] == [0, 0]
    assert desk.session.status().clean


def test_a_change_of_it_counts_at_once(desk: Desk) -> None:
    desk.open()
    desk.write("raw.py", b"x = 1\n")
    stored = []
    for value in ("false", "true", "false"):  # each within a tick of the clock of file times
        desk.write("romfs.toml", f'["raw.py"]\nconvert = {value}\n'.encode())
        (entry,) = [e for e in desk.session.status().entries if e.path == "raw.py"]
        stored.append(entry.stored_as)
    assert stored == ["raw.py", "raw.mpy", "raw.py"]
    (desk.work / "romfs.toml").unlink()
    (entry,) = [e for e in desk.session.status().entries if e.path == "raw.py"]
    assert entry.stored_as == "raw.mpy"


def test_what_the_command_line_says_wins(desk: Desk) -> None:
    yes = Options((Rule("raw.py", FileOptions(convert=True)),))
    desk.open(board="OPENMV_N6", options=yes, excludes=("!*.psd",))
    desk.write("romfs.toml", TREE.encode())
    desk.write("raw.py", b"x = 1\n")
    desk.write("pic.psd", b"1")
    status = desk.again().session.status()  # remembered
    assert status.record()["board"] == "OPENMV_N6"
    entries = {entry.path: entry for entry in status.entries}
    assert entries["raw.py"].stored_as == "raw.mpy"
    assert entries["pic.psd"].change is Change.ADDED


def test_a_mistake_stops_the_commit_and_is_named_with_its_line(desk: Desk) -> None:
    desk.open()
    before = desk.image.read_bytes()
    desk.write("raw.py", b"x = 1\n")
    desk.write("romfs.toml", b'["raw.py"]\nconvert = "no"\n')
    assert problems(desk) == ["romfs.toml: line 2: convert is 'no'; it can be true or false"]
    with pytest.raises(ConversionError) as refused:
        desk.commit()
    assert "romfs.toml: line 2: convert is 'no'" in refused.value.detail
    assert desk.image.read_bytes() == before
    desk.write("romfs.toml", b'["raw.py"]\nconvert = false\n')
    assert problems(desk) == []
    desk.commit()
    assert desk.stored()["raw.py"] == b"x = 1\n"


def test_one_that_came_with_the_image_is_a_file_like_any_other(tmp_path) -> None:
    """Nobody else's image chooses which arguments programs are called with here."""
    given = b'["*"]\narguments = ["--output-dir", "/tmp/elsewhere"]\nconvert = false\n'
    desk = Desk.with_image(tmp_path, {"romfs.toml": given})
    desk.open()
    assert desk.session.settings.target.options == Options()
    desk.write("romfs.toml", given + b"align = 4\n")
    desk.write("a.py", b"x = 1\n")
    assert desk.session.settings.target.options == Options()
    desk.commit()
    assert desk.stored()["romfs.toml"] == given + b"align = 4\n"
    assert "a.mpy" in desk.stored()


def test_it_stays_for_the_next_mount(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", TREE.encode())
    desk.write("raw.py", b"x = 1\n")
    desk.commit()
    leave_work(desk.session)
    desk.open()
    assert (desk.work / "romfs.toml").read_text() == TREE
    assert desk.session.status().clean
    assert desk.session.settings.target.options.for_path("raw.py").convert is False


def test_a_changed_option_makes_what_it_touches_stale(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", b"")
    desk.write("app.py", b"x = 1\n")
    desk.write("other.py", b"x = 1\n")
    desk.commit()
    assert desk.session.status().clean
    desk.write("romfs.toml", b'["app.py"]\nconvert = false\n')
    assert desk.changes() == {"app.py": "M"}
    (note,) = [p.message for p in desk.session.status().problems if p.code == "stale"]
    assert "convert was not set, is no)" in note
    desk.commit()
    assert sorted(desk.stored()) == ["a.txt", "app.py", "lib/b.bin", "other.mpy"]
    assert desk.session.status().clean
    desk.write("romfs.toml", b"# nothing chosen\n")
    desk.commit()
    assert "app.mpy" in desk.stored()


def test_another_alignment_is_something_to_commit(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", b'["b.bin"]\nalign = 1024\n')
    status = desk.session.status()
    assert not status.clean
    (problem,) = [p for p in status.problems if p.code == "misaligned"]
    assert problem.path == "lib/b.bin"
    assert problem.message.endswith("1024; the next commit repairs it")
    desk.commit()
    (lib,) = [n for n in read_image(desk.image.read_bytes()).root.children if n.name == "lib"]
    assert lib.children[0].extent.offset % 1024 == 0
    assert desk.session.status().clean
    desk.write("romfs.toml", b"")  # less is wanted: what there is will do
    assert desk.session.status().clean


@pytest.mark.parametrize("what", ["folder", "link", "closed"])
def test_one_that_cannot_be_read_is_a_mistake_too(desk: Desk, tmp_path: Path, what: str) -> None:
    """It must not be as if there were none."""
    desk.open()
    place = desk.work / "romfs.toml"
    if what == "folder":
        place.mkdir()
    elif what == "link":
        (tmp_path / "elsewhere").write_text("")
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_text("")
        place.chmod(0)
        if os.access(place, os.R_OK):  # root reads everything: nothing is wrong then
            assert problems(desk) == []
            return
    (problem,) = problems(desk)
    assert problem.startswith("romfs.toml: it cannot be read: ")


def test_a_pattern_that_names_nothing_is_noted(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", b'["*.bim"]\nalign = 64\n["*.bin"]\nalign = 16\n')
    (note,) = [p for p in desk.session.status().problems if p.code == "options"]
    assert (note.severity, note.text) == ("info", 'romfs.toml: no file matches ["*.bim"]')


def test_a_board_that_something_else_overrides_is_noted(desk: Desk) -> None:
    """A camera that is another one, or --board."""
    desk.open(board="OPENMV_AE3")
    for named, noted in (("OPENMV_AE3", False), ("OPENMV_AE3:1", True), ("OPENMV_N6", True)):
        desk.write("romfs.toml", f'board = "{named}"\n'.encode())
        found = [(p.severity, p.text) for p in desk.session.status().problems if p.path]
        said = (
            f"romfs.toml: its board, {named}, is ignored: this session is for OPENMV_AE3, "
            "partition 0"
        )
        assert found == [("info", said)] * noted


def test_a_board_without_the_partition_of_the_session_is_a_mistake_that_can_be_mended(
    desk: Desk,
) -> None:
    """Mounted for the second core, the project turns to a camera with one: whatever `romfs.toml`
    says, the mount goes on, for the file is edited in it."""
    desk.open(partition=1)
    before = desk.image.read_bytes()
    desk.write("new.bin", b"1")
    desk.write("romfs.toml", b'board = "OPENMV_N6"\n["new.bin"]\nalign = 64\n')
    said = "romfs.toml: OPENMV_N6 has no partition 1, which this session is for; it has 0 (ROMFS)"
    for session in (desk.session, Desk.session_in(desk.session.folder.path)):
        status = session.status()
        assert [problem.text for problem in status.problems if problem.path] == [said]
        assert (status.record()["board"], status.capacity) == (None, None)
        assert session.settings.target.options.for_path("new.bin").align == 64
    with pytest.raises(ConversionError) as refused:
        desk.commit()
    assert refused.value.detail == said
    assert desk.image.read_bytes() == before
    for named, partition in (("OPENMV_N6:0", 0), ("OPENMV_AE3", 1)):
        desk.write("romfs.toml", f'board = "{named}"\n'.encode())
        assert problems(desk) == []
        assert desk.session.info.partition == partition
    desk.commit()
    assert desk.stored()["new.bin"] == b"1"


def test_the_second_partition_of_a_board(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", b'board = "OPENMV_AE3:1"\n')
    status = desk.session.status()
    assert (status.record()["partition"], status.capacity) == (1, 1 << 20)


def test_they_count_where_nothing_is_known_of_the_image(desk: Desk) -> None:
    desk.open()
    desk.write("romfs.toml", TREE.encode())
    desk.session.folder.base.unlink()
    settings = Desk.session_in(desk.session.folder.path).settings
    assert (settings.info.board, settings.excludes.matches("x.psd")) == ("OPENMV4", True)
