"""Operations of `hurt.py` while the session is mounted."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from desks import EDITS, OLD, Desk, edit, files_of, missing
from hurt import Killer

import romfsfs.session.service
from romfsfs.cli import main


class MountedDesk(Desk):
    """The command is hurt; the daemon is not, and serves on."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.mnt = self.base / "mnt"
        self.mnt.mkdir()

    def prepare(self) -> None:
        assert main(["mount", str(self.image), str(self.mnt)]) == 0
        edit(self.mnt)
        if self.operation == "mounted-undo":
            assert main(["commit", str(self.mnt)]) == 0

    def command(self) -> list[str]:
        return [self.operation.removeprefix("mounted-"), str(self.mnt)]

    def check(self, before: bytes, after: bytes = b"", promises: Iterable[str] = ()) -> str:
        undo = self.operation == "mounted-undo"
        if not undo and (wrong := missing(self.mnt)):
            return f"edits are lost: {wrong}"
        stored = files_of(self.image.read_bytes())
        if set(stored) not in ({*OLD}, {"a.txt", "added/c.txt", "app.mpy"}):
            return f"the target is neither old nor new: {sorted(stored)}"
        if main(["recover", str(self.image)]) not in (0, 1):
            return "it cannot be recovered"
        if undo and main(["status", str(self.mnt)]) != 0:
            return "no status"
        (self.mnt / "later.txt").write_bytes(b"later")
        if main(["commit", str(self.mnt)]) != 0:
            return "the next commit failed"
        stored = files_of(self.image.read_bytes())
        if stored.get("later.txt") != b"later":
            return "the next commit was lost"
        for name, data in stored.items():
            if name != "app.mpy" and (self.mnt / name).read_bytes() != data:
                return f"{name} is not what was stored"
        if undo and stored["a.txt"] not in (OLD["a.txt"], EDITS["a.txt"]):
            return "a.txt is neither old nor new"
        left = [path.name for path in self.base.glob("*.tmp")]
        return f"left behind: {left}" if left else ""

    def remove(self) -> None:
        subprocess.run(["fusermount3", "-uz", self.mnt], check=False, capture_output=True)
        super().remove()


class DaemonDesk(MountedDesk):
    """The daemon is hurt, while it commits."""

    def prepare(self) -> None:
        pass

    def run_hurt(self, killer: Killer) -> int:
        killer.armed = False
        commit = romfsfs.session.service.commit

        def counted(*args: Any, **options: Any) -> Any:
            killer.armed = True
            try:
                return commit(*args, **options)
            finally:
                killer.armed = False

        romfsfs.session.service.commit = counted  # type: ignore[assignment]
        return int(main(["mount", str(self.image), str(self.mnt), "--foreground"]) or 0)

    def hurt(self, how: str, at: int) -> tuple[int, dict[str, Any]]:
        """The daemon is a fork of this process; the user another."""
        user = threading.Thread(target=self.use)
        user.start()
        found = super().hurt(how, at)
        user.join(60)
        return found

    def use(self) -> None:
        script = """
            for i in $(seq 500); do [ -e "$1/.romfs/ctl" ] && break; sleep 0.02; done
            cd "$1" && python3 "$2" && echo commit > .romfs/ctl; cd /
            for i in $(seq 200); do fusermount3 -u "$1" && break; sleep 0.05; done
        """
        editing = self.base / "edit.py"
        editing.write_text(
            "from pathlib import Path\n"
            f"for path, data in {EDITS!r}.items():\n"
            "    if data is None: Path(path).unlink()\n"
            "    else: Path(path).parent.mkdir(exist_ok=True); Path(path).write_bytes(data)\n"
        )
        subprocess.run(
            ["sh", "-c", script, "sh", self.mnt, editing],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60,
        )  # fmt: skip

    def check(self, before: bytes, after: bytes = b"", promises: Iterable[str] = ()) -> str:
        if os.path.ismount(self.mnt) or self.is_dead():
            subprocess.run(["fusermount3", "-uz", self.mnt], check=False, capture_output=True)
        self.operation = "commit"
        return Desk.check(self, before, after)

    def is_dead(self) -> bool:
        try:
            Path(self.mnt).stat()
        except OSError as error:
            return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        return False
