"""Images with trees that make no sense here: mounted, another file edited, committed, and the
firmware's own reader finds everything else as it was. Nothing is lost silently.
"""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from real_mount import RealMount, image_tree

from romfsfs.image.varuint import encode

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))
sys.path.append(str(Path(__file__).parents[1] / "image"))
from image_trees import firmware_view
from seeds import image, named, record

#: What is in the way of a mount, of its control directory and of what keeps sessions.
OURS = [".romfs", ".romfs/ctl", ".romfs/status", ".romfs/shadow/a", "lib/.romfs/ctl", "work/a",
        "hidden/b", "base.json", "session.json", "new.img", "app.img.1.tmp",
        ".romfsfs.zoo.a1b2c3", ".fuse_hidden0123456789abcdef",
        ".fuse_hidden00000000000000ff/a"]  # fmt: skip
#: What is never packed when a user makes it.
JUNK = [".DS_Store", "._b", "__MACOSX/._a", ".git/config", ".svn/entries", "a~", "#b#", ".#c",
        "__pycache__/m.pyc", "Thumbs.db", "desktop.ini", ".main.py.AbC123", ".Trash-0/files/x",
        ".goutputstream-ABC123", ".x.swp"]  # fmt: skip
#: Names that tools, shells and other systems trip over.
NAMES = ["~", "-rf", " ", "...", "a\\b", "C:", "nul", "con.txt", "a*?", "$(id)", "`id`", "a;b",
         "%s%n", "..a", "a..", "A.TXT", "a.txt", "\u00e9", "e\u0301", "\u202e", "\ufeff",
         "\U0001f600", "n" * 255, "\u00fc" * 127, "a\nb", "tab\t", "\x1b[2J", "\x7f", "\x01/c",
         "cr\r/a", "x" * 200 + "/" + "y" * 200]  # fmt: skip
#: What would be converted, and cannot be.
BROKEN = {"bad.py": b"def f(:", "main.py": b"def g(:", "m.tflite": b"no model", "x.mpy": b"no",
          "face.xml": b"<opencv_storage><", "both.py": b"print(1)",
          "both.mpy": b"M\x06\x00\x1f"}  # fmt: skip

EDITED = "edited.txt"


#: Not all of it: the firmware looks a path up from the root, in steps.
FIRMWARE_LOOK = """
import sys, vfs
with open(sys.argv[-1], "rb") as file:
    rom = vfs.VfsRom(file.read())
for path in "d/" * 3000 + "leaf", "wide/f9999", "edited.txt":
    print(rom.open(path, "r").read())
print(len(list(rom.ilistdir("wide"))))
"""


def tree_image(files: dict[str, bytes], empty: tuple[str, ...] = ()) -> bytes:
    """An image of any names, with records between that nobody reads."""
    root: dict[str, object] = {}
    for path, data in files.items():
        folder = root
        *parts, name = path.split("/")
        for part in parts:
            folder = folder.setdefault(part, {})  # type: ignore[assignment]
        folder[name] = data
    for path in empty:
        root[path] = {}

    def records(folder: dict[str, object]) -> bytes:
        made = [record(1, b"padding"), record(9, b"unknown")]
        for name, what in folder.items():
            if isinstance(what, dict):
                made.append(named(4, name, records(what)))
            else:
                assert isinstance(what, bytes)
                made.append(named(5, name, record(9, b"?") + record(2, what) + record(7, b"more")))
        return b"".join(made)

    return image(records(root))


def edited_and_committed(place: RealMount, data: bytes) -> str:
    """Mount it, edit one file and commit; what `status` said."""
    place.image.write_bytes(data)
    before = image_tree(data)
    place.mount("--board", "OPENMV_AE3")
    (place.mnt / EDITED).write_bytes(b"after")
    said = place.run("status", place.mnt)
    place.run("commit", place.mnt)
    assert place.stored() == {**before, EDITED: b"after"}
    assert list(place.stored()) == list(before)
    return said


def test_names_in_the_way_are_kept_byte_for_byte(
    place: RealMount, micropython: Path, tmp_path: Path
) -> None:
    paths = [*(path for path in OURS if path != ".romfs"), *JUNK, *NAMES]
    files = {path: f"what is in {number}".encode() for number, path in enumerate(paths)}
    data = tree_image({**files, **BROKEN, EDITED: b"before"}, empty=("empty", ".empty"))
    said = edited_and_committed(place, data)
    assert ".romfs" in said  # it is hidden, which is said
    assert "\x1b" not in said
    listed = {name for name in os.listdir(place.mnt) if name != ".romfs"}
    assert listed == {path.partition("/")[0] for path in image_tree(data)} - {".romfs"}
    assert (place.mnt / ".romfs/base/.romfs/ctl").read_bytes() == files[".romfs/ctl"]
    assert (place.mnt / "$(id)").read_bytes() == files["$(id)"]
    assert (place.mnt / ".git/config").read_bytes() == files[".git/config"]
    # and what is changed in it is stored, junk or not
    (place.mnt / "a~").write_bytes(b"changed")
    (place.mnt / "a\nb").write_bytes(b"changed")
    (place.mnt / ".git/config").unlink()
    place.run("commit", place.mnt)
    now = {**image_tree(data), EDITED: b"after", "a~": b"changed", "a\nb": b"changed"}
    del now[".git/config"]
    assert place.stored() == now
    place.umount()
    assert not place.session.joinpath("work").exists()
    (seen,) = firmware_view(micropython, tmp_path, [place.image.read_bytes()])
    expected = {
        path: None if data is None else [len(data), sha256(data).hexdigest()]
        for path, data in now.items()
    }
    assert seen == expected


def test_a_file_of_the_control_directorys_name(make_mount) -> None:
    place = make_mount()
    data = image(named(5, ".romfs", record(2, b"mine")), named(5, EDITED, record(2, b"before")))
    assert ".romfs" in edited_and_committed(place, data)
    assert (place.mnt / ".romfs/base/.romfs").read_bytes() == b"mine"
    place.umount()


def test_deep_and_wide(make_mount, micropython: Path, tmp_path: Path) -> None:
    """Folders in each other beyond PATH_MAX, and ten thousand files in one."""
    place = make_mount()
    deep = named(5, "leaf", record(2, b"deep"))
    for _ in range(3000):
        deep = named(4, "d", deep)
    wide = b"".join(named(5, f"f{n}", record(2, b"%d" % n)) for n in range(10_000))
    data = image(deep, named(4, "wide", wide), named(5, EDITED, record(2, b"before")))
    edited_and_committed(place, data)
    assert len(os.listdir(place.mnt / "wide")) == 10_000
    place.umount()
    done = subprocess.run(
        [micropython, "-X", "heapsize=100m", "-c", FIRMWARE_LOOK, place.image],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["deep", "9999", "after", "10000"], done.stderr


def test_what_this_disk_cannot_hold_is_refused_and_left_alone(make_mount) -> None:
    place = make_mount()
    for kind in (4, 5):
        inside = record(2, b"1") if kind == 5 else b""
        data = image(named(kind, "n" * 256, inside), named(5, EDITED, record(2, b"before")))
        place.image.write_bytes(data)
        said = place.run("mount", place.image, place.mnt, code=1)
        assert "File name too long" in said
        assert "255 bytes" in said
        assert not place.is_mounted
        assert place.image.read_bytes() == data
        assert "n" * 256 in place.run("ls", place.image)
        assert place.run("cat", place.image, EDITED) == "before"
        assert "File name too long" in place.run("extract", place.image, place.base / "x", code=1)
        assert not (place.base / "x").exists()
    longest = 1 << 20  # a name is bounded by the image alone
    data = image(named(5, "n" * longest, record(2, b"1")))
    assert encode(longest) in data
    place.image.write_bytes(data)
    assert len(place.run("mount", place.image, place.mnt, code=1)) < 2000


def test_new_over_a_hostile_image_keeps_it_for_undo(make_mount) -> None:
    place = make_mount()
    data = tree_image(dict.fromkeys(JUNK, b"1"))
    place.image.write_bytes(data)
    place.mount("--new", "--board", "OPENMV_AE3")
    assert os.listdir(place.mnt) == []
    (place.mnt / "a.txt").write_bytes(b"mine")
    place.umount("--commit")
    assert place.stored() == {"a.txt": b"mine"}
