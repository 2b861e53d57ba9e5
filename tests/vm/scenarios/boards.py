"""Each kind of camera, by its serial port and by its boot loader: all that is done every day."""

from __future__ import annotations

from lab import Lab, digests, files, scenario, tty_of, wait_for


def edit_and_undo(lab: Lab, board: str, where: str = "", partition: int = 0) -> None:
    """Mount, edit, commit, undo. where: `dfu:BOARD`; the serial port without it."""
    first = lab.image("first", files(1), f"{board}:{partition}").read_bytes()
    camera = lab.camera(board, images={partition: first})
    number = ["--partition", partition] if partition else []
    with lab.mounted(where or tty_of(camera), *number) as place:
        assert sorted(path.name for path in place.iterdir()) == sorted(files(1))
        (place / "new.txt").write_text("an edit\n")
        lab.run("commit", place)
    wanted = {**files(1), "new.txt": b"an edit\n"}
    assert lab.listed(camera.romfs(partition)) == digests(wanted)
    lab.run("undo", where or tty_of(camera), *number)
    assert lab.listed(camera.romfs(partition)) == digests(files(1))
    tty_of(camera)  # the firmware is back
    assert all(setting.programmed == 0 for setting in camera.settings if setting.read_only)


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
def serial_ae3_second(lab: Lab) -> None:
    """AE3 on its serial port, MRAM of the second core: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_AE3", partition=1)


@scenario
def serial_giga(lab: Lab) -> None:
    """Arduino Giga on its serial port: mount, edit, commit, undo."""
    edit_and_undo(lab, "ARDUINO_GIGA")


@scenario
def dfu_h7plus(lab: Lab) -> None:
    """H7 Plus in its loader: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV4P", "dfu:OPENMV4P")


@scenario
def dfu_n6(lab: Lab) -> None:
    """N6 in its loader: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_N6", "dfu:OPENMV_N6")


@scenario
def dfu_ae3(lab: Lab) -> None:
    """AE3 in its loader: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_AE3", "dfu:OPENMV_AE3")


@scenario
def dfu_ae3_second(lab: Lab) -> None:
    """AE3 in its loader, MRAM of the second core: mount, edit, commit, undo."""
    edit_and_undo(lab, "OPENMV_AE3", "dfu:OPENMV_AE3", partition=1)


@scenario
def dfu_giga(lab: Lab) -> None:
    """Arduino Giga in its loader (DfuSe): mount, edit, commit, undo."""
    edit_and_undo(lab, "ARDUINO_GIGA", "dfu:ARDUINO_GIGA")


def push_by_dfu(lab: Lab, board: str, partition: int = 0) -> None:
    """Push to a blank camera, push another, push that again: the firmware is back each time."""
    camera = lab.camera(board)
    number = ["--partition", partition] if partition else []
    for seed in (1, 2):
        image = lab.image(f"{board}-{seed}", files(seed), f"{board}:{partition}")
        said = lab.run("push", image, f"dfu:{board}", *number, "--force")  # blank MRAM is zeros
        assert "not confirmed" not in said, said
        assert lab.listed(camera.romfs(partition)) == digests(files(seed))
        tty_of(camera)
    lab.run("push", image, f"dfu:{board}", *number, says="has this image already")
    wait_for(lambda: camera.loader)  # nothing was written: it is left where it was found
    lab.run("undo", f"dfu:{board}", *number)
    assert lab.listed(camera.romfs(partition)) == digests(files(1))


@scenario
def push_n6(lab: Lab) -> None:
    """N6 in its loader: push, the firmware back each time, undo."""
    push_by_dfu(lab, "OPENMV_N6")


@scenario
def push_ae3_second(lab: Lab) -> None:
    """AE3 in its loader, blank MRAM of the second core: push, undo."""
    push_by_dfu(lab, "OPENMV_AE3", 1)


@scenario
def push_giga(lab: Lab) -> None:
    """Arduino Giga in its loader (DfuSe): push, undo."""
    push_by_dfu(lab, "ARDUINO_GIGA")
