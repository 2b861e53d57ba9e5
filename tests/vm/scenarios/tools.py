"""dfu-util itself, and the fake of the quick tests: what one does the other does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from camera import ARDUINO_OFFSET
from dfu import Setting
from lab import Lab, UsbCamera, scenario, wait_for

FAKE = Path(__file__).resolve().parents[2] / "devices" / "fake_tools" / "fake_dfu_util.py"
Said = tuple[int, str, str]


def plain(output: bytes) -> str:
    """Without what differs between two runs: the device's number, and the steps of a bar."""
    text = re.sub(r"devnum([= ])\d+", r"devnum\1N", output.decode())
    return re.sub(r"\r\w+ *\t\[[= ]*\] +(?!100%)\d+% +\d+ bytes", "", text)


class Both:
    """A camera in its loader, as it is on the bus, and as the fake keeps it in a folder."""

    def __init__(self, lab: Lab, *cameras: UsbCamera, address: int = 0) -> None:
        self.lab, self.cameras = lab, cameras
        self.folders = {}
        for name in ("real", "fake"):
            self.folders[name] = lab.folder / f"{cameras[0].board}-{name}"
            self.folders[name].mkdir(exist_ok=True)
        self.state = Path(tempfile.mkdtemp(prefix="state-", dir=lab.folder))
        self.address = address
        self.different: list[str] = []

    def fresh(self, *, denied: bool = False, **faults: object) -> None:
        """Both are in their loaders, with the same in their flash."""
        for camera in self.cameras:
            camera.unplug()
            camera.attach_loader()
            for setting in camera.settings:
                setting.programmed, setting.pull_after = 0, faults.get("stop_after")
            camera.loader.read_limit = faults.get("pull_read")
        self.lab.shell("udevadm settle")
        found = len(self.cameras)
        wait_for(lambda: len(set(re.findall(r'path="(\S+)"', self.real("-l")[1]))) == found)
        paths = dict(re.findall(r'path="([^"]+)".*serial="([^"]+)"', self.real("-l")[1]))
        devices = []
        for camera in self.cameras:
            settings = []
            for at, setting in enumerate(camera.settings):
                file = f"{camera.serial}-{at}"
                content = self.content(setting)
                (self.state / file).write_bytes(content)
                settings.append(
                    {"name": setting.name, "file": file, "size": len(content),
                     "erase": setting.erase or 16, "read_only": setting.read_only,
                     "address": self.address}
                )  # fmt: skip
            vid, pid = camera.loader_id
            path = next(path for path, serial in paths.items() if serial == camera.serial)
            devices.append(
                {"vid": f"{vid:04x}", "pid": f"{pid:04x}", "serial": camera.serial, "path": path,
                 "denied": denied, "settings": settings}
            )  # fmt: skip
        (self.state / "devices.json").write_text(json.dumps(devices))
        (self.state / "faults.json").write_text(json.dumps(faults))

    def real(self, *argv: object, user: str | None = None) -> Said:
        return self._run(["dfu-util", *map(str, argv)], "real", user)

    def _run(self, argv: list[str], name: str, user: str | None = None) -> Said:
        if user:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *argv]
        done = subprocess.run(
            argv, cwd=self.folders[name], capture_output=True, timeout=120, check=False,
            env={**self.lab.environment(), "FAKE_DFU": str(self.state)},
        )  # fmt: skip
        return done.returncode, plain(done.stdout), plain(done.stderr)

    def same(self, *argv: object, user: str | None = None) -> None:
        """Both end alike and say the same, with the same file and the same flash after it."""
        words = [str(word) for word in argv]
        real = self.real(*words, user=user)
        if "error resetting" in real[2]:  # it had left before the reset, as may be or not
            (self.state / "faults.json").write_text(json.dumps({"gone_at_reset": True}))
        fake = self._run([sys.executable, str(FAKE), *words], "fake")
        self.lab.say(f"dfu-util {' '.join(words)} -> {real}")
        if real != fake:
            self.differs(f"{' '.join(words)}:\n  real {real}\n  fake {fake}")
        read = [folder / "read" for folder in self.folders.values()]
        contents = [path.read_bytes() if path.exists() else None for path in read]
        if contents[0] != contents[1]:  # of what was read before the cable went, too
            sizes = [None if each is None else len(each) for each in contents]
            self.differs(f"{' '.join(words)}: the files have {sizes} bytes")
        for path in read:
            path.unlink(missing_ok=True)
        for camera in self.cameras:
            for at, setting in enumerate(camera.settings):
                kept = self.state / f"{camera.serial}-{at}"
                if kept.exists() and kept.read_bytes() != self.content(setting):
                    self.differs(f"{' '.join(words)}: {setting.name} differs")

    def differs(self, what: str) -> None:
        self.lab.say(f"DIFFERENT: {what}")
        self.different.append(what)

    def content(self, setting: Setting) -> bytes:
        """Nothing of what no call is about, and what is large."""
        if setting.memory.size > 4 << 20 and not self.address:
            return b""
        start = ARDUINO_OFFSET if self.address else 0
        return setting.memory.read(start, setting.memory.size - start)

    def put(self, name: str, data: bytes) -> None:
        for folder in self.folders.values():
            (folder / name).write_bytes(data)


@scenario
def dfu_util_and_its_fake(lab: Lab) -> None:
    """Listing, reading, writing, leaving, faults: exit codes and messages of the fake are right."""
    alice = lab.user("alice")
    lab.shell("chmod 755 .")
    camera = lab.camera("OPENMV_AE3", plugged=False)
    camera.simulator.flash.partitions[1].load(bytes(range(256)) * 32)
    both = Both(lab, camera)
    camera.unplug()
    both.same("-l")
    device = ("-d", ",37c5:96e3")
    mram = (*device, "-a", 3)
    both.same(*mram, "-U", "read")
    both.fresh()
    both.same("-l")
    both.same(*mram, "-U", "read")
    both.put("taken", b"")
    both.same(*mram, "-U", "taken")
    both.same(*device, "-a", 20, "-U", "read")
    both.same(*device, "-p", "9-9", "-a", 3, "-U", "read")
    both.put("image", bytes(range(256)) * 50)
    both.same(*mram, "-D", "image")
    both.same(*mram, "-D", "missing")
    both.put("long", bytes(camera.setting("ROMFS1").memory.size + 1))
    both.same(*mram, "-D", "long")
    both.fresh()
    both.same(*device, "-a", 0, "-D", "image")  # not writable
    both.fresh()
    both.same(*mram, "-e")
    both.fresh()
    both.same(*mram, "--reset", "-e")
    both.fresh()
    both.same(*mram, "-R", "-U", "read")
    both.fresh(stop_after=5000)
    both.same(*mram, "-D", "image")
    for after in (0, 8192):
        both.fresh(pull_read=after)
        both.same(*mram, "-U", "read")
    both.fresh(denied=True)
    both.same("-l", user=alice)
    both.same(*mram, "-U", "read", user=alice)
    other = lab.camera("OPENMV_AE3", plugged=False, serial="330042")
    two = Both(lab, camera, other)
    two.fresh()
    two.same(*mram, "-U", "read")
    camera.unplug()
    other.unplug()
    assert not both.different + two.different, "\n".join(both.different + two.different)


@scenario
def dfu_util_and_its_fake_giga(lab: Lab) -> None:
    """The same with Arduino's loader (DfuSe)."""
    camera = lab.camera("ARDUINO_GIGA", plugged=False)
    camera.simulator.flash.partitions[0].load(bytes(range(256)) * 32)
    both = Both(lab, camera, address=0x90B00000)
    flash = ("-d", ",2341:0366", "-a", 1)
    both.fresh()
    both.same("-l")
    both.same(*flash, "-s", "0x90B00000:9000", "-U", "read")
    both.put("image", bytes(range(256)) * 50)
    both.same(*flash, "-s", "0x90B00000", "-D", "image")
    both.same(*flash, "-s", "0x70000000", "-D", "image")
    both.fresh(stop_after=5000)
    both.same(*flash, "-s", "0x90B00000", "-D", "image")
    both.fresh(pull_read=0)
    both.same(*flash, "-s", "0x90B00000:9000", "-U", "read")
    both.fresh()
    both.same(*flash, "-s", "0x90B00000:16:leave", "-U", "read")
    assert not both.different, "\n".join(both.different)
