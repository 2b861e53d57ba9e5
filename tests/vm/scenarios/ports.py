"""Cameras whose ports change places, and users who may or may not open them."""

from __future__ import annotations

from pathlib import Path

from lab import RULES, Lab, digests, files, scenario, tty_of, wait_for


def two_on_their_ports(lab: Lab, ids: tuple[bytes, bytes]) -> tuple[list, list[str]]:
    """Two cameras with files of their own, each mounted once, with an edit that is kept."""
    cameras = [
        lab.camera("OPENMV4P", serial=f"33004{i}", unique_id=ids[i - 1], images={
            0: lab.image(f"i{i}", files(i), "OPENMV4P").read_bytes()}) for i in (1, 2)
    ]  # fmt: skip
    ports = [tty_of(camera) for camera in cameras]
    for camera, port in zip(cameras, ports, strict=True):
        place = lab.folder / camera.serial
        place.mkdir()
        lab.run("mount", port, place)
        (place / "mine.txt").write_text(camera.serial)
        lab.run("umount", place)
    for camera in cameras:
        camera.unplug()
    wait_for(lambda: not any(map(Path.exists, map(Path, ports))))
    for camera in reversed(cameras):
        camera.plug(window=False)
        lab.say(f"{camera.serial} is on {tty_of(camera)} now")
    assert [tty_of(camera) for camera in cameras] == ports[::-1]
    return cameras, ports


@scenario
def swapped_ports(lab: Lab) -> None:
    """Two cameras whose ports change places: each session finds its own."""
    cameras, ports = two_on_their_ports(lab, (b"\1" * 12, b"\2" * 12))
    for port in ports:
        lab.run("commit", port)
    for camera in cameras:
        wanted = {**files(int(camera.serial[-1])), "mine.txt": camera.serial.encode()}
        assert lab.listed(camera.romfs()) == digests(wanted), camera.serial


@scenario
def swapped_ports_without_ids(lab: Lab) -> None:
    """The same with cameras that have no id: neither is written with the other's edits."""
    cameras, ports = two_on_their_ports(lab, (b"", b""))
    for port in ports:
        lab.run("commit", port, code=7)
    for camera in cameras:
        assert lab.listed(camera.romfs()) == digests(files(int(camera.serial[-1])))


@scenario
def ordinary_user_without_rule(lab: Lab) -> None:
    """No group, no rule: nothing is sent to its loader, and the remedy is said."""
    alice = lab.user("alice")
    image = lab.image("new", files(1), "OPENMV_N6")
    camera = lab.camera("OPENMV_N6")
    lab.run("doctor", user=alice, code=1, says="no udev rule names OpenMV's USB devices")
    lab.run("ls", tty_of(camera), user=alice, code=5, says="dialout")
    lab.run("cameras", user=alice, says="OPENMV_N6")
    lab.group(alice, "dialout")
    lab.run("ls", tty_of(camera), user=alice)
    lab.run("push", image, "dfu:OPENMV_N6", user=alice, code=5, says="may not open")
    assert camera.loader is None, "it was sent to its loader for nothing"
    camera.unplug()
    camera.attach_loader()
    wait_for(lambda: "[37c5:9206]" in lab.shell("dfu-util -l"))
    lab.run("push", image, "dfu:OPENMV_N6", user=alice, code=5, says="may not open")
    lab.run("cameras", user=alice, says="this user may not open it")
    assert sum(setting.programmed for setting in camera.settings) == 0


@scenario
def ordinary_user_with_rule(lab: Lab) -> None:
    """With the rule: the serial ports' group is enough, for the loader too; without it neither."""
    alice = lab.user("alice")
    image = lab.image("new", files(1), "OPENMV_N6")
    lab.install_rule(alice)
    camera = lab.camera("OPENMV_N6")
    lab.run("ls", tty_of(camera), user=alice, code=5, says="dialout")
    lab.run("push", image, "dfu:OPENMV_N6", user=alice, code=5, says="may not open")
    assert camera.loader is None, "it was sent to its loader for nothing"
    lab.group(alice, "dialout")
    lab.run("doctor", user=alice, code=1, says="names OpenMV's USB devices")
    lab.run("push", image, "dfu:OPENMV_N6", user=alice)
    assert lab.listed(camera.romfs()) == digests(files(1))
    place = lab.folder / "alices"
    place.mkdir()
    lab.shell(f"chown {alice}: {place}")
    lab.run("mount", tty_of(camera), place, user=alice)
    lab.shell(f"echo an edit >{place}/new.txt", user=alice)
    lab.run("commit", place, user=alice)
    lab.run("umount", place, user=alice)
    assert lab.listed(camera.romfs()) == digests({**files(1), "new.txt": b"an edit\n"})
    RULES.unlink()
