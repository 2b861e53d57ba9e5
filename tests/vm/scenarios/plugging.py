"""`automount`: cameras that are plugged in, pulled out, there before anybody, or in use."""

from __future__ import annotations

from pathlib import Path

from lab import Lab, UsbCamera, digests, files, scenario, tty_of
from login import Desk

#: Takes the port as soon as it is there, as a terminal does, and lets go when told.
HOLDER = """
import fcntl, os, sys, termios, time
while True:
    try:
        fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
        break
    except OSError:
        time.sleep(0.005)
fcntl.flock(fd, fcntl.LOCK_EX)
fcntl.ioctl(fd, termios.TIOCEXCL)
print("has it", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.1)
"""


def camera_of(lab: Lab, **changes: object) -> UsbCamera:
    images = {0: lab.image("first", files(1), "OPENMV4P").read_bytes()}
    return lab.camera("OPENMV4P", plugged=False, images=images, **changes)


@scenario
def automount(lab: Lab) -> None:
    """Plug, edit, unplug, plug, commit: mounted each time, the edits kept, nothing left behind."""
    desk = Desk(lab, "carol")
    desk.install()
    desk.log_in()
    camera = camera_of(lab)
    camera.plug()
    place = desk.camera_appears(camera)
    assert desk.shell(f"ls {place}").split() == sorted(files(1))
    desk.shell(f"echo an edit >{place}/new.txt")
    camera.unplug()
    desk.is_gone(place)
    assert desk.failed_units() == ""
    title, _ = desk.is_told("NOT on the camera")
    assert title == "1 change is NOT on the camera"
    camera.plug()
    place = desk.camera_appears(camera)
    assert desk.shell(f"cat {place}/new.txt") == "an edit\n"
    desk.run("commit", place)
    assert lab.listed(camera.romfs()) == digests({**files(1), "new.txt": b"an edit\n"})
    told = len(desk.notes)
    camera.unplug()
    desk.is_gone(place)
    camera.plug()
    place = desk.camera_appears(camera)
    assert len(desk.notes) == told, desk.notes  # nothing was left to tell of
    desk.run("umount", place)
    desk.is_gone(place)
    assert desk.failed_units() == ""


@scenario
def automount_before_login(lab: Lab) -> None:
    """Plugged before login, and through a second login: mounted at each."""
    desk = Desk(lab, "dave")
    desk.install()
    camera = camera_of(lab)
    camera.plug()
    tty_of(camera)
    desk.log_in()
    place = desk.camera_appears(camera)
    desk.shell(f"echo an edit >{place}/new.txt")
    desk.log_out()
    desk.is_gone(place)
    desk.log_in()
    place = desk.camera_appears(camera)
    assert desk.shell(f"cat {place}/new.txt") == "an edit\n"
    desk.run("commit", place)
    assert lab.listed(camera.romfs()) == digests({**files(1), "new.txt": b"an edit\n"})


def in_use(lab: Lab, desk: Desk, camera: UsbCamera) -> Path:
    """Plugged in where another program takes the port first; that lets go when the file is
    there."""
    told = lab.folder / "let-go"
    argv = ["python3", "-c", HOLDER, "/dev/ttyACM0", str(told)]
    holder = lab.process(argv, desk.name)
    lab.cleanup.callback(holder.kill)
    camera.plug(window=False)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "has it\n"
    assert tty_of(camera) == "/dev/ttyACM0"
    return told


@scenario
def automount_busy(lab: Lab) -> None:
    """Another program holds the port for a while: mounted when it has let go."""
    desk = Desk(lab, "erin")
    desk.install()
    desk.log_in()
    camera = camera_of(lab)
    told = in_use(lab, desk, camera)
    desk.until(lambda: "in use" in desk.journal(), "the first try has failed")
    told.touch()
    place = desk.camera_appears(camera)
    assert desk.shell(f"ls {place}").split() == sorted(files(1))
    assert desk.failed_units() == ""


@scenario
def automount_busy_for_good(lab: Lab) -> None:
    """Another program never lets go: it gives up, and says so once; plugged again, it mounts."""
    desk = Desk(lab, "frank")
    desk.install()
    desk.log_in()
    camera = camera_of(lab)
    told = in_use(lab, desk, camera)
    desk.is_told("in use")
    desk.until(desk.failed_units, "it has given up")
    told.touch()
    camera.unplug()
    camera.plug(window=False)
    desk.camera_appears(camera)
    assert len(desk.notes) == 1, desk.notes


@scenario
def automount_fails(lab: Lab) -> None:
    """A camera that does not answer: a notification and the journal say so, with the remedy."""
    desk = Desk(lab, "grace")
    desk.install()
    desk.log_in()
    camera = camera_of(lab)
    camera.silent = True
    camera.plug(window=False)
    title, text = desk.is_told("ttyACM0")
    assert "did not answer" in text or "does not answer" in text, (title, text)
    assert text.partition("\n")[0] in desk.journal()
    assert not desk.is_mounted(desk.place_of("ttyACM0"))
    camera.unplug()
    camera.silent = False
    camera.plug(window=False)
    desk.camera_appears(camera)


@scenario
def notifications(lab: Lab) -> None:
    """On a desktop: a script that cannot be converted, and edits that a mount leaves behind."""
    desk = Desk(lab, "heidi")
    desk.log_in()
    desk.shell("mkdir cam", code=None)
    desk.shell("cd && mkdir cam && romfsfs -q new app.img --board OPENMV_AE3")
    desk.shell("cd && DISPLAY=:0 romfsfs mount app.img cam")
    desk.shell("cd && echo 'print(' >cam/broken.py")
    title, text = desk.is_told("broken.py")
    assert title == "broken.py could not be converted"
    assert "SyntaxError" in text
    assert "app.img" in text
    desk.shell("cd && echo 'x = 1' >cam/works.py && rm cam/broken.py")
    desk.shell("cd && romfsfs umount cam")
    title, text = desk.is_told("NOT")
    assert title == "1 change is NOT in the image file"
    assert len(desk.notes) == 2, desk.notes
