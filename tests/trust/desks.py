"""Operations of romfsfs to be hurt, each on a folder of its own: what comes before, and what must
hold afterwards whatever happened.

Each is done in a fork of the process that imported all of this.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import romfsfs
from romfsfs.cli import main, output
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.keep.settling import settle

OLD = {"a.txt": b"first\n", "lib/b.bin": bytes(200), "app.mpy": b"M\x06\x00\x1f"}
ELSEWHERE = {"a.txt": b"written by another program\n", "new/d.txt": b"d"}
EDITS: dict[str, bytes | None] = {
    "a.txt": b"edited\n" * 9000, "added/c.txt": b"c", "app.py": b"x = 1\n", "lib/b.bin": None,
    ".git": b"not a repository",
}  # fmt: skip
#: The tree before and after the edits.
OLD_TREE: dict[str, bytes] = dict(OLD)
NEW_TREE = {path: data for path, data in {**OLD, **EDITS}.items() if data is not None}

#: Operations that keep the edits, and those that start with them committed.
_EDITED = ("commit", "recover", "rollback", "keep", "commit-to", "zoo")
_COMMITTED = ("undo", "close", "log")


@functools.cache
def _model() -> bytes:
    """A model that may be stored: what a zoo offers is looked at when it is committed."""
    make = Path(__file__).parents[2] / "scripts" / "example_model.py"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "m.tflite")
        subprocess.run([sys.executable, make, made], check=True, stdout=subprocess.DEVNULL)
        return made.read_bytes()


class Desk:
    """A folder with an image, a session of it, and the user's state.

    told: says what the user has been promised by now, for who records it.
    """

    def __init__(self, operation: str, told: Callable[[str], None] = lambda what: None) -> None:
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.base = Path(tempfile.mkdtemp(prefix="romfsfs-hurt-", dir=place))
        self.report = Path(f"{self.base}.told")
        self.image = self.base / "app.img"
        self.other = self.base / "other.img"
        self.operation = operation
        self.told = told
        self.model = _model() if operation == "zoo" else b""  # here: forks take it over
        os.environ["ROMFSFS_STATE_DIR"] = str(self.base / "state")
        os.environ["ROMFSFS_CACHE_DIR"] = str(self.base / "cache")
        os.environ["FAULTS_BELOW"] = str(self.base)
        self.image.write_bytes(encode(OLD))
        self.other.write_bytes(encode({}))  # what is not there below /dev would be a port
        self.built = self.base / "built"
        self.built.mkdir()
        (self.built / "main.py").write_bytes(b"x = 2\n")

    # -- the operation

    def prepare(self) -> None:
        """What comes before the operation, in an unhurt process."""
        operation = self.operation
        if operation == "zoo":
            (self.base / "models").mkdir()
            (self.base / "models/m.tflite").write_bytes(self.model)
        if operation in ("open", "cycle", "build", "new", "extract"):
            return
        with romfsfs.open(str(self.image)) as editor:
            if operation == "reopen":
                (editor.path / ".git").write_bytes(b"kept")
            else:
                edit(editor.path)
        if operation == "reopen":
            self.image.write_bytes(encode(ELSEWHERE))
        if operation in _COMMITTED:
            assert main(["commit", str(self.image)]) == 0
        if operation == "log":
            for text in (b"3", b"4"):
                with romfsfs.open(str(self.image)) as editor:
                    (editor.path / "a.txt").write_bytes(text)
                    editor.commit()
        if operation in ("recover", "rollback"):
            self.fork(lambda: self.killed_commit())

    def killed_commit(self) -> None:
        from romfsfs.session.keep import steps

        def on_step(name: str) -> None:
            if name == "target-written":
                os._exit(0)

        steps.on_step = on_step
        main(["commit", str(self.image)])

    def command(self) -> list[str]:
        image = str(self.image)
        return {
            "build": ["build", str(self.built), image, "--board", "OPENMV4P", "--force"],
            "convert": ["commit", image, "--dry-run"],
            "rollback": ["recover", image, "--rollback"],
            "revert": ["revert", image, "a.txt", "lib"],
            "discard": ["revert", image, "--yes"],
            "log": ["log", image, "--keep", "1"],
            "new": ["new", image, "--board", "OPENMV4P", "--force"],
            "extract": ["extract", image, str(self.base / "extracted")],
            "commit-to": ["commit", image, "--force", "--to", str(self.other)],
            "zoo": ["zoo", "add", "m", image, "--from", str(self.base / "models")],
        }.get(self.operation, [self.operation, image])

    def run(self) -> int:
        if self.operation == "cycle":
            return self.cycle()
        if self.operation in ("open", "reopen", "close", "keep"):
            with romfsfs.open(str(self.image)):
                return 0
        code = int(main(self.command()) or 0)
        self.told("done" if code == 0 else "failed")
        return code

    def cycle(self) -> int:
        """All that a user does in a day, each of it kept for certain when it is done."""
        with romfsfs.open(str(self.image)) as editor:
            edit(editor.path, durable=True)
            self.told("edited")
            settle(editor.session.folder)  # as a mount does in the background
            self.told("settled")
            editor.commit()
            self.told("committed")
        self.told("closed")
        return 0

    def run_hurt(self, killer: Any) -> int:
        return self.run()

    def hurt(self, how: str, at: int) -> tuple[int, dict[str, Any]]:
        """The operation, hurt at its `at`-th place: see `hurt.py`."""
        from hurt import hurt

        return hurt(self, how, at)

    def fork(self, work: Callable[[], Any]) -> tuple[int, Any]:
        """(wait status, what the work returned) of a fork that did it."""
        # Not a pipe: a daemon that the work starts would keep it open.
        self.report.unlink(missing_ok=True)
        pid = quiet_fork()
        if pid == 0:
            output._SHOWN_AFTER_SECONDS = float("inf")  # lines that come on a busy machine only
            said = io.StringIO()
            answer: dict[str, Any] = {}
            try:
                with redirect_stdout(said), redirect_stderr(said):
                    answer["result"] = work()
            except BaseException as error:
                answer["error"] = traceback.format_exc() + getattr(error, "detail", "")
            for thread in threading.enumerate():  # as the interpreter does at its end
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join(30)
            answer["said"] = said.getvalue()
            self.report.write_text(json.dumps(answer))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        return status, json.loads(self.report.read_text()) if self.report.exists() else {}

    # -- what must hold afterwards

    def check(self, before: bytes, after: bytes = b"", promises: Iterable[str] = ()) -> str:
        """In an unhurt process, later: is all as it must be? What is wrong.

        before, after: the target's bytes before the operation, and after one that was not hurt
        (none: not known). promises: what the user had been told was done.
        """
        target = self.image.read_bytes()
        if target not in (before, after or target):
            return f"the target is neither old nor new: {sorted(files_of(target))}"
        done = {"done", "committed"} & set(promises)
        if done and self.operation != "commit-to" and after and target != after:
            return "the target is the old one, and the user was told it is the new one"
        wrong = self.check_side() or self.check_tree(target, before, set(promises))
        left = [path.name for path in self.base.glob("*.tmp")]
        if not wrong and left and self.operation not in ("build", "new", "commit-to", "cycle"):
            return f"left behind: {left}"
        return wrong

    def check_side(self) -> str:
        """What else an operation made."""
        if self.operation == "commit-to" and self.other.exists():
            stored = files_of(self.other.read_bytes())
            if stored and set(stored) != {"a.txt", "added/c.txt", "app.mpy"}:
                return f"the other target is torn: {sorted(stored)}"
        if self.operation == "extract":
            for path in (self.base / "extracted").rglob("*"):
                if path.is_file() and OLD[str(path.relative_to(self.base / "extracted"))] is None:
                    return f"{path} is torn"
        return ""

    def check_tree(self, target: bytes, before: bytes, promises: set[str]) -> str:
        """A fresh start shows what it must, and can commit; the sources outlive it."""
        with romfsfs.open(str(self.image)) as editor:
            wrong = self.wrong_tree(tree_of(editor.path), target != before, promises)
            if wrong:
                return wrong
            if self.operation in ("undo", "close", "log", "open", "reopen") and (
                not editor.status().clean
            ):
                return f"there are edits: {editor.status().text()}"
            shown = tree_of(editor.path)
            if self.operation == "cycle" and not promises:
                return ""  # what was being written and not synced may be anything
            (editor.path / "later.txt").write_bytes(b"later")
            editor.commit()
        stored = files_of(self.image.read_bytes())
        for path, data in {**shown, "later.txt": b"later"}.items():
            if path.endswith(".txt") and stored.get(path) != data:
                return f"the next commit lost {path}"
        with romfsfs.open(str(self.image)) as editor:
            again = tree_of(editor.path)
        if again != {**shown, "later.txt": b"later"} and "app.py" in shown:
            shown.pop("app.mpy", None)  # what a source replaces goes with the commit
        if again != {**shown, "later.txt": b"later"}:
            return f"another tree after the next commit: {sorted(again)} for {sorted(shown)}"
        return ""

    def wrong_tree(self, tree: dict[str, bytes], new: bool, promises: set[str]) -> str:
        """What is wrong with the tree that a fresh start shows."""
        operation = self.operation
        compiled = {path: data for path, data in NEW_TREE.items() if path != "app.mpy"}
        edits = [NEW_TREE, compiled] if not new else [compiled]
        if operation in ("commit", "recover", "rollback", "keep", "commit-to", "convert"):
            right = tree in (NEW_TREE, compiled)
        elif operation == "zoo":
            model = tree.pop("m.tflite", None)
            right = tree in edits and model in (None, self.model)
            tree = {path: data for path, data in tree.items() if not path.endswith(".tmp")}
            right = right or tree in edits
        elif operation == "undo":
            tree.pop(".git", None)
            right = tree in (
                [OLD_TREE] if new else [{k: v for k, v in compiled.items() if k != ".git"}]
            )
        elif operation == "revert":
            right = all(tree.get(path) == NEW_TREE[path] for path in ("added/c.txt", "app.py"))
            right = right and tree.get("a.txt") in (OLD["a.txt"], NEW_TREE["a.txt"], None)
            right = right and tree.get("lib/b.bin") in (None, OLD["lib/b.bin"])
            if "done" in promises:
                right = right and tree.get("a.txt") == OLD["a.txt"] and "lib/b.bin" in tree
        elif operation == "discard":
            right = tree in (NEW_TREE, {**OLD_TREE, ".git": EDITS[".git"]}) or set(tree) >= {".git"}
        elif operation in ("close", "log"):
            right = tree in ({**compiled, "a.txt": tree["a.txt"]},) and tree["a.txt"] in (
                b"4",
                NEW_TREE["a.txt"],
            )
        elif operation == "cycle":
            right = tree in (NEW_TREE, compiled) if promises else True
            if "settled" not in promises:  # what was removed so soon may be back
                right = right or {**tree, "lib/b.bin": b""} == {**NEW_TREE, "lib/b.bin": b""}
        elif operation == "reopen":
            right = tree == {**ELSEWHERE, ".git": b"kept"}
        elif operation == "open":
            right = tree == OLD_TREE
        else:
            right = True
        return "" if right else f"the tree is wrong: { {k: len(v) for k, v in tree.items()} }"

    def remove(self) -> None:
        self.report.unlink(missing_ok=True)
        shutil.rmtree(self.base)


def quiet_fork() -> int:
    """`os.fork`, where other threads are none of the child's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def edit(work: Path, durable: bool = False) -> None:
    """What a user does to a tree; durable: with a program that syncs what it writes."""
    for path, data in EDITS.items():
        place = work / path
        if data is None:
            place.unlink()
        else:
            place.parent.mkdir(exist_ok=True)
            with open(place, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        for folder in (place.parent, work) if durable else ():
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)


def tree_of(work: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(work)): path.read_bytes()
        for path in sorted(work.rglob("*"))
        if path.is_file()
    }


def missing(work: Path) -> list[str]:
    """The edits that are not in a tree."""
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
