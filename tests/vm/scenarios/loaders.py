"""Boot loaders that are not as they should be, that wait for a moment only, and several at once."""

from __future__ import annotations

import json

from lab import Lab, UsbCamera, digests, files, scenario, tty_of


def in_loader(camera: UsbCamera) -> None:
    """It is off and on again, and stays in its loader."""
    camera.unplug()
    camera.attach_loader()


@scenario
def wrong_names(lab: Lab) -> None:
    """Loaders that name no ROMFS, name nothing, or name it elsewhere: by its name or not at all."""
    camera = lab.camera("OPENMV_N6")
    image = lab.image("new", files(1), "OPENMV_N6")
    romfs = camera.setting()
    for name in ("USER", "ROMFS1", "romfs0", "", None):
        romfs.name = name
        in_loader(camera)
        lab.run("push", image, "dfu:OPENMV_N6", code=5, says="offers no ROMFS0")
        assert sum(setting.programmed for setting in camera.settings) == 0
    romfs.name = "ROMFS0"
    camera.settings.reverse()
    in_loader(camera)
    lab.run("push", image, "dfu:OPENMV_N6")
    assert lab.listed(camera.romfs()) == digests(files(1))
    assert all(setting.programmed == 0 for setting in camera.settings if setting is not romfs)


@scenario
def wrong_names_giga(lab: Lab) -> None:
    """Arduino's loader without its external flash, or with it at another address."""
    camera = lab.camera("ARDUINO_GIGA")
    image = lab.image("new", files(1), "ARDUINO_GIGA")
    flash = camera.setting()
    right = flash.name
    for name in ("@Ext RAW  Flash 16MB   /0x70000000/4096*04Kg", "@OTP Memory", None):
        flash.name = name
        in_loader(camera)
        lab.run("push", image, "dfu:ARDUINO_GIGA", code=5, says="offers no external flash")
        assert sum(setting.programmed for setting in camera.settings) == 0
    flash.name = right
    in_loader(camera)
    lab.run("push", image, "dfu:ARDUINO_GIGA")
    assert lab.listed(camera.romfs()) == digests(files(1))


@scenario
def rescue(lab: Lab) -> None:
    """A firmware that does not answer: `--wait` takes the loader in its 1.5 s at power-up."""
    camera = lab.camera("OPENMV_N6")
    image = lab.image("new", files(1), "OPENMV_N6")
    camera.unplug()
    running = lab.start("push", image, "dfu:OPENMV_N6", "--wait")
    assert running.stdout is not None
    said = running.stdout.readline()  # what to do
    camera.plug()
    said += running.stdout.read()
    lab.say(said.strip())
    assert running.wait() == 0, said
    assert lab.listed(camera.romfs()) == digests(files(1))
    tty_of(camera)


@scenario
def two_loaders(lab: Lab) -> None:
    """Two boards of one kind in their loaders: refused without a port, told apart by it."""
    cameras = [lab.camera("OPENMV_AE3", serial=f"33004{i}") for i in range(2)]
    image = lab.image("new", files(1), "OPENMV_AE3")
    for camera in cameras:
        in_loader(camera)
    lab.run("push", image, "dfu:OPENMV_AE3", code=5, says="name one: dfu:OPENMV_AE3@")
    found = json.loads(lab.run("cameras", "--json"))
    paths = {each["serial_number"]: each["path"] for each in found}
    lab.run("push", image, f"dfu:OPENMV_AE3@{paths['330041']}")
    assert lab.listed(cameras[1].romfs()) == digests(files(1))
    assert lab.listed(cameras[0].romfs()) is None
    assert cameras[0].loader is not None
