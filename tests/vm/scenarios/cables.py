"""Cables that are pulled and put back: what MicroPython lists then, and what romfsfs says."""

from __future__ import annotations

import random

from lab import Lab, UsbCamera, digests, files, scenario, tty_of, wait_for

KIB = 1024
NEW = {"new.bin": random.Random(3).randbytes(60_000)}


@scenario
def cable_in_dfu_writes(lab: Lab) -> None:
    """Pulled at every pass of a push: the old files, the new, or none; the same again mends it."""
    # the N6 at every place, the others where each pass is
    boards = (("ARDUINO_GIGA", 40, 4, 3), ("OPENMV_N6", 110, 64, 1), ("OPENMV_AE3", 40, 4, 3))
    for board, size, gap, step in boards:
        trees = [files(1, 20 * KIB), files(2, size * KIB)]
        old, new = (lab.image(f"{board}{i}", tree, board) for i, tree in enumerate(trees))
        camera = lab.camera(board, images={0: old.read_bytes()})
        length = new.stat().st_size
        for after in (0, 256, 4096, length // 2, length - 256, length, length + 256)[::step]:
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
def cable_in_dfu_commits(lab: Lab) -> None:
    """Pulled at every pass of a commit by DFU, put back; what is listed, and `recover`."""
    old = lab.image("old", files(1), "OPENMV_N6").read_bytes()
    camera = lab.camera("OPENMV_N6", images={0: old})
    wanted = [digests(files(1)), digests({**files(1), **NEW})]
    setting = camera.setting()
    with lab.mounted("dfu:OPENMV_N6") as place:  # once whole: how much is programmed
        (place / "new.bin").write_bytes(NEW["new.bin"])
        lab.run("commit", place)
    tty_of(camera)
    assert lab.listed(camera.romfs()) == wanted[1]
    whole = setting.programmed
    lab.run("undo", "dfu:OPENMV_N6")
    tty_of(camera)
    for after in (0, whole // 2, whole - 256):
        with lab.mounted("dfu:OPENMV_N6") as place:
            (place / "new.bin").write_bytes(NEW["new.bin"])
            setting.programmed, setting.pull_after = 0, after
            lab.run("commit", place, code=5, says="went away")
        assert after <= setting.programmed < after + 256
        here = lab.listed(camera.romfs())
        lab.say(f"pulled after {after} of {whole} bytes: {here and sorted(here)}")
        assert here in (None, *wanted), here
        if not after:
            lab.run("recover", "dfu:OPENMV_N6", code=5)  # nothing is plugged in
        camera.plug(window=False)
        tty_of(camera)
        lab.run("recover", "dfu:OPENMV_N6")
        assert lab.listed(camera.romfs()) == wanted[1]
        tty_of(camera)
        lab.run("undo", "dfu:OPENMV_N6")
        assert lab.listed(camera.romfs()) == wanted[0]
        tty_of(camera)


@scenario
def cable_in_dfu_reads(lab: Lab) -> None:
    """Pulled while the loader is read; nothing was written, and the same again reads it."""
    image = lab.image("old", files(1), "OPENMV4P")
    camera = lab.camera("OPENMV4P", images={0: image.read_bytes()})
    place = lab.folder / "place"
    place.mkdir()
    camera.unplug()
    camera.attach_loader()
    for limit in (0, 20 * KIB):
        wait_for(lambda: camera.loader)
        camera.loader.read_limit = limit
        lab.run("pull", "dfu:OPENMV4P", lab.folder / "copy.img", code=5, says="went away")
        assert not (lab.folder / "copy.img").exists()
        camera.attach_loader()
        camera.loader.read_limit = limit
        lab.run("mount", "dfu:OPENMV4P", place, code=5, says="went away")
        camera.attach_loader()
    lab.run("pull", "dfu:OPENMV4P", lab.folder / "copy.img")
    assert (lab.folder / "copy.img").read_bytes() == image.read_bytes()
    assert sum(setting.programmed for setting in camera.settings) == 0


@scenario
def cable_in_serial_commits(lab: Lab) -> None:
    """Pulled by bytes erased, programmed, and on the wire; what is listed then, and `recover`."""
    old = lab.image("old", files(1), "OPENMV4P").read_bytes()
    camera = lab.camera("OPENMV4P", images={0: old})
    wanted = [digests(files(1)), digests({**files(1), **NEW})]
    seen = camera.simulator.statistics

    def counted() -> dict[str, int]:
        return {"erased": seen.erased_blocks * 4 * KIB, "programmed": seen.programmed,
                "wire": seen.wire_in + seen.wire_out}  # fmt: skip

    with lab.mounted(tty_of(camera)) as place:
        (place / "new.bin").write_bytes(NEW["new.bin"])
        before = counted()
        lab.run("commit", place)
        whole = {name: count - before[name] for name, count in counted().items()}
    lab.say(f"a whole commit: {whole}")
    assert lab.listed(camera.romfs()) == wanted[1]
    lab.run("undo", tty_of(camera))
    cuts = (
        ("erased", 1000), ("erased", whole["erased"] - 100),
        ("programmed", 100), ("programmed", whole["programmed"] // 2),
        ("programmed", whole["programmed"] - 1), ("wire", whole["wire"] // 2),
    )  # fmt: skip
    for kind, after in cuts:
        camera.simulator.flash.partitions[0].load(old)  # nothing is there already
        pulled_in_a_commit(lab, camera, kind, after, wanted)


def pulled_in_a_commit(
    lab: Lab, camera: UsbCamera, kind: str, after: int, wanted: list[dict[str, str]]
) -> None:
    faults = camera.simulator.faults
    cut = {
        "erased": faults.power_cut_after_erased, "wire": faults.cut_after_wire_bytes,
        "programmed": faults.power_cut_after_programmed,
    }[kind]  # fmt: skip
    with lab.mounted(tty_of(camera)) as place:
        (place / "new.bin").write_bytes(NEW["new.bin"])
        camera.cable_goes = True
        cut(after)
        lab.run("commit", place, code=5)
        wait_for(lambda: camera.device is None)
    here = lab.listed(camera.romfs())
    lab.say(f"pulled after {after:,} bytes {kind}: {here and sorted(here)}")
    assert here in (None, *wanted), here
    lab.run("sessions", says="interrupted commit")
    camera.plug(window=False)
    lab.run("recover", tty_of(camera))
    assert lab.listed(camera.romfs()) == wanted[1]
    lab.run("undo", tty_of(camera))
    assert lab.listed(camera.romfs()) == wanted[0]


@scenario
def cable_in_serial_reads(lab: Lab) -> None:
    """Pulled while the camera is read for its first mount; nothing is left of it."""
    image = lab.image("old", files(1), "OPENMV4P")
    camera = lab.camera("OPENMV4P", images={0: image.read_bytes()})
    place = lab.folder / "place"
    place.mkdir()
    for after in (300, 20_000):
        port = tty_of(camera)
        camera.cable_goes = True
        camera.simulator.faults.cut_after_wire_bytes(after)
        lab.run("mount", port, place, code=5)
        assert not place.is_mount()
        wait_for(lambda: camera.device is None)
        camera.plug(window=False)
    with lab.mounted(tty_of(camera)) as mounted:
        assert sorted(path.name for path in mounted.iterdir()) == sorted(files(1))
    assert camera.romfs()[: image.stat().st_size] == image.read_bytes()
