"""The scenarios: what users do with cameras on USB, and what goes wrong there.

Each runs in the virtual machine of `scripts/vm`, with the kernel's own drivers and dfu-util.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

from lab import Lab, digests, scenario, tty_of, wait_for

KIB = 1024


def files(seed: int, size: int = 40 * KIB) -> dict[str, bytes]:
    data = random.Random(seed)
    return {f"{seed}-{index}.bin": data.randbytes(size // 8) for index in range(8)}


def push_by_dfu(lab: Lab, board: str, partition: int = 0) -> None:
    """Push, the firmware is back, undo by its serial port's loader again; other settings stay."""
    camera = lab.camera(board)
    number = ["--partition", partition] if partition else []
    for seed in (1, 2):
        image = lab.image(f"{board}-{seed}", files(seed), f"{board}:{partition}")
        said = lab.run("push", image, f"dfu:{board}", *number, "--force")  # blank MRAM is zeros
        assert "not restarted" not in said, said
        assert lab.listed(camera.romfs(partition)) == digests(files(seed))
        tty_of(camera)
    lab.run("push", image, f"dfu:{board}", *number, says="has this image already")
    wait_for(lambda: camera.loader)  # nothing was written: it is left where it was found
    lab.run("undo", f"dfu:{board}", *number)
    assert lab.listed(camera.romfs(partition)) == digests(files(1))
    assert all(setting.programmed == 0 for setting in camera.settings if setting.read_only)


@scenario
def dfu_h7plus(lab: Lab) -> None:
    """H7 Plus: push and undo by DFU, the firmware back each time."""
    push_by_dfu(lab, "OPENMV4P")


@scenario
def dfu_n6(lab: Lab) -> None:
    """N6: push and undo by DFU."""
    push_by_dfu(lab, "OPENMV_N6")


@scenario
def dfu_ae3(lab: Lab) -> None:
    """AE3, flash of the first core: push and undo by DFU."""
    push_by_dfu(lab, "OPENMV_AE3")


@scenario
def dfu_ae3_second(lab: Lab) -> None:
    """AE3, MRAM of the second core: push and undo by DFU."""
    push_by_dfu(lab, "OPENMV_AE3", 1)


@scenario
def dfu_giga(lab: Lab) -> None:
    """Arduino Giga, DfuSe: push and undo."""
    push_by_dfu(lab, "ARDUINO_GIGA")


def edit_and_undo(lab: Lab, board: str, source: str | None = None) -> None:
    """Mount, edit, commit, undo."""
    camera = lab.camera(board, images={0: lab.image("first", files(1), board).read_bytes()})
    where = source or tty_of(camera)
    with lab.mounted(where) as place:
        assert sorted(path.name for path in place.iterdir()) == sorted(files(1))
        (place / "new.txt").write_text("an edit\n")
        lab.run("commit", place)
    wanted = {**files(1), "new.txt": b"an edit\n"}
    assert lab.listed(camera.romfs()) == digests(wanted)
    lab.run("undo", source or tty_of(camera))
    assert lab.listed(camera.romfs()) == digests(files(1))


@scenario
def serial_h7plus(lab: Lab) -> None:
    """H7 Plus on its serial port: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV4P")


@scenario
def serial_n6(lab: Lab) -> None:
    """N6 on its serial port: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_N6")


@scenario
def serial_ae3(lab: Lab) -> None:
    """AE3 on its serial port: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_AE3")


@scenario
def serial_giga(lab: Lab) -> None:
    """Arduino Giga on its serial port: mount, edit, commit, undo."""
    edit_and_undo(lab, "ARDUINO_GIGA")


@scenario
def mount_by_dfu(lab: Lab) -> None:
    """N6 in its loader: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_N6", "dfu:OPENMV_N6")


@scenario
def wrong_names(lab: Lab) -> None:
    """A loader without ROMFS0, and one with it under another number."""
    camera = lab.camera("OPENMV_N6")
    image = lab.image("new", files(1), "OPENMV_N6")
    romfs = camera.setting()
    romfs.name = "USER"
    lab.run("push", image, "dfu:OPENMV_N6", code=5, says="offers no ROMFS0")
    assert sum(setting.programmed for setting in camera.settings) == 0
    romfs.name = "ROMFS0"
    camera.settings.reverse()
    camera.unplug()
    camera._attach_loader(None)
    lab.run("push", image, "dfu:OPENMV_N6")
    assert lab.listed(camera.romfs()) == digests(files(1))


@scenario
def cable_in_dfu_writes(lab: Lab) -> None:
    """The cable pulled at every pass; the old files, the new, or none; the same again mends it."""
    boards = (("ARDUINO_GIGA", 40, 4), ("OPENMV_N6", 110, 64), ("OPENMV_AE3", 40, 4))
    for board, size, gap in boards:
        trees = [files(1, 20 * KIB), files(2, size * KIB)]
        old, new = (lab.image(f"{board}{i}", tree, board) for i, tree in enumerate(trees))
        camera = lab.camera(board, images={0: old.read_bytes()})
        length = new.stat().st_size
        for after in (0, 256, 4096, length // 2, length - 256, length, length + 256):
            camera.simulator.flash.partitions[0].load(old.read_bytes())
            setting = camera.setting()
            setting.programmed, setting.pull_after = 0, after
            lab.run("push", new, f"dfu:{board}", "--force", code=5, says="went away")
            here = lab.listed(camera.romfs())
            in_gap = length < after < length + gap * KIB
            assert in_gap or here in (None, *map(digests, trees)), (board, after, here)
            camera.plug(window=False)
            tty_of(camera)
        lab.run("push", new, f"dfu:{board}", "--force")
        assert lab.listed(camera.romfs()) == digests(trees[1])
        camera.unplug()


@scenario
def cable_in_dfu_reads(lab: Lab) -> None:
    """The cable pulled while the loader is read; nothing was written."""
    image = lab.image("old", files(1), "OPENMV4P")
    camera = lab.camera("OPENMV4P", images={0: image.read_bytes()})
    camera.unplug()
    camera._attach_loader(None)
    for limit in (0, 20 * KIB):
        wait_for(lambda: camera.loader)
        camera.loader.read_limit = limit
        lab.run("pull", "dfu:OPENMV4P", lab.folder / "copy.img", code=5, says="went away")
        assert not (lab.folder / "copy.img").exists()
        camera._attach_loader(None)
    lab.run("pull", "dfu:OPENMV4P", lab.folder / "copy.img")
    assert (lab.folder / "copy.img").read_bytes() == image.read_bytes()


@scenario
def cable_in_serial_commits(lab: Lab) -> None:
    """The cable pulled at places of a commit, put back; what is listed then, and recover."""
    old = lab.image("old", files(1), "OPENMV4P")
    camera = lab.camera("OPENMV4P", images={0: old.read_bytes()}, rate=400_000)
    wanted = [digests(files(1)), digests({**files(1), "new.bin": b"n" * 60_000})]
    for erased, programmed in ((1, 0), (2, 256), (6, 20_000), (10, 40_000)):
        camera.simulator.flash.partitions[0].load(old.read_bytes())
        with lab.mounted(tty_of(camera)) as place:
            (place / "new.bin").write_bytes(b"n" * 60_000)
            seen = camera.simulator.statistics
            before = seen.erased_blocks, seen.programmed
            running = lab.start("commit", place)
            while running.poll() is None and (
                seen.erased_blocks - before[0] < erased or seen.programmed - before[1] < programmed
            ):
                time.sleep(0.001)
            camera.unplug()
            said, _ = running.communicate(timeout=300)
            lab.say(f"pulled at {erased}, {programmed} -> {running.returncode}: {said.strip()}")
            assert "Traceback" not in said
            assert running.returncode in (0, 5), said
        assert lab.listed(camera.romfs()) in (None, *wanted)
        camera.plug(window=False)
        lab.run("recover", tty_of(camera)) if running.returncode else None
        lab.run("sessions")
        with lab.mounted(tty_of(camera)) as place:
            assert (place / "new.bin").read_bytes() == b"n" * 60_000
            lab.run("commit", place)
        assert lab.listed(camera.romfs()) == wanted[1]
        lab.run("undo", tty_of(camera))


@scenario
def rescue(lab: Lab) -> None:
    """A firmware that does not answer: `--wait` takes the loader in its 1.5 s at power-up."""
    camera = lab.camera("OPENMV_N6")
    image = lab.image("new", files(1), "OPENMV_N6")
    camera.unplug()
    running = lab.start("push", image, "dfu:OPENMV_N6", "--wait")
    time.sleep(8)
    camera.plug()
    said, _ = running.communicate(timeout=300)
    lab.say(said.strip())
    assert running.returncode == 0, said
    assert lab.listed(camera.romfs()) == digests(files(1))
    tty_of(camera)


@scenario
def two_loaders(lab: Lab) -> None:
    """Two boards of one kind in their loaders: refused without a port, told apart by it."""
    cameras = [lab.camera("OPENMV_AE3", serial=f"33004{i}") for i in range(2)]
    image = lab.image("new", files(1), "OPENMV_AE3")
    for camera in cameras:
        camera.unplug()
        camera._attach_loader(None)
    lab.run("push", image, "dfu:OPENMV_AE3", code=5, says="name one: dfu:OPENMV_AE3@")
    found = json.loads(lab.run("cameras", "--json"))
    paths = {each["serial_number"]: each["path"] for each in found}
    lab.run("push", image, f"dfu:OPENMV_AE3@{paths['330041']}")
    assert lab.listed(cameras[1].romfs()) == digests(files(1))
    assert lab.listed(cameras[0].romfs()) is None
    assert cameras[0].loader is not None


@scenario
def swapped_ports(lab: Lab) -> None:
    """Two cameras whose ports change places: each session finds its own."""
    cameras = [
        lab.camera("OPENMV4P", serial=f"33004{i}", unique_id=bytes([i] * 12), images={
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
    for port in ports:
        lab.run("commit", port)
    for camera in cameras:
        wanted = {**files(int(camera.serial[-1])), "mine.txt": camera.serial.encode()}
        assert lab.listed(camera.romfs()) == digests(wanted), camera.serial


@scenario
def ordinary_user(lab: Lab) -> None:
    """Without a rule nothing is sent anywhere; with the rule, the serial ports' group is enough."""
    rules = Path("/etc/udev/rules.d/70-romfsfs.rules")
    subprocess.run(["useradd", "-m", "alice"], check=True)
    image = lab.image("new", files(1), "OPENMV_N6")
    image.chmod(0o644)
    camera = lab.camera("OPENMV_N6")
    lab.run("doctor", user="alice", code=1, says="no udev rule names OpenMV's USB devices")
    subprocess.run(["usermod", "-aG", "dialout", "alice"], check=True)
    lab.run("push", image, "dfu:OPENMV_N6", user="alice", code=5, says="may not open")
    assert camera.loader is None, "it was sent to its loader for nothing"
    camera.unplug()
    camera._attach_loader(None)
    time.sleep(1)
    lab.run("push", image, "dfu:OPENMV_N6", user="alice", code=5, says="may not open")
    lab.run("cameras", user="alice", says="this user may not open it")
    camera.loader.pull()
    rules.write_text(lab.run("-q", "automount", "--rule"))
    subprocess.run(["udevadm", "control", "--reload"], check=True)
    camera.plug(window=False)
    tty_of(camera)
    lab.run("doctor", user="alice", code=1, says="names OpenMV's USB devices")
    lab.run("push", image, "dfu:OPENMV_N6", user="alice")
    assert lab.listed(camera.romfs()) == digests(files(1))
    rules.unlink()
