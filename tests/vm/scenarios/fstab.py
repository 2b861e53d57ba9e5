"""Lines of /etc/fstab: mounted by systemd at boot, and by a user through the setuid mount(8)."""

from __future__ import annotations

import json
from pathlib import Path

from lab import Lab, digests, files, scenario, tty_of
from login import Desk

FSTAB = Path("/etc/fstab")


@scenario
def fstab_at_boot(lab: Lab) -> None:
    """An image that was mounted at boot (its line is the machine's): edited, committed, again."""
    boot = Path("/srv/boot")
    state = lab.shell("systemctl show -p ActiveState,Result srv-boot.mount")
    assert "ActiveState=active" in state, state
    assert boot.is_mount()
    (boot / "new.txt").write_text("an edit\n")
    lab.home = Path("/root")  # of which systemd's mount is
    status = json.loads(lab.run("status", "--json", boot))
    assert status["board"] == "OPENMV_AE3"
    lab.run("commit", boot)
    assert lab.run("cat", "/srv/boot.img", "new.txt") == "an edit\n"
    lab.shell("systemctl restart srv-boot.mount")
    assert (boot / "new.txt").read_text() == "an edit\n"
    (boot / "new.txt").unlink()
    lab.run("commit", boot)
    lab.run("doctor", code=None)


def with_line(lab: Lab, line: str) -> None:
    before = FSTAB.read_text()
    lab.cleanup.callback(FSTAB.write_text, before)
    FSTAB.write_text(before + line + "\n")


@scenario
def fstab_by_a_user(lab: Lab) -> None:
    """An image, with `user`: mounted, committed and unmounted by an ordinary user, in his home."""
    desk = Desk(lab, "ivan")
    desk.shell("mkdir ~/cam && romfsfs -q new ~/app.img --board OPENMV_AE3")
    with_line(lab, f"{desk.home}/app.img {desk.home}/cam fuse.romfsfs "
                   "user,noauto,board=OPENMV_AE3 0 0")  # fmt: skip
    desk.shell("mount ~/cam")
    assert desk.is_mounted(desk.home / "cam")
    desk.shell("echo an edit >~/cam/new.txt")
    assert "mounted" in desk.run("sessions")
    desk.run("commit", desk.home / "cam")
    desk.shell("umount ~/cam")
    assert not desk.is_mounted(desk.home / "cam")
    assert desk.run("cat", desk.home / "app.img", "new.txt") == "an edit\n"
    assert not any(Path("/root/.local/state/romfsfs").glob("*/*ivan*"))
    desk.shell("mount ~/cam && cat ~/cam/new.txt")
    desk.run("umount", desk.home / "cam")


@scenario
def fstab_camera_by_a_user(lab: Lab) -> None:
    """A camera, with `user`: the same, with the port's group and nothing else."""
    desk = Desk(lab, "judy")
    images = {0: lab.image("first", files(1), "OPENMV4P").read_bytes()}
    camera = lab.camera("OPENMV4P", images=images)
    with_line(lab, f"{tty_of(camera)} {desk.home}/cam fuse.romfsfs user,noauto 0 0")
    desk.shell("mkdir ~/cam && mount ~/cam && echo an edit >~/cam/new.txt")
    desk.run("commit", desk.home / "cam")
    desk.shell("umount ~/cam")
    assert lab.listed(camera.romfs()) == digests({**files(1), "new.txt": b"an edit\n"})
