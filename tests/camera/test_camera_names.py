"""Files on the camera that are named like modules of its firmware, and a script that is deaf."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camera_rig import Rig, held, make_image

from romfsfs.devices.serial_camera import repl
from romfsfs.simulator import Simulator

Connect = Callable[..., Simulator]

BEFORE = make_image("OPENMV_N6", notes_txt=b"old\n")
#: each would be found in place of what romfsfs imports on the camera
NAMES = ("binascii", "hashlib", "struct", "select", "os", "machine", "uctypes", "vfs", "omv", "sys")
HIDING = {f"{name}.py": b"print('not the firmware')\n" for name in NAMES}


def test_what_romfsfs_wrote_it_can_remove(rig: Rig, connect: Connect) -> None:
    """A tree with a `binascii.py` is committed, and everything goes on working."""
    camera = connect("OPENMV_N6", images={0: BEFORE})
    session = rig.prepare("camera")
    for name, text in HIDING.items():
        (session.work / name).write_bytes(text)
    rig.ok("commit", "camera", "--force")
    assert "binascii.mpy" in (held(camera) or {})
    camera.replug()
    for words in ("ls", "info", "verify", "status"):
        rig.ok(words, "camera")
    for name in HIDING:
        (session.work / name).unlink()
    rig.ok("commit", "camera")
    assert "binascii.mpy" not in (held(camera) or {})


@pytest.mark.parametrize("place", ["flash_files", "sd_files"])
def test_names_in_the_camera_s_own_folders(rig: Rig, connect: Connect, place: str) -> None:
    camera = connect("OPENMV_N6", images={0: BEFORE}, **{place: HIDING})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_bytes(b"new\n")
    rig.ok("commit", "camera")
    assert (held(camera) or {})["notes.txt"] == b"new\n"
    rig.ok("ls", "camera")


@pytest.mark.parametrize("usb", ["tinyusb", "stm32"])
def test_a_script_that_cannot_be_stopped(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch, usb: str
) -> None:
    """The error says how to get in all the same; what was tried leaves room in the camera's input,
    so that Ctrl-C is seen as soon as the script lets it."""
    monkeypatch.setattr(repl, "ENTER_LIMIT", 2.0)
    deaf = (
        "import micropython, time\nmicropython.kbd_intr(-1)\nprint('deaf')\ntime.sleep(20)\n"
        "micropython.kbd_intr(3)\nwhile True: pass\n"
    )
    camera = connect("OPENMV_N6", images={0: BEFORE}, main_script=deaf, usb=usb)
    with open(camera.port, "rb", buffering=0) as port:  # or the first one comes before it is
        while b"deaf" not in port.read(100):
            pass
    for _ in range(3):
        done = rig.run("ls", "camera")
        assert done.code == 5
        assert "dfu:BOARD" in done.error
    monkeypatch.setattr(repl, "ENTER_LIMIT", 60.0)
    assert "notes.txt" in rig.ok("ls", "camera")


@pytest.mark.parametrize("place", ["flash_files", "sd_files"])
def test_what_the_current_folder_hides_is_said(rig: Rig, connect: Connect, place: str) -> None:
    """Of each form that a module has; only in the folder that is looked at before /rom."""
    here = {"flash_files": "/flash", "sd_files": "/sdcard"}[place]
    files = {"app.py": b"", "net.mpy": b"", "pack/x.py": b"", "lib/low.py": b""}
    connect("OPENMV4P", images={0: make_image("OPENMV4P")}, **{place: files})
    session = rig.prepare("camera")
    for name in ("app.py", "net.py", "pack.py", "low.py", "other.py"):
        (session.work / name).write_text("x = 1\n")
    rig.run("commit", "camera", "--dry-run")  # compiles
    said = rig.ok("status", "camera")
    for name in ("app.py", "net.mpy", "pack"):
        assert f"{here}/{name} on the camera hides it" in said
    assert said.count("on the camera hides it") == 3
    assert "on the camera hides it" in rig.run("commit", "camera").err
