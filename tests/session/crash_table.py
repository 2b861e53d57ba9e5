"""Every kind of operation, hurt at every step, and every command after it.

`python crash_table.py KIND EVERY FIRST`: of all combinations of a step, a way to be hurt and what
comes after, every so many-th from the FIRST on is tried, each in forks of this process. Prints what
was found as JSON. What must hold is said in `Scene.check`.

Operations are done in this process, without a mount: `Scene.do` is a way in for other tests, too.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from session_desk import Desk, Flash, files_of

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import RomfsError
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, steps
from romfsfs.session.rebase.push import push
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import leave_work, revert
from romfsfs.session.session import Session

OLD = {"a.txt": b"first\n", "lib/b.bin": bytes(200), "app.mpy": b"M\x06\x00\x1f"}
ELSEWHERE = {"a.txt": b"another\n", "app.mpy": b"M\x06\x00\x1f2", "new/c.txt": b"c"}
PUSHED = {"a.txt": b"pushed\n", "more/d.txt": b"d" * 3000}
EDITS: dict[str, bytes | None] = {"a.txt": b"edited\n", "added/e.txt": b"e", "lib/b.bin": None}
FLASH_SIZE = 65536
HURTS = ("kill", "SIGINT", "ENOSPC", "EIO")
AFTER = ("commit", "undo", "push", "recover", "rollback", "mount", "umount")
CRASHED = 42

#: kind -> (operation, whether the target is a camera)
KINDS = {
    "commit": ("commit", False), "undo": ("undo", False), "open": ("open", False),
    "adopt": ("adopt", False), "resume": ("resume", False), "revert": ("revert", False),
    "discard": ("discard", False), "commit to a camera": ("commit", True),
    "undo on a camera": ("undo", True), "push": ("push", True), "reset": ("reset", True),
    "push over edits": ("push", True), "push over another's image": ("push", True),
    "first read of a camera": ("open", True),
    "a camera changed elsewhere": ("adopt", True), "undo to no file": ("undo", False),
    "undo to a blank camera": ("undo", True), "undo of a deletion": ("undo", False),
    "the same push over another's image": ("push", True),
    "the same push over another's file": ("push", False),
}  # fmt: skip


class Scene:
    """A target and its session in a folder of its own, before one kind of operation."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.operation, self.camera = KINDS[kind]
        os.environ["ROMFSFS_STATE_DIR"] = str(folder / "state")
        folder.mkdir(exist_ok=True)
        self.desk = Desk(self.device(), self.source)

    @property
    def source(self) -> str:
        return "camera" if self.camera else str(self.folder / "app.img")

    def device(self) -> Device:
        if self.camera:
            return Flash(self.folder / "flash", FLASH_SIZE)
        return FileDevice(self.folder / "app.img")

    def put(self, files: dict[str, bytes]) -> None:
        """Somebody else's doing."""
        image = encode(files)
        if self.camera:
            image += b"\xff" * (FLASH_SIZE - len(image))
        (self.folder / ("flash" if self.camera else "app.img")).write_bytes(image)

    def holds(self) -> dict[str, bytes] | None:
        file = self.folder / ("flash" if self.camera else "app.img")
        data = file.read_bytes() if file.exists() else b""
        return files_of(data) if data.startswith(b"\xd2\xcd\x31") else None

    def base_files(self, session: Session) -> dict[str, bytes]:
        return files_of(session.folder.image(session.base.digest).read_bytes())

    def edit(self) -> None:
        for path, data in EDITS.items():
            if data is None:
                (self.desk.work / path).unlink(missing_ok=True)
            else:
                self.desk.write(path, data)

    def prepare(self) -> None:
        """All that comes before the operation."""
        if self.blank:
            self.desk.open(new=not self.camera)
            self.edit()
            self.desk.commit()
            return
        self.put(OLD)
        if "open" in self.kind or "first read" in self.kind:
            return
        if "same" in self.kind:  # the base's own image, again
            self.do("push")
            self.put(ELSEWHERE)
            return
        self.desk.open()
        if self.operation == "undo":
            self.edit()
            self.desk.commit()
        if "deletion" in self.kind:
            self.desk.image.unlink()
        if self.operation == "adopt":
            self.desk.write("lib/b.bin~", b"never packed")
            self.put(ELSEWHERE)
        if "another's" in self.kind:
            self.put(ELSEWHERE)
        if self.edited:
            self.edit()

    @property
    def blank(self) -> bool:
        """Whether an undo leaves no image."""
        return "undo to" in self.kind

    @property
    def edited(self) -> bool:
        """Whether there are edits that no operation may cost."""
        return self.operation == "commit" or self.kind in ("resume", "push over edits", "revert",
                                                           "discard")  # fmt: skip

    def loaded(self) -> Desk:
        """As a command that does not mount opens the session."""
        desk = Desk(self.device(), self.source)
        folder = next((self.folder / "state/sessions").iterdir())
        desk.session = desk.session_in(folder)
        return desk

    def do(self, operation: str) -> None:
        if operation in ("open", "adopt", "resume", "mount"):
            self.desk = Desk(self.device(), self.source)
            self.desk.open(new=not (self.camera or self.desk.image.exists()))
        elif operation in ("push", "reset"):
            with tempfile.TemporaryFile() as file:
                file.write(encode(PUSHED))
                file.flush()
                push(self.device(), self.source, file, "given.img")
        else:
            desk = self.loaded()
            session, device = desk.session, desk.device
            if operation == "commit":
                desk.commit()
            elif operation == "undo":
                undo(session, device)
            elif operation in ("recover", "rollback"):
                done = recover(session, device, rollback=operation == "rollback")
                finished = done == "finished" and session.base.image_size
                assert not finished or self.holds() == self.base_files(session), done
            elif operation == "revert":
                revert(session, ["a.txt", "lib"], connect=lambda _: nullcontext(device))
            elif operation == "discard":
                revert(session, connect=lambda _: nullcontext(device))
            elif operation == "umount" and session.has_work:
                with session.folder.lock_unmounted("app.img"):
                    leave_work(session)

    def hurt(self, how: str, step: str) -> None:
        """Do the operation; at this step of it the process ends, is interrupted, or its disk is
        full or failing from then on."""

        def reached(name: str) -> None:
            if name != step:
                return
            if how == "kill":
                os._exit(CRASHED)
            if how == "SIGINT":
                steps.on_step = lambda name: None
                raise KeyboardInterrupt
            fail(getattr(errno, how), self.folder)

        steps.on_step = reached
        self.do(self.operation)

    def unknown(self) -> list[str]:
        """The steps of the operation that are not in the table, in their order there."""
        passed: list[str] = []
        steps.on_step = passed.append
        self.do(self.operation)
        table = iter(steps.KINDS[self.operation])
        return [step for step in passed if step not in table]

    # -- what must hold

    def images(self) -> dict[str, bytes]:
        """Every image of the log and of the base."""
        sessions = self.folder / "state/sessions"
        if not sessions.exists():
            return {}
        return {path.name: path.read_bytes() for path in sessions.glob("*/history/*.img")
                if path.stem in self.logged()}  # fmt: skip

    def logged(self) -> set[str]:
        folder = self.loaded().session.folder
        base = {json.loads(folder.base.read_bytes())["digest"]} if folder.base.exists() else set()
        return base | {entry.digest for entry in history.entries(folder)}

    def check(self, after: str, images: dict[str, bytes], before: dict[str, bytes] | None) -> str:
        """What is wrong after the command that came after; '' if nothing is."""
        now = self.images()
        for name, data in images.items():
            if now.get(name) != data:
                return f"the image {name[:8]} of the log is gone or another"
        if self.wrong_log():
            return self.wrong_log()
        holds = self.holds()
        if holds is None and after not in ("mount", "commit", "umount", "undo"):
            self.do("recover")
            holds = self.holds()
        allowed = [before, OLD, PUSHED, ELSEWHERE, edited(OLD), edited(PUSHED), edited({})]
        if holds is not None and holds not in allowed and self.operation != "revert":
            return f"the target holds {sorted(holds)}"
        self.do("mount")
        if self.edited and self.operation not in ("revert", "discard"):
            tree = {path: self.desk.work / path for path in EDITS}
            for path, data in EDITS.items():
                found = tree[path].read_bytes() if tree[path].exists() else None
                undone = after in ("undo", "push") and self.operation == "commit"
                if found != data and not undone:
                    return f"the edit of {path} is lost: {found!r}"
        if self.operation == "adopt" and not (self.desk.work / "lib/b.bin~").exists():
            return "a file that is never packed is lost"
        self.desk.write("later.txt", b"later")
        self.desk.commit()
        if (self.holds() or {}).get("later.txt") != b"later":
            return "the next commit did not reach the target"
        return self.wrong_log()

    def wrong_log(self) -> str:
        """The log's last entry is the base, unless something is under way."""
        session = self.loaded().session
        if session.interrupted or not session.folder.base.exists() or not session.base.image_size:
            return ""
        known = history.entries(session.folder)
        if not known or known[-1].digest != session.base.digest:
            return f"the log ends with {[e.kind for e in known]}, and not with the base"
        return ""


def edited(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in {**files, **EDITS}.items() if data is not None}


def fail(number: int, folder: Path) -> None:
    """From now on the disk is full (nothing new can be made or grow), or fails (nothing reaches
    it)."""
    error = OSError(number, os.strerror(number))
    state = str(folder / "state")
    really_open = os.open

    def no_open(path: Any, flags: int, *rest: Any, **how: Any) -> int:
        if flags & os.O_CREAT:
            raise error
        return really_open(path, flags, *rest, **how)

    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    if number == errno.ENOSPC:
        os.open, os.mkdir = no_open, refuse  # type: ignore[assignment]
    else:
        os.fsync = refuse
        os.replace = refuse
    assert os.path.isdir(state)


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """(exit code, what it returned or said) of a fork that did it."""
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            code, said = 0, None
            try:
                said = work()
            except (RomfsError, KeyboardInterrupt, OSError) as error:
                code, said = 1, f"{type(error).__name__}: {error}"
            except BaseException:
                code, said = 3, traceback.format_exc()
            told.write(json.dumps(said).encode())
            told.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        told.seek(0)
        text = told.read()
        return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


def one(scene: Scene, step: str, how: str, then: str) -> tuple[bool, str]:
    """Whether it came to the step, and what is wrong afterwards."""
    before = scene.holds()
    kept = forked(lambda: {k: v.hex() for k, v in scene.images().items()})[1] or {}
    images = {name: bytes.fromhex(data) for name, data in kept.items()}
    code, said = forked(lambda: scene.hurt(how, step))
    if code == 3:
        return True, str(said)
    after, told = forked(lambda: scene.do(then))
    if after == 3:
        return code != 0, f"{then}: {told}"
    checked, wrong = forked(lambda: scene.check(then, images, before))
    return code != 0, str(wrong) if checked == 0 else f"nothing goes on from there: {wrong}"


def tried(kind: str, every: int, first: int) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(prefix="romfsfs-table-", dir="/dev/shm" if os.access(
        "/dev/shm", os.W_OK) else None))  # fmt: skip
    os.environ.setdefault("ROMFSFS_CACHE_DIR", str(base / "cache"))
    place, template = base / "place", base / "template"
    code, said = forked(lambda: Scene(place, kind).prepare())
    assert code == 0, said
    place.rename(template)
    operation = KINDS[kind][0]
    after = [each for each in AFTER if each != "push" or KINDS[kind][1]]
    table = list(itertools.product(steps.KINDS[operation], HURTS, after))
    found: dict[str, str] = {}
    hurt = 0
    shutil.copytree(template, place)
    _, unknown = forked(lambda: Scene(place, kind).unknown())
    if unknown != []:
        found["not in the table"] = str(unknown)
    shutil.rmtree(place)
    for step, how, then in table[first - 1 :: every]:
        shutil.copytree(template, place)
        was_hurt, wrong = one(Scene(place, kind), step, how, then)
        hurt += was_hurt
        if wrong:
            found[f"{how} at {step}, then {then}"] = wrong
        shutil.rmtree(place)
    shutil.rmtree(base)
    return {"places": len(table), "tried": len(table[first - 1 :: every]), "hurt": hurt,
            "found": found}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(tried(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), indent=1))
