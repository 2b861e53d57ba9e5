"""Runs one operation of romfsfs again and again, hurt at another place each time.

`python hurt.py OPERATION HOW EVERY [FIRST]`: HOW is `kill` (kill -9), or the name of an errno
with which a system call fails (`EIO`: that call; `ENOSPC+`: that call and all after it; needs
`faults.c` preloaded). EVERY: hurt at every so many-th place only, from the FIRST (1) on. Prints
what was found as JSON.
The operations `mounted-...` are done by a command while a daemon serves the session; `daemon` is
a commit by the daemon itself, asked for through `.romfs/ctl`.

The places are counted, not timed: each change that the process makes of a file (creating,
writing, syncing, renaming, linking, removing). Each run is a fork of this process, which has
imported all. What must hold afterwards: the target is the old image or the new one, byte for
byte; the edits are there; a fresh start works and can commit.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import romfsfs
from romfsfs.cli import main
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode

OLD = {"a.txt": b"first\n", "lib/b.bin": bytes(200), "app.mpy": b"M\x06\x00\x1f"}
EDITS: dict[str, bytes | None] = {
    "a.txt": b"edited\n" * 9000, "added/c.txt": b"c", "app.py": b"x = 1\n", "lib/b.bin": None,
    ".git": b"not a repository",
}  # fmt: skip
STORED = {"a.txt", "added/c.txt", "app.mpy"}  # after a commit of the edits

_CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree",
}  # fmt: skip
_CREATES = os.O_CREAT | os.O_TRUNC
_CALLS = ("write", "pwrite", "fsync", "copy_file_range", "ftruncate")


class Desk:
    """A folder with an image, a session of it with edits, and the user's state."""

    def __init__(self, operation: str) -> None:
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.base = Path(tempfile.mkdtemp(prefix="romfsfs-hurt-", dir=place))
        self.image = self.base / "app.img"
        self.operation = operation
        os.environ["ROMFSFS_STATE_DIR"] = str(self.base / "state")
        os.environ["ROMFSFS_CACHE_DIR"] = str(self.base / "cache")
        self.image.write_bytes(encode(OLD))
        self.built = self.base / "built"
        self.built.mkdir()
        (self.built / "main.py").write_bytes(b"x = 2\n")

    def prepare(self) -> None:
        """What comes before the operation, in an unhurt process."""
        if self.operation in ("open", "build"):
            return
        with romfsfs.open(str(self.image)) as editor:
            edit(editor.path)
        if self.operation in ("undo", "revert-committed"):
            assert main(["commit", str(self.image)]) == 0
        if self.operation == "recover":
            self.fork(lambda: self.killed_commit())

    def killed_commit(self) -> None:
        from romfsfs.session import steps

        def on_step(name: str) -> None:
            if name == "target-written":
                os._exit(0)

        steps.on_step = on_step
        main(["commit", str(self.image)])

    def command(self) -> list[str]:
        image = str(self.image)
        return {
            "open": ["commit", image, "--dry-run"],
            "build": ["build", str(self.built), image, "--board", "OPENMV4P"],
            "convert": ["commit", image, "--dry-run"],
        }.get(self.operation, [self.operation, image])

    def run(self) -> int:
        if self.operation == "open":
            with romfsfs.open(str(self.image)):
                return 0
        return int(main(self.command()) or 0)

    def run_hurt(self, killer: Killer) -> int:
        return self.run()

    def fork(self, work: Callable[[], Any]) -> tuple[int, Any]:
        """(wait status, what the work returned) of a fork that did it."""
        told = self.base / "told"  # not a pipe: a daemon that the work starts would keep it open
        told.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            said = io.StringIO()
            answer: dict[str, Any] = {}
            try:
                with redirect_stdout(said), redirect_stderr(said):
                    answer["result"] = work()
            except BaseException:
                answer["error"] = traceback.format_exc()
            answer["said"] = said.getvalue()
            told.write_text(json.dumps(answer))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        return status, json.loads(told.read_text()) if told.exists() else {}

    def hurt(self, how: str, at: int) -> tuple[int, dict[str, Any]]:
        """Run the operation, hurt at its `at`-th place (0: unhurt, to count them)."""

        def killed() -> tuple[int, int]:
            killer = Killer(at)
            killer.start()
            return self.run_hurt(killer), killer.count

        def failing() -> tuple[int, int]:
            library = ctypes.CDLL(os.environ["ROMFSFS_FAULTS"])
            number = getattr(errno, how.rstrip("+"))
            library.fault_arm(at, number, int(how.endswith("+")))
            try:
                return self.run(), library.fault_count()
            finally:
                library.fault_arm(0, 0, 0)

        return self.fork(killed if how == "kill" else failing)

    def check(self, before: bytes) -> str:
        """In an unhurt process, later: is all as it must be? What is wrong."""
        target = self.image.read_bytes()
        stored = files_of(target)
        new = target != before
        wanted = {"main.mpy"} if self.operation == "build" else STORED
        if self.operation == "undo":
            wanted = set(OLD)
        if new and set(stored) - {"main.py"} != wanted - {"main.mpy"}:
            return f"the target is neither old nor new: {sorted(stored)}"
        with romfsfs.open(str(self.image)) as editor:
            if self.operation in ("commit", "convert", "recover"):
                wrong = missing(editor.path)
                if wrong:
                    return f"edits are lost: {wrong}"
            if self.operation == "undo" and not editor.status().clean:
                return "an undo left edits"
            (editor.path / "later.txt").write_bytes(b"later")
            editor.commit()
        stored = files_of(self.image.read_bytes())
        if stored.get("later.txt") != b"later":
            return "the next commit was lost"
        if self.operation in ("commit", "recover") and stored["a.txt"] != EDITS["a.txt"]:
            return "the next commit lost an edit"
        left = [path.name for path in self.image.parent.glob("*.tmp")]
        return f"left behind: {left}" if left and self.operation != "build" else ""

    def remove(self) -> None:
        shutil.rmtree(self.base)


def edit(work: Path) -> None:
    for path, data in EDITS.items():
        if data is None:
            (work / path).unlink()
        else:
            (work / path).parent.mkdir(exist_ok=True)
            (work / path).write_bytes(data)


def missing(work: Path) -> list[str]:
    wrong = []
    for path, data in EDITS.items():
        found = (work / path).read_bytes() if (work / path).exists() else None
        if found != data:
            wrong.append(path)
    return wrong


def files_of(image: bytes) -> dict[str, bytes]:
    return {
        path: image[node.extent.offset : node.extent.offset + node.extent.size]
        for path, node in walk(read_image(image))
        if isinstance(node, FileNode)
    }


# -- hurting


class Killer:
    """Counts this process's changes of files, and kills it before the `at`-th (0: never)."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0
        self.armed = True

    def start(self) -> None:
        for name in _CALLS:
            setattr(os, name, self.counted(getattr(os, name)))
        sys.addaudithook(self.heard)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.reached()
            return call(*args, **options)

        return wrapped

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        creates = event == "open" and isinstance(args[2], int) and args[2] & _CREATES
        if creates or event in _CHANGES:
            self.reached()

    def reached(self) -> None:
        self.count += self.armed
        if self.armed and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(operation: str, how: str, at: int) -> tuple[int, str]:
    """(how many places there are, what is wrong)."""
    from hurt_mounted import DaemonDesk, MountedDesk

    kinds = {"mounted-commit": MountedDesk, "mounted-undo": MountedDesk, "daemon": DaemonDesk}
    desk = kinds.get(operation, Desk)(operation)
    try:
        prepared = desk.fork(desk.prepare)[1]
        assert "error" not in prepared, prepared["error"]
        before = desk.image.read_bytes()
        status, answer = desk.hurt(how, at)
        places = answer.get("result", [0, 0])[1]
        said = answer.get("said", "") + answer.get("error", "")
        if at and how == "kill" and not os.WIFSIGNALED(status) and operation != "daemon":
            return places, f"it was not killed: {said}"
        if how != "kill" and "Traceback" in said and not clear_error(said):
            return places, f"no clear error: {said}"
        checked = desk.fork(lambda: desk.check(before))[1]
        return places, checked.get("result", "") or checked.get("error", "")
    finally:
        desk.remove()


def clear_error(said: str) -> bool:
    """Whether a Python program got the reason (the command line never shows a traceback)."""
    last = said.rstrip().rpartition("\n")[2]
    return last.startswith(("romfsfs.errors.", "OSError: [Errno"))


def hurt_all(operation: str, how: str, every: int, first: int = 1) -> dict[str, Any]:
    places, wrong = attempt(operation, how, 0)
    found = {0: wrong} if wrong else {}
    assert places, "nothing to hurt"
    tried = range(first, places + 1, every)
    for at in tried:
        wrong = attempt(operation, how, at)[1]
        if wrong:
            found[at] = wrong
    return {"places": places, "tried": len(tried), "found": found}


if __name__ == "__main__":
    print(json.dumps(hurt_all(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))
