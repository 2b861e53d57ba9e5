"""What people save, copy and move with, in a real mount; and what of it the image holds.

`tests/fs/test_mounted_programs.py` has cp, mv, rsync, tar, git and vim.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import SECONDS, until
from real_mount import RealMount, sh

ENTER, UP, DOWN = "\r", "\x1bOA", "\x1bOB"
F2, F5, F6, F8, F10 = "\x1b2", "\x1b5", "\x1b6", "\x1b8", "\x1b0"


class Terminal:
    """A program on a terminal, and who types."""

    def __init__(self, mounted: RealMount, *command: object) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
            home = {"HOME": str(mounted.base), "TERM": "xterm", "LANG": "C.UTF-8"}
            try:
                os.chdir(mounted.mnt)
                os.execvpe(str(command[0]), [str(w) for w in command], {**mounted.env, **home})
            finally:  # or this copy of the test runner would run the other tests again
                os._exit(127)
        self.shown = b""

    def read(self, quiet: float = 0.05) -> None:
        """Read what is shown until nothing more comes for `quiet` seconds."""
        while select.select([self.fd], [], [], quiet)[0]:
            try:
                self.shown += os.read(self.fd, 65536)
            except OSError:  # it ended
                return

    def wait_for(self, text: str) -> None:
        def there() -> bool:
            self.read()
            return text.encode() in self.shown

        until(there)

    def type(self, *keys: str) -> None:
        for key in keys:
            os.write(self.fd, key.encode())
            time.sleep(0.02)  # an escape sequence is told from its parts by time
            self.read()

    def wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            self.read()
            assert time.monotonic() < deadline, self.shown[-2000:]
        self.pid = 0

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(mounted: RealMount) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*command: object) -> Terminal:
        opened.append(Terminal(mounted, *command))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.mark.program("emacs")
def test_sed_and_emacs_save(mounted: RealMount) -> None:
    sh(mounted, """
        echo one > a.txt; sed -i s/one/two/ a.txt; test "$(cat a.txt)" = two
        chmod 600 a.txt; sed -i.bak s/two/three/ a.txt; test "$(cat a.txt.bak)" = two
        test "$(stat -c %a a.txt)" = 600
        for copying in t nil; do
            emacs -Q --batch a.txt --eval "(setq backup-by-copying $copying)" \\
                --eval "(setq backup-enable-predicate (lambda (name) t))" \\
                --eval '(progn (goto-char (point-max)) (insert "more\\n") (save-buffer))' 2>&1
        done
        test "$(cat a.txt)" = "three
more
more"
        test "$(cat a.txt~)" = "three
more"
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    assert mounted.stored() == {"a.txt": b"three\nmore\nmore\n", "a.txt.bak": b"two\n"}


@pytest.mark.program("nano")
def test_nano_saves(mounted: RealMount, terminal: Callable[..., Terminal]) -> None:
    (mounted.mnt / "a.txt").write_text("old\n")
    nano = terminal("nano", "--ignorercfiles", "--backup", "a.txt")
    nano.wait_for("old")
    nano.type("new ", "\x0f", ENTER)  # Ctrl-O writes
    until(lambda: (mounted.mnt / "a.txt").read_text() == "new old\n")
    nano.type("\x18")
    nano.wait()
    assert sorted(os.listdir(mounted.mnt)) == ["a.txt", "a.txt~"]


@pytest.mark.program("mc")
def test_midnight_commander_copies_moves_deletes_and_edits(
    mounted: RealMount, terminal: Callable[..., Terminal]
) -> None:
    source = mounted.base / "source"
    source.mkdir()
    (source / "labels.txt").write_text("cat\n")
    (source / "model.bin").write_bytes(bytes(300_000))
    os.utime(source / "model.bin", ns=(10**18, 10**18))
    model, labels = mounted.mnt / "model.bin", mounted.mnt / "labels.txt"
    mc = terminal("mc", "--nosubshell", "--nomouse", source, mounted.mnt)
    mc.wait_for("model.bin")
    mc.read(quiet=1)  # it drops what is typed before it is ready
    mc.type(DOWN, DOWN, F5)
    mc.wait_for("ancel")
    mc.type(ENTER)
    until(lambda: model.exists() and model.stat().st_mtime_ns == 10**18)
    assert model.read_bytes() == bytes(300_000)
    mc.read(quiet=0.3)
    mc.type(UP, F6)  # to another file system: copied, and removed here
    mc.wait_for("ove")
    mc.read(quiet=0.3)
    mc.type(ENTER)
    until(lambda: labels.exists() and not (source / "labels.txt").exists())
    mc.read(quiet=0.3)
    mc.type("\t", DOWN, DOWN, F8)  # in the mount: the second file
    mc.wait_for("elete")
    mc.read(quiet=0.3)
    mc.type(ENTER)
    until(lambda: not model.exists())
    mc.read(quiet=0.3)
    mc.type(F10)
    mc.wait()
    editor = terminal("mcedit", "labels.txt")
    editor.wait_for("cat")
    editor.read(quiet=0.5)
    editor.type("dog ", F2)
    editor.wait_for("ave")
    editor.read(quiet=0.3)
    editor.type(ENTER)
    until(lambda: labels.read_text() == "dog cat\n")
    editor.type(F10)
    editor.wait()
    mounted.run("commit", mounted.mnt)
    assert mounted.stored() == {"labels.txt": b"dog cat\n"}


@pytest.mark.program("rsync", "unzip")
def test_rsync_in_place_and_unzip(mounted: RealMount) -> None:
    source = mounted.base / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(bytes(100_000))
    with zipfile.ZipFile(mounted.base / "models.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/labels.txt", "cat\ndog\n")
        archive.writestr("models/deep/net.bin", bytes(range(256)) * 200)
    sh(mounted, f"""
        rsync -a --inplace {source}/ .; printf changed >> {source}/a.bin
        number=$(stat -c %i a.bin); rsync -a --inplace --no-whole-file {source}/ .
        test "$(stat -c %i a.bin)" = "$number"; cmp a.bin {source}/a.bin
        unzip -q {mounted.base}/models.zip; unzip -qo {mounted.base}/models.zip
        test "$(cat models/labels.txt)" = "cat
dog"
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    stored = mounted.stored()
    assert stored["models/deep/net.bin"] == bytes(range(256)) * 200
    assert set(stored) == {"a.bin", "models", "models/deep", "models/deep/net.bin",
                           "models/labels.txt"}  # fmt: skip


@pytest.mark.program("sqlite3")
def test_sqlite_keeps_a_database(mounted: RealMount) -> None:
    for mode in ("delete", "truncate", "persist", "wal"):
        sql = f"""
            pragma journal_mode={mode}; create table t (n integer);
            with recursive c(n) as (select 1 union all select n + 1 from c where n < 2000)
            insert into t select n from c; begin; delete from t where n > 10; rollback;
            select count(*) from t; pragma integrity_check;
        """
        shown = sh(mounted, f"sqlite3 {mode}.db '{sql}'").split()
        assert shown == [mode, "2000", "ok"]
        assert sh(mounted, f"sqlite3 {mode}.db 'select sum(n) from t'") == "2001000\n"


def test_what_file_managers_leave_is_accepted_and_never_packed(mounted: RealMount) -> None:
    """The names of Nautilus, Dolphin and Finder, with the real files around them."""
    sh(mounted, """
        mkdir -p .Trash-1000/files .Trashes .Spotlight-V100 .fseventsd lib
        printf x > .Trash-1000/files/gone.py; printf x > ._model.bin; printf x > .DS_Store
        printf x > lib/._a.py; printf x > lib/Thumbs.db; printf x > lib/.directory
        printf 'x = 1\\n' > .goutputstream-ABC123; mv .goutputstream-ABC123 lib/a.py
        printf half > .goutputstream-DEF456; printf data > model.bin
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    assert set(mounted.stored()) == {"lib", "lib/a.mpy", "model.bin"}
    assert (mounted.mnt / ".Trash-1000/files/gone.py").exists()


@pytest.mark.program("gio")
def test_gio_copies_moves_and_trashes(make_mount: Callable[..., RealMount], tmp_path: Path) -> None:
    """What Nautilus does. Not below /dev, where GLib trashes nothing."""
    mounted = make_mount()
    mounted.mnt = tmp_path / "mnt"
    mounted.mnt.mkdir()
    mounted.mount()
    try:
        home = tmp_path / "home"
        home.mkdir()
        (home / "a.py").write_text("x = 1\n")
        sh(mounted, f"""
            gio copy -p {home}/a.py "$PWD/"; gio copy -p {home}/a.py "$PWD/b.py"; gio mkdir d
            gio move b.py d/c.py; gio rename a.py main.py; gio trash d/c.py; test ! -e d/c.py
            gio remove d; test "$(ls -d .Trash*/files/*)" = ".Trash-$(id -u)/files/c.py"
            printf 'x = 2\\n' | gio save main.py; test "$(cat main.py)" = "x = 2"
        """, HOME=str(home), XDG_DATA_HOME=str(home / "data"))  # fmt: skip
        mounted.run("commit", mounted.mnt)
        assert mounted.stored() == {"main.py": b"x = 2\n"}
    finally:
        mounted.umount()
