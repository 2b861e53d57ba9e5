"""State, caches and a mount's commands are the user's alone. Needs root, to become another."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from romfsfs.cli import main
from romfsfs.errors import RomfsError
from romfsfs.system.files import remove_temporaries, replace_atomically
from romfsfs.system.removal import remove_folder
from romfsfs.system.user_folders import make_private_dir, state_dir

NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]
SECONDS = 60


class Place:
    """Folders of a user with the worst umask, where others can reach the mountpoint."""

    def __init__(self, base: Path, binding: str) -> None:
        self.base = base
        self.mnt = base / "mnt"
        self.image = base / "app.img"
        self.mnt.mkdir()
        self.environment = {
            **os.environ,
            "ROMFSFS_STATE_DIR": str(base / "home" / "state" / "romfsfs"),
            "ROMFSFS_CACHE_DIR": str(base / "home" / "cache" / "romfsfs"),
            "ROMFSFS_FUSE": binding,
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *words: object, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "romfsfs", *map(str, words)], env=self.environment, cwd=cwd,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
            umask=0, check=False,
        )  # fmt: skip

    def romfsfs(self, *words: object) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def as_nobody(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip


def _made(binding: str) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="romfsfs-", dir=memory if memory.is_dir() else None))
    base.chmod(0o755)
    try:
        yield Place(base, binding)
    finally:
        subprocess.run(
            ["fusermount3", "-uz", str(base / "mnt")], stderr=subprocess.DEVNULL, check=False
        )
        shutil.rmtree(base)


@pytest.fixture(params=["fusepy", "mfusepy"])
def place(request: pytest.FixtureRequest, fuse_device: None) -> Iterator[Place]:
    yield from _made(request.param)


@pytest.fixture
def any_place(fuse_device: None) -> Iterator[Place]:
    """Where the binding makes no difference."""
    yield from _made("auto")


def test_everything_that_is_kept_is_private_whatever_the_umask(place: Place) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    place.romfsfs("mount", place.image, place.mnt)
    (place.mnt / "app.py").write_text("print(1)\n")
    (place.mnt / "lib").mkdir()
    place.romfsfs("commit", place.mnt)
    (place.mnt / "app.py").write_text("print(2)\n")
    place.romfsfs("commit", place.mnt)
    place.romfsfs("undo", place.image)
    (place.mnt / "data.bin").write_bytes(bytes(100))
    place.romfsfs("umount", place.mnt)
    home = place.base / "home"
    open_to_others = []
    for folder, folders, names in os.walk(home):
        for name in (*folders, *names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if path.relative_to(home).parts[1:] and "work" in path.parts:
                continue  # what the user sees in the mount has the modes that he gives
            if mode & 0o077:
                open_to_others.append((oct(mode), str(path.relative_to(home))))
    # What a tool made, in a folder of ours that is 0700.
    assert [each for each in open_to_others if not each[1].endswith(".bin")] == []
    assert list(home.glob("state/romfsfs/sessions/*/session.json"))
    assert list(home.glob("cache/romfsfs/convert/results/*/*.json"))
    seen = place.as_nobody(f"ls {home}/state || ls {home}/cache || cat {home}/state/romfsfs/*")
    assert seen.stdout == ""


def test_another_user_cannot_look_into_a_mount(place: Place) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    place.romfsfs("mount", place.image, place.mnt)
    for command in ("ls {}", "cat {}/.romfs/status", "echo commit > {}/.romfs/ctl"):
        done = place.as_nobody(command.format(place.mnt))
        assert done.returncode != 0
        assert "ermission denied" in done.stderr
    place.romfsfs("umount", place.mnt)


@pytest.mark.parametrize("option", ["", "umask=0", "uid=65534"])
def test_another_user_of_a_shared_mount_may_read_but_command_nothing(
    place: Place, option: str
) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    options = ["-o", f"allow_other,{option}".rstrip(",")]
    place.romfsfs("mount", place.image, place.mnt, *options)
    (place.mnt / "a.txt").write_text("for all\n")
    (place.mnt / "a.txt").chmod(0o644)
    before = place.image.read_bytes()
    assert place.as_nobody(f"cat {place.mnt}/a.txt").stdout == "for all\n"
    for command in ("echo commit > {}", "echo commit >> {}", "printf commit | dd of={}"):
        done = place.as_nobody(command.format(place.mnt / ".romfs" / "ctl"))
        assert done.returncode != 0
        assert "ermission denied" in done.stderr
    assert place.image.read_bytes() == before
    (place.mnt / ".romfs" / "ctl").write_text("commit\n")  # who mounted it may
    assert place.image.read_bytes() != before
    place.romfsfs("umount", place.mnt)


@pytest.mark.parametrize("option", ["", "umask=0", "uid=65534"])
def test_another_user_of_a_shared_mount_reads_no_state(place: Place, option: str) -> None:
    """`.romfs/` shows every file whatever its mode, and the log."""
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    place.romfsfs("mount", place.image, place.mnt, "-o", f"allow_other,{option}".rstrip(","))
    secret = place.mnt / "secret.txt"
    secret.write_text("the password\n")
    secret.chmod(0o600)
    (place.mnt / "for-all.txt").write_text("for all\n")
    assert "secret.txt" in (place.mnt / ".romfs/status").read_text()  # now the kernel knows it
    assert (place.mnt / ".romfs/shadow/secret.txt").read_text() == "the password\n"
    paths = (
        "", "/status", "/status.json", "/status.html", "/log", "/writers", "/shadow", "/base",
        "/shadow/secret.txt", "/shadow/for-all.txt",
    )  # fmt: skip
    for path, command in [(each, "cat") for each in paths[1:]] + [
        (each, "ls") for each in ("", "/shadow", "/base")
    ]:
        done = place.as_nobody(f"{command} {place.mnt}/.romfs{path}")
        assert (done.returncode != 0, done.stdout) == (True, ""), (path, done.stdout)
        assert "ermission denied" in done.stderr or "s a directory" in done.stderr, done.stderr
    assert place.as_nobody(f"cat {place.mnt}/for-all.txt").stdout == "for all\n"
    place.romfsfs("umount", "--discard", place.mnt)


@pytest.fixture
def shared_folder(any_place: Place) -> Path:
    """A folder as /tmp is."""
    shared = any_place.base / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    victim = any_place.base / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    return shared


def test_an_image_in_a_shared_folder(any_place: Place, shared_folder: Path) -> None:
    """Somebody who may read it holds a lock on it; files of others look like leftovers."""
    theirs = {f"{name}.{n}.tmp" for name in ("app.img", "built.img") for n in (1, 4711)}
    laid = any_place.as_nobody(
        f"cd {shared_folder} && ln -s ../victim trap && touch {' '.join(theirs)}"
    )
    assert laid.returncode == 0, laid.stderr
    image, built = shared_folder / "app.img", shared_folder / "built.img"
    tree = any_place.base / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("1")
    any_place.romfsfs("new", image, "--board", "OPENMV4P")
    image.chmod(0o644)
    holder = subprocess.Popen(
        ["flock", "--shared", image, "sleep", "60"], user=NOBODY, group=NOBODY, extra_groups=[]
    )
    try:
        any_place.romfsfs("mount", image, any_place.mnt)
        (any_place.mnt / "app.py").write_text("print(1)\n")
        any_place.romfsfs("umount", "--commit", any_place.mnt)
        any_place.romfsfs("build", tree, built, "--board", "OPENMV4P")
        any_place.romfsfs("undo", image)
    finally:
        holder.kill()
        holder.wait()
    assert (any_place.base / "victim").read_bytes() == b"precious"
    for path in (image, built):
        assert path.is_file()
        assert not path.is_symlink()
        assert path.stat().st_uid == 0
    assert {path.name for path in shared_folder.iterdir()} == {
        "app.img", "built.img", "trap", *theirs
    }  # fmt: skip


def test_folders_that_others_could_fill_are_refused(tmp_path: Path) -> None:
    private = make_private_dir(tmp_path / "a" / "b" / "c")
    for folder in (private, private.parent, private.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert make_private_dir(private) == private
    private.chmod(0o777)
    with pytest.raises(RomfsError, match="everybody may write"):
        make_private_dir(private)
    private.chmod(0o755)
    make_private_dir(private)
    private.chmod(0o775)
    make_private_dir(private)  # of the user's own group, as many systems make folders
    if os.geteuid() == 0:
        os.chown(private, 0, NOBODY)
        with pytest.raises(RomfsError, match="other users may write"):
            make_private_dir(private)
        os.chown(private, 0, 0)
    private.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(private, NOBODY, NOBODY)
        with pytest.raises(RomfsError, match="belongs to another user"):
            make_private_dir(private)
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "a")
        os.lchown(link, NOBODY, NOBODY)
        with pytest.raises(RomfsError, match="belongs to another user"):
            make_private_dir(link)


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def of_a_group(folder: Path) -> None:
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o775)


def of_another(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)


def a_link_of_another(folder: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real")
    os.lchown(folder, NOBODY, NOBODY)


def a_link_into_an_open_folder(folder: Path) -> None:
    real = folder.with_name("open") / "real"
    real.parent.mkdir()
    folder.rename(real)
    folder.symlink_to("../b/open/real" if folder.parent.name == "b" else "open/real")
    real.parent.chmod(0o777)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("made", "why"),
    [
        (open_to_all, "everybody may write"),
        (of_a_group, "other users may write"),
        (of_another, "belongs to another user"),
        (a_link_of_another, "belongs to another user"),
        (a_link_into_an_open_folder, "everybody may write"),
    ],
)
def test_no_part_of_the_path_of_the_state_may_be_open_to_others(
    any_place: Place, depth: int, made: Callable[[Path], None], why: str
) -> None:
    """Who can rename one of them puts another in its place, with links in it."""
    state = any_place.base / "a" / "b" / "c"
    state.mkdir(parents=True)
    made((state, *state.parents)[depth])
    for variable in ("ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR"):
        any_place.environment[variable] = str(state / "romfsfs")
    done = any_place.run("sessions")
    assert done.returncode == 1, done.stdout + done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert "chmod" not in done.stderr  # it may be /tmp
    assert not list(state.iterdir())


def test_a_state_folder_in_a_shared_folder_may_be_ones_own(shared_folder: Path) -> None:
    """As below /tmp: others can make names there, but not take away what is not theirs."""
    state = make_private_dir(shared_folder / "mine" / "state")
    assert make_private_dir(state.parent / ".." / "mine" / "state").samefile(state)
    other = shared_folder / "theirs"
    other.mkdir()
    os.chown(other, NOBODY, NOBODY)
    with pytest.raises(RomfsError, match="belongs to another user"):
        make_private_dir(other / "state")
    (shared_folder / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        make_private_dir(shared_folder / "circle" / "state")


def test_a_shared_folder_itself_is_no_state_folder(
    shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is told to close it to all others."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(shared_folder))
    with pytest.raises(RomfsError, match="everybody may write") as caught:
        state_dir()
    assert "chmod" not in caught.value.next_step


def test_a_folder_of_another_user_is_not_removed(shared_folder: Path) -> None:
    planted = shared_folder / "romfsfs-planted"
    planted.mkdir()
    (planted / "file").write_text("theirs")
    os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="another user"):
        remove_folder(planted)
    assert (planted / "file").read_text() == "theirs"
    link = shared_folder / "link"
    link.symlink_to(shared_folder.parent / "victim")
    os.lchown(link, NOBODY, NOBODY)
    remove_folder(link)
    assert (shared_folder.parent / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["null", "fifo", "folder"])
def test_what_is_no_file_is_never_replaced_by_one(
    any_place: Place, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As root, `build DIR /dev/null` would leave a machine without one."""
    for name, value in any_place.environment.items():
        monkeypatch.setenv(name, value)
    base = any_place.base
    target = base / kind
    if kind == "null":
        os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    before = target.lstat()
    (base / "tree").mkdir()
    commands: list[tuple[object, ...]] = [
        ("build", base / "tree", target, "--force"),
        ("new", target, "--board", "OPENMV4P", "--force"),
        ("ls", target), ("verify", target), ("info", target), ("push", target, "camera"),
        ("extract", target, base / "out"), ("status", target), ("log", target),
    ]  # fmt: skip
    for words in commands:
        assert main([str(word) for word in words]) in (1, 2, 5), words
    if kind != "folder":
        done = any_place.run("mount", target.name, any_place.mnt, "--new", cwd=base)
        assert done.returncode == 5, done.stderr
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises((RomfsError, OSError)), replace_atomically(target) as file:
        file.write(b"in its place")
    after = target.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (
        before.st_ino, before.st_mode, before.st_rdev
    )  # fmt: skip


def test_a_link_laid_where_a_temporary_file_goes_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who could guess."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    target = tmp_path / "app.img"
    guesses = [bytes(8), bytes([1] * 8)]
    (tmp_path / f"app.img.romfsfs-{guesses[0].hex()}.tmp").symlink_to(victim)
    monkeypatch.setattr(os, "urandom", lambda count: guesses.pop(0))
    with pytest.raises(FileExistsError), replace_atomically(target) as file:
        file.write(b"new")
    with replace_atomically(target) as file:
        file.write(b"new")
    assert victim.read_bytes() == b"precious"
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()


def test_files_of_the_users_own_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    for name in ("app.img.1.tmp", "app.img.4711.0123456789abcdef.tmp", "app.img.tmp"):
        (tmp_path / name).write_bytes(b"mine")
    with replace_atomically(tmp_path / "app.img") as file:
        file.write(b"new")
    remove_temporaries(tmp_path)
    assert len(os.listdir(tmp_path)) == 4


def test_what_another_process_still_writes_is_not_removed(tmp_path: Path) -> None:
    target = tmp_path / "app.img"
    killed = tmp_path / "app.img.romfsfs-0123456789abcdef.tmp"
    killed.write_bytes(b"half")
    script = (
        "import sys\n"
        "from romfsfs.system.files import replace_atomically\n"
        "with replace_atomically(sys.argv[1]) as file:\n"
        "    print('writing', flush=True); sys.stdin.readline(); file.write(b'last')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, target],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        with replace_atomically(target) as file:
            file.write(b"first")
        assert not killed.exists()
        assert len(os.listdir(tmp_path)) == 2
        writer.communicate("\n", timeout=60)
    assert writer.returncode == 0
    assert os.listdir(tmp_path) == ["app.img"]
    assert target.read_bytes() == b"last"
