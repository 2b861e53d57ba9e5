"""What developers work with all day, in a real mount; and what of it the image holds."""

from __future__ import annotations

import ctypes
import errno
import functools
import http.server
import os
import select
import shutil
import struct
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import RealMount, sh

#: For programs that take their time and do nothing that the bindings see differently.
ONCE = pytest.mark.parametrize("binding", ["auto"])

GIT = """
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b
    export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
"""


@ONCE
@pytest.mark.program("git")
def test_git_clones_stashes_and_is_clean_after_a_remount(mounted: RealMount) -> None:
    """A repository in the mount outlives commit and unmount, and none of it is stored."""
    sh(mounted, GIT + """
        git init -q -b main; printf 'a = 1\\n' > a.py; mkdir lib; printf 'b = 1\\n' > lib/b.py
        git add .; git commit -qm one; git branch other; printf 'a = 2\\n' > a.py; git stash -q
        test "$(cat a.py)" = "a = 1"; git switch -q other; printf 'c = 1\\n' > c.py; git add c.py
        git commit -qm c; git switch -q main; test ! -e c.py; git stash pop -q
        test "$(cat a.py)" = "a = 2"; git commit -qam two; git merge -q --no-edit other
        test -f c.py; git gc -q; git clone -q . ../clone; git clone -q ../clone inner
        test -z "$(git -C inner status --porcelain)"; cmp inner/a.py a.py; rm -rf inner
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    assert set(mounted.stored()) == {"a.mpy", "c.mpy", "lib", "lib/b.mpy"}
    mounted.umount()
    mounted.mount()
    sh(
        mounted,
        GIT + 'test -z "$(git status --porcelain)"; git fsck --strict; git log -p | grep -q c',
    )
    sh(mounted, GIT + "git rm -rq lib; git commit -qm gone; test ! -e lib; rm -rf .git")


@pytest.mark.program("vim")
def test_vim_keeps_swap_and_undo_files_out_of_the_image(mounted: RealMount) -> None:
    sh(mounted, """
        printf 'x = 0\\n' > app.py; chmod 640 app.py
        for copy in yes no auto; do
            vim -u NONE -es -c "set nocp undofile backup writebackup backupcopy=$copy" \\
                -c "%s/= .*/= '$copy'/" -c "sil !ls -A > ../seen.$copy" -c wq app.py < /dev/null
            test "$(cat app.py)" = "x = '$copy'"; grep -q '^.app.py.swp$' ../seen.$copy
            test "$(stat -c %a app.py)" = 640
        done
        test "$(ls -A)" = ".app.py.un~
app.py
app.py~"
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    assert set(mounted.stored()) == {"app.mpy"}


@pytest.mark.program("patch")
def test_files_are_made_cut_patched_and_removed(mounted: RealMount) -> None:
    sh(mounted, """
        printf 0123456789 > a.bin; printf XY | dd of=a.bin bs=1 seek=4 conv=notrunc status=none
        test "$(cat a.bin)" = 0123XY6789; dd if=/dev/zero of=z.bin bs=64k count=4 status=none
        cp --reflink=auto --sparse=always z.bin sparse.bin; cmp z.bin sparse.bin
        cp --reflink=auto a.bin b.bin; truncate -s 4 b.bin; truncate -s +2 b.bin
        test "$(od -An -tx1 b.bin | tr -d ' ')" = 303132330000
        install -D -m 640 a.bin deep/er/c.bin; test "$(stat -c %a deep/er/c.bin)" = 640
        cp a.bin deep/d.bin; install -b a.bin deep/d.bin; test -f deep/d.bin~
        printf 'one\\ntwo\\n' > n.txt; sed s/two/three/ n.txt > ../new.txt
        ! diff -u n.txt ../new.txt > ../n.diff; patch -s n.txt ../n.diff; cmp n.txt ../new.txt
        patch -s -R -b n.txt ../n.diff; cmp n.txt.orig ../new.txt; rm n.txt.orig
        touch -d '2001-02-03 04:05:06.5 UTC' n.txt; test "$(stat -c %Y n.txt)" = 981173106
        mkdir gone; touch gone/1 gone/2; find gone -delete; test ! -e gone
        find . -name '*.bin' -size +100k -delete; test ! -e z.bin
        split -b 5 a.bin part.; cat part.* | cmp - a.bin; rm part.*
        mv -b b.bin a.bin; rm a.bin~; mv -n n.txt a.bin || :; test -f n.txt; shred -u n.txt
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    assert mounted.stored() == {
        "a.bin": b"0123\0\0", "deep": None, "deep/d.bin": b"0123XY6789",
        "deep/er": None, "deep/er/c.bin": b"0123XY6789",
    }  # fmt: skip


def test_links_are_refused_in_words(mounted: RealMount) -> None:
    said = sh(mounted, """
        export LC_ALL=C; echo a > a
        ! ln a b 2>&1; ! ln -s a b 2>&1; ! cp -l a b 2>&1; ! cp -s "$PWD/a" b 2>&1; ! mkfifo f 2>&1
        ln -s a ../link; ! cp -P ../link . 2>&1; rm ../link; test "$(ls -A)" = a
    """)  # fmt: skip
    assert said.count("Operation not permitted") == len(said.splitlines()) == 6


@ONCE
@pytest.mark.program("tar", "zip", "unzip")
def test_archives_are_brought_up_to_date(mounted: RealMount) -> None:
    sh(mounted, """
        mkdir src; echo 1 > src/a.txt; echo 2 > src/b.txt; zip -qr src.zip src
        echo 3 > src/a.txt; touch -d 2040-01-01 src/a.txt; zip -qur src.zip src
        test "$(unzip -p src.zip src/a.txt)" = 3; zip -qd src.zip src/b.txt; rm -r src
        tar cf all.tar src.zip; echo more > more.txt; tar rf all.tar more.txt; rm more.txt src.zip
        tar xf all.tar; gzip -k more.txt; gunzip -c more.txt.gz | cmp - more.txt
        rm all.tar more.txt.gz
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    stored = mounted.stored()
    assert set(stored) == {"more.txt", "src.zip"}
    with zipfile.ZipFile(mounted.mnt / "src.zip") as archive:
        assert set(archive.namelist()) == {"src/", "src/a.txt"}
    assert stored["src.zip"] == (mounted.mnt / "src.zip").read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that has model.bin."""
    (tmp_path / "model.bin").write_bytes(bytes(range(256)) * 2000)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@ONCE
@pytest.mark.program("curl", "wget")
def test_downloads_land_in_the_mount(mounted: RealMount, site: str) -> None:
    sh(mounted, f"""
        export no_proxy='*'; curl -fsS -o curl.bin {site}/model.bin; wget -q {site}/model.bin
        wget -q -N {site}/model.bin; ! curl -fsS -o none.bin {site}/none 2>/dev/null
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    content = bytes(range(256)) * 2000
    assert mounted.stored() == {"curl.bin": content, "model.bin": content}


@ONCE
def test_pip_installs_into_a_folder(mounted: RealMount) -> None:
    wheel = mounted.base / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "VALUE = 1\n")
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny/__init__.py,,\n")
    pip = f"{sys.executable} -m pip --disable-pip-version-check -q install --no-index --no-deps"
    sh(mounted, f"""
        {pip} -t lib {wheel}
        PYTHONPATH=lib {sys.executable} -c 'import tiny; assert tiny.VALUE == 1'
        rm -r lib/*.dist-info
    """, HOME=str(mounted.base))  # fmt: skip
    assert (mounted.mnt / "lib/tiny/__pycache__").is_dir()
    mounted.run("commit", mounted.mnt)
    assert set(mounted.stored()) == {"lib", "lib/tiny", "lib/tiny/__init__.mpy"}


def test_python_moves_and_keeps_files(mounted: RealMount, tmp_path: Path) -> None:
    """Across file systems, where rename answers EXDEV and a copy must take its place."""
    mnt = mounted.mnt
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/a.txt").write_text("a")
    os.utime(tmp_path / "tree/deep/a.txt", ns=(10**18, 10**18 + 1))
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        (tmp_path / "tree").rename(mnt / "tree")
    shutil.move(tmp_path / "tree", mnt / "tree")
    assert (mnt / "tree/deep/a.txt").stat().st_mtime_ns == 10**18 + 1
    shutil.copytree(mnt / "tree", mnt / "copy")
    shutil.move(mnt / "copy", tmp_path / "back")
    assert (tmp_path / "back/deep/a.txt").read_text() == "a"
    with tempfile.TemporaryDirectory(dir=mnt) as folder, tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x" * 100_000)
        file.seek(50_000)
        assert file.read() == b"x" * 50_000
    with tempfile.NamedTemporaryFile("w", dir=mnt, delete=False) as named:
        named.write("whole")
    Path(named.name).replace(mnt / "tree/whole.txt")
    mounted.run("commit", mnt)
    assert mounted.stored() == {
        "tree": None, "tree/deep": None, "tree/deep/a.txt": b"a", "tree/whole.txt": b"whole",
    }  # fmt: skip


@ONCE
@pytest.mark.program("make")
def test_make_builds_what_is_older_and_nothing_after_a_remount(mounted: RealMount) -> None:
    (mounted.mnt / "Makefile").write_text(
        "all: out/b.txt\nout/b.txt: a.txt\n\tmkdir -p out\n\tcp a.txt out/b.txt\n"
    )
    sh(mounted, """
        echo 1 > a.txt; make -s; make -q; echo 2 > a.txt; ! make -q
        make -s; test "$(cat out/b.txt)" = 2; make -q
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    sh(mounted, "make -q")
    mounted.umount()
    mounted.mount()
    sh(mounted, "make -q; touch a.txt; ! make -q; make -s; make -q")


IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE = 0x100, 0x200


def test_watchers_see_what_others_save(mounted: RealMount) -> None:
    """As editors watch the files they show; and an editor's two ways of saving."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    mask = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    assert libc.inotify_add_watch(watch, os.fsencode(mounted.mnt), mask) > 0
    path = mounted.mnt / "app.py"
    try:
        sh(mounted, "echo 'x = 1' > app.py")
        assert _events(watch) >= {(IN_CREATE, "app.py"), (IN_CLOSE_WRITE, "app.py")}
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)  # in place: VS Code
        os.write(fd, b"x = 2\n")
        os.fsync(fd)
        os.close(fd)
        assert _events(watch) >= {(IN_MODIFY, "app.py"), (IN_CLOSE_WRITE, "app.py")}
        temporary = mounted.mnt / "app.py.tmp-1-2"  # a new file in its place: Zed, Kate, JetBrains
        temporary.write_text("x = 3\n")
        temporary.replace(path)
        assert _events(watch) >= {(IN_MOVED_FROM, temporary.name), (IN_MOVED_TO, "app.py")}
        sh(mounted, "rm app.py; printf 'y = 1\\n' > main.py")
        assert _events(watch) >= {(IN_DELETE, "app.py"), (IN_CREATE, "main.py")}
    finally:
        os.close(watch)
    mounted.run("commit", mounted.mnt)
    assert mounted.stored() == {"main.py": b"y = 1\n"}


def _events(watch: int) -> set[tuple[int, str]]:
    """(kind, name) of what happened; the kernel queues it before the call that did it returns."""
    found = set()
    while select.select([watch], [], [], 0)[0]:
        data = os.read(watch, 65536)
        while data:
            _, kind, _, length = struct.unpack_from("iIII", data)
            found.add((kind, data[16 : 16 + length].rstrip(b"\0").decode()))
            data = data[16 + length :]
    return found


@pytest.mark.program("sqlite3")
def test_sqlite_is_stored_whole(mounted: RealMount) -> None:
    """With write-ahead logging two programs share a mapped file; a checkpoint puts all together."""
    sh(mounted, """
        sqlite3 a.db 'pragma journal_mode=wal; create table t(n)' > /dev/null
        shell() { sqlite3 -cmd '.timeout 20000' a.db "$@"; }
        shell 'begin; insert into t values(1); insert into t values(2); commit' & other=$!
        shell 'insert into t values(3)'; wait $other
        test "$(sqlite3 a.db 'select sum(n) from t; pragma integrity_check')" = "6
ok"
    """)  # fmt: skip
    mounted.run("commit", mounted.mnt)
    copy = mounted.base / "copy.db"
    copy.write_bytes(mounted.stored()["a.db"] or b"")
    assert sh(mounted, f"sqlite3 {copy} 'select sum(n) from t'") == "6\n"
    assert set(mounted.stored()) == {"a.db"}
