"""Mount, edit, unmount, on real mounts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from cli_mounts import LIMIT, Mounts, Ran
from processes import until

from romfsfs import api
from romfsfs.errors import shell_word
from romfsfs.fs.mountpoint import wait_for_exit
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import find_mounted
from romfsfs.system.mount_table import find_mount, is_dead


def pid_of(directory: Path) -> int:
    folder = find_mounted(str(directory))
    assert folder is not None
    holder = folder.mounted_at()
    assert holder is not None
    return holder.pid


def kill(directory: Path) -> None:
    pid = pid_of(directory)
    os.kill(pid, signal.SIGKILL)
    assert wait_for_exit(pid, LIMIT)
    assert is_dead(str(directory))


def test_edit_commit_and_unmount(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    (cam / "app.py").write_text("x = 1\n")
    (cam / "lib/b.bin").rename(cam / "lib/c.bin")
    done = mounts.command("status", cam)
    assert re.search(r"^  M a\.txt +7 B$", done.out, re.MULTILINE)
    assert "  D lib/b.bin" in done.out
    assert f", mounted at {cam}\n" in mounts.command("sessions").out
    done = mounts.command("umount", "--commit", cam)
    assert done.code == 0, done.err
    assert "verified" in done.out
    assert find_mount(str(cam)) is None
    assert mounts.command("ls", image).out.split() == ["a.txt", "lib/", "lib/c.bin", "app.mpy"]
    assert "no edits\n" in mounts.command("sessions").out
    cam = mounts.mount(image)
    assert sorted(path.name for path in cam.iterdir()) == ["a.txt", "app.py", "lib"]


def test_a_plain_umount_keeps_the_edits_and_says_how_to_go_on(mounts: Mounts, image: Path) -> None:
    before = image.read_bytes()
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    done = mounts.command("umount", cam)
    assert done.code == 0
    assert f"1 change kept; continue: romfsfs mount {shell_word(image)} DIR" in done.out
    assert image.read_bytes() == before
    cam = mounts.mount(image)
    assert (cam / "a.txt").read_text() == "edited\n"
    done = mounts.command("umount", cam, "--discard")
    assert "discarded 1 change" in done.out
    assert image.read_bytes() == before
    cam = mounts.mount(image)
    assert (cam / "a.txt").read_text() == "first\n"


#: A command where SIGCHLD is ignored, as some launchers leave it, and `trap '' CHLD` of a shell.
UNTOLD = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "romfsfs", *sys.argv[1:]])
"""


def test_a_launcher_does_not_want_to_know_how_children_end(mounts: Mounts, image: Path) -> None:
    """We do: the mount that was made was an error, and no script could be compiled."""
    cam = mounts.folder / "cam"
    cam.mkdir()
    mounts.directories.append(cam)

    def run(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", UNTOLD, *map(str, words)], capture_output=True, text=True,
            timeout=LIMIT, check=False, cwd=mounts.folder,
        )  # fmt: skip
        assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr
        return done.stdout

    assert run("mount", image, cam) == f"{image} is mounted at {cam}\n"
    (cam / "app.py").write_text("x = 'a script of this test alone'\n")
    assert "A app.py -> app.mpy" in run("status", cam)
    assert "verified" in run("commit", cam)
    assert run("umount", cam) == ""


def test_a_script_that_is_still_being_written_is_told_apart(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    assert "nothing to commit" in mounts.command("status", cam).out
    # Another process: one that starts others closes its files in them, and so for the mount.
    still = "f = open('app.py', 'wb', 0); f.write(b'still_open = 1'); print('it is', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{still}; input()"], cwd=cam, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "it is\n"
        done = mounts.command("status", cam)
        assert "A app.py -> app.mpy  open for writing" in done.out
        done = mounts.command("commit", cam)
        assert done.code == 1
        assert "app.py" in done.err
        writer.communicate("\n")
    done = mounts.command("commit", cam)
    assert done.code == 0, done.err


@pytest.mark.skipif(not needs.LINUX, reason="only /proc tells that a child has ended")
def test_a_mount_in_the_foreground_keeps_the_log_too(mounts: Mounts, image: Path) -> None:
    """As `automount` mounts: whoever looks for the reason looks there."""
    cam = mounts.folder / "cam"
    cam.mkdir()
    mounts.directories.append(cam)
    process = subprocess.Popen(
        [sys.executable, "-m", "romfsfs", "mount", "--foreground", image, cam],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until(lambda: find_mount(str(cam)) is not None)
    (cam / "bad.py").write_text("def f(:\n")
    until(lambda: "SyntaxError" in (cam / ".romfs/log").read_text())
    assert mounts.command("umount", cam).code == 0
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "SyntaxError" in said, "and standard error as before"
    assert "INFO" not in said


def test_a_commit_that_fails_leaves_it_mounted(mounts: Mounts, image: Path) -> None:
    before = image.read_bytes()
    cam = mounts.mount(image)
    (cam / "bad.py").write_text("def f(:\n")
    done = mounts.command("umount", "--commit", cam)
    assert done.code == 3
    assert "bad.py" in done.err
    assert find_mount(str(cam)) is not None
    with pytest.raises(OSError, match="Input/output error"), open(cam / ".romfs/ctl", "w") as ctl:
        ctl.write("commit\n")
    assert "SyntaxError" in (cam / ".romfs/log").read_text()
    assert image.read_bytes() == before
    (cam / "bad.py").unlink()
    assert mounts.command("umount", "--commit", cam).code == 0


def test_a_file_open_for_writing_is_named(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    with open(cam / "a.txt", "w") as file:
        file.write("half")
        file.flush()
        done = mounts.command("commit", cam)
        assert done.code == 1
        assert "open for writing: a.txt" in done.error
    assert mounts.command("commit", cam).code == 0


def test_umount_of_a_folder_inside_names_the_mountpoint(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    done = mounts.command("umount", cam / "lib")
    assert done.code == 2
    assert f"romfsfs umount {shell_word(cam)}" in done.error
    assert (cam / "a.txt").exists()


def test_a_second_mount_is_refused_with_pid_and_place(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image, "--board", "OPENMV4")
    (mounts.folder / "second").mkdir()
    done = mounts.shell("mount", image, mounts.folder / "second", "--board", "OPENMV_N6")
    assert done.code == 1
    assert str(cam) in done.error
    assert str(pid_of(cam)) in done.error
    assert json.loads(mounts.command("status", cam, "--json").out)["board"] == "OPENMV4"
    assert mounts.command("undo", cam).code == 1


def test_a_killed_daemon_loses_nothing(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    (cam / "new").mkdir()
    (cam / "new/deep.txt").write_text("1")
    kill(cam)
    for path in (cam, cam / "new", cam / "new/deep.txt"):  # by the dead mountpoint's name
        assert "  M a.txt" in mounts.command("status", path).out
    assert "b/new/deep.txt" in mounts.command("diff", cam / "new").out
    done = mounts.command("umount", cam / "new")
    assert done.error.endswith(f"romfsfs ({cam}/new); romfsfs umount {cam}")
    done = mounts.shell("mount", image, cam / "new")
    assert done.error.endswith(f"has ended ({cam}/new); romfsfs umount {cam}")
    done = mounts.command("umount", cam)
    assert done.code == 0
    assert "the mount's process had ended" in done.out
    assert "3 changes kept" in done.out
    cam = mounts.mount(image)
    assert (cam / "new/deep.txt").read_text() == "1"
    kill(cam)
    cam = mounts.mount(image)  # straight over the dead one
    assert (cam / "a.txt").read_text() == "edited\n"
    kill(cam)
    done = mounts.command("commit", cam)
    assert done.code == 0
    assert mounts.command("cat", image, "new/deep.txt").out == "1"


def test_a_commit_on_unmount_after_the_daemon_was_killed(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "bad.py").write_text("def f(:\n")
    kill(cam)
    assert mounts.command("umount", "--commit", cam).code == 3
    assert find_mount(str(cam)) is not None, "nothing was committed, and it stays, dead"
    cam = mounts.mount(image)
    (cam / "bad.py").unlink()
    (cam / "a.txt").write_text("edited\n")
    kill(cam)
    done = mounts.command("umount", "--commit", cam)
    assert (done.code, done.err) == (0, "")
    assert "verified" in done.out
    assert find_mount(str(cam)) is None
    assert mounts.command("cat", image, "a.txt").out == "edited\n"


def test_a_dead_mount_that_no_session_knows_of_any_more(mounts: Mounts, image: Path) -> None:
    for command in (("revert", image, "--yes"), ("sessions", "--forget", image, "--yes")):
        cam = mounts.mount(image)
        kill(cam)
        assert mounts.command(*command).code == 0
        for words in (["status"], ["commit"], ["umount", "--commit"]):
            done = mounts.command(*words, cam)
            assert done.code == 2
            assert done.error == (
                "romfsfs: error: the daemon of this mount has ended, and no session is recorded "
                f"as mounted there ({cam}); romfsfs umount {cam}"
            )
        done = mounts.command("umount", cam)
        assert (done.code, done.out) == (
            0,
            "the mount's process had ended; the mount was removed\n",
        )
        assert not os.path.ismount(cam)


def test_the_ways_on_after_a_change_elsewhere_while_mounted(mounts: Mounts, image: Path) -> None:
    elsewhere = encode({"x": b"elsewhere"})
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    image.write_bytes(elsewhere)
    done = mounts.command("commit", cam)
    assert done.code == 7
    assert mounts.command("umount", "--commit", cam).code == 7
    assert (cam / "a.txt").read_text() == "edited\n"
    assert mounts.command("commit", cam, "--to", "saved.img").code == 0
    assert mounts.command("cat", "saved.img", "a.txt").out == "edited\n"
    assert image.read_bytes() == elsewhere
    assert mounts.command("umount", cam).code == 0
    assert mounts.shell("mount", image, cam).code == 7
    assert mounts.command("revert", image, "--yes").code == 0
    cam = mounts.mount(image)
    assert [path.name for path in cam.iterdir()] == ["x"]
    (cam / "x").write_text("mine\n")
    image.write_bytes(encode({"y": b"again"}))
    assert mounts.command("commit", cam, "--force").code == 0
    assert mounts.command("cat", image, "x").out == "mine\n"


def test_revert_and_undo_show_in_the_mount_at_once(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("one\n")
    (cam / "made").mkdir()
    (cam / "made/file").write_text("1")
    assert mounts.command("commit", cam).code == 0
    assert mounts.command("undo", cam).code == 0
    assert (cam / "a.txt").read_text() == "first\n"
    assert sorted(path.name for path in cam.iterdir()) == ["a.txt", "lib"]
    (cam / "a.txt").write_text("two\n")
    (cam / "lib/b.bin").unlink()
    done = mounts.command("revert", cam, cam / "a.txt")
    assert done.out == "  a.txt\n1 change reverted\n"
    assert (cam / "a.txt").read_text() == "first\n"
    assert not (cam / "lib/b.bin").exists()
    done = mounts.command("revert", cam / "lib", "--yes")
    assert (cam / "lib/b.bin").read_bytes() == bytes(range(200))
    assert json.loads((cam / ".romfs/status.json").read_text())["clean"] is True
    assert mounts.command("undo", cam).code == 1


def test_a_commit_on_unmount_is_for_that_mount(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image, "--commit-on-unmount")
    (cam / "a.txt").write_text("edited\n")
    assert "verified" in mounts.command("umount", cam).out
    assert mounts.command("cat", image, "a.txt").out == "edited\n"
    cam = mounts.mount(image, "--commit-on-unmount")
    (cam / "a.txt").write_text("again\n")
    assert "kept" in mounts.command("umount", cam, "--keep").out
    cam = mounts.mount(image)
    assert "kept" in mounts.command("umount", cam).out


def test_a_read_only_mount_takes_no_edits(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image, "--read-only")
    with pytest.raises(OSError, match="Read-only"):
        (cam / "a.txt").write_text("edited\n")
    assert mounts.command("umount", cam).code == 0
    assert "no edits" in mounts.command("sessions").out


def test_edits_that_were_kept_are_committed_beside_a_read_only_mount(
    mounts: Mounts, image: Path
) -> None:
    """It takes no changes, and those that a commit makes to the tree are none of its user's."""
    image.write_bytes(encode({"app.mpy": b"M\x06old", "a.txt": b"first\n"}))
    cam = mounts.mount(image)
    (cam / "app.py").write_text("x = 1\n")  # replaces app.mpy
    assert mounts.command("umount", cam).code == 0
    cam = mounts.mount(image, "--read-only")
    done = mounts.command("commit", cam)
    assert (done.code, "verified" in done.out) == (0, True)
    assert mounts.command("status", cam, "--exit-code").code == 0
    assert mounts.command("undo", cam).code == 0
    assert sorted(path.name for path in (cam / ".romfs/base").iterdir()) == ["a.txt", "app.mpy"]
    assert mounts.command("cat", image, "app.mpy").out.startswith("M")
    assert mounts.command("umount", cam).code == 0


def test_new_and_blank_targets(mounts: Mounts, tmp_path: Path) -> None:
    missing = tmp_path / "missing.img"
    cam = mounts.mount(missing, "--new", "--board", "OPENMV4")
    (cam / "a.txt").write_text("1")
    assert not missing.exists()
    assert mounts.command("umount", "--commit", cam).code == 0
    blank = tmp_path / "blank.img"
    blank.write_bytes(b"\xff" * 131072)
    cam = mounts.mount(blank)
    assert list(cam.iterdir()) == []
    (cam / "b.txt").write_text("2")
    assert mounts.command("umount", "--commit", cam).code == 0
    assert blank.stat().st_size == 131072
    assert mounts.command("cat", blank, "b.txt").out == "2"


def test_two_commands_at_once(mounts: Mounts, image: Path) -> None:
    """One commits, the other says that it does, or finds nothing left to commit."""
    cam = mounts.mount(image)
    (cam / "data.bin").write_bytes(os.urandom(4 << 20))
    ends: list[object] = []

    def commit() -> None:
        done = mounts.shell("commit", cam)
        busy = "by another process" in done.err or "a commit of" in done.err
        ends.append((done.code, busy, done.code or "B" in done.out))
        ends.append(mounts.shell("status", cam).code)

    threads = [threading.Thread(target=commit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert ends.count(0) == 3
    codes = [end for end in ends if isinstance(end, tuple)]
    assert (0, False, True) in codes
    assert all(code == 0 or busy for code, busy, _ in codes)
    assert mounts.command("commit", cam).out.endswith("nothing to commit, nothing written\n")


def test_a_dead_mount_is_not_an_empty_folder(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    kill(cam)
    with pytest.raises(OSError, match="not connected"):
        list(cam.iterdir())
    done = subprocess.run(["ls", cam], capture_output=True, check=False, timeout=LIMIT)
    assert done.returncode != 0


def test_commands_inside_the_mount_need_no_name(
    mounts: Mounts, image: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., object]
) -> None:
    cam = mounts.mount(image)
    (cam / "lib/new.txt").write_text("1")
    (cam / "a.txt").write_text("2")
    monkeypatch.chdir(cam / "lib")
    code, out, _ = run("diff")  # type: ignore[misc]
    assert code == 0
    assert "lib/new.txt" in out
    assert "a.txt" not in out
    code, out, _ = run("revert", ".", "new.txt")  # type: ignore[misc]
    assert code == 0
    assert not (cam / "lib/new.txt").exists()
    assert (cam / "a.txt").read_text() == "2"
    monkeypatch.chdir(mounts.folder)


def test_umount_by_the_name_of_the_source(mounts: Mounts, image: Path) -> None:
    """As umount(8) takes a device; and after that the source says that it is not mounted."""
    cam = mounts.mount(image)
    assert mounts.shell("umount", image).code == 0
    assert find_mount(str(cam)) is None
    (cam / "x").mkdir()
    assert mounts.shell("umount", image).error.endswith(
        "it is not mounted (" + str(image) + "); romfsfs sessions"
    )


def test_umount_from_inside_is_not_in_its_own_way(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    done = subprocess.run(
        [sys.executable, "-m", "romfsfs", "umount", "."],
        capture_output=True, text=True, timeout=LIMIT, check=False, cwd=cam,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert find_mount(str(cam)) is None


def test_a_lazy_umount_does_not_wait_for_those_who_use_it(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    pid = pid_of(cam)
    with open(cam / "lib/b.bin", "rb") as used:
        assert mounts.shell("umount", cam).code == 1
        done = mounts.shell("umount", "--lazy", cam)
        assert done.code == 0
        assert "programs still use the mount that was" in done.err
        assert done.out == "the edits are kept\n"
        assert used.read() == bytes(range(200))
    assert wait_for_exit(pid, LIMIT)
    assert "M a.txt" in mounts.command("status", image).out


def test_a_mount_over_the_folder_that_one_is_in_says_so(mounts: Mounts, image: Path) -> None:
    """The shell sees the folder below until it enters again: what it writes would be lost there."""
    cam = mounts.mount(image)
    assert mounts.shell("umount", cam).code == 0
    done = subprocess.run(
        [sys.executable, "-m", "romfsfs", "mount", image, "."],
        capture_output=True, text=True, timeout=LIMIT, check=False, cwd=cam,
    )  # fmt: skip
    assert done.returncode == 0
    assert "to enter the mount: cd ." in done.stderr


def test_a_mount_that_could_read_nothing_leaves_no_session(mounts: Mounts, image: Path) -> None:
    image.write_bytes(image.read_bytes()[:200])
    folder = mounts.folder / "cam"
    folder.mkdir()
    refused = mounts.shell("mount", image, folder)
    assert refused.code == 4
    assert f"({image}, offset " in refused.error
    assert "mount --new starts empty" in refused.error
    assert mounts.shell("mount", mounts.folder / "no.img", folder).code == 5
    assert mounts.command("sessions").out == "no sessions\n"


def test_a_board_that_is_too_small_is_said_at_once(mounts: Mounts, tmp_path: Path) -> None:
    big = tmp_path / "big.img"
    big.write_bytes(encode({"big.bin": bytes(200_000)}))
    cam = tmp_path / "cam"
    cam.mkdir()
    mounts.directories.append(cam)
    done = mounts.shell("mount", big, cam, "--board", "OPENMV4")
    assert done.code == 0
    assert " B too large, there is room for 131,072 B: romfsfs status" in done.err


def test_the_mount_table_has_the_whole_path(mounts: Mounts, image: Path) -> None:
    """mount(8) shows a relative one as if it were in the folder where it is asked."""
    cam = mounts.folder / "cam"
    cam.mkdir()
    mounts.directories.append(cam)
    assert mounts.shell("mount", image.name, "cam").code == 0
    found = find_mount(str(cam))
    assert found is not None
    assert found.source == str(image)


def test_what_the_system_says_of_an_unmount_is_shown(
    mounts: Mounts, run: Callable[..., Ran], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = mounts.mount(image)
    monkeypatch.setattr(
        "romfsfs.fs.mountpoint._unmounter",
        lambda lazy=False: ["sh", "-c", "echo entry not found in mtab; exit 1"],
    )
    done = run("umount", cam)
    assert done.code == 1
    assert done.err == f"romfsfs: error: cannot unmount: entry not found in mtab ({cam})\n"


@pytest.mark.parametrize("pattern", ["a/b", "!"])
def test_a_pattern_that_is_refused_is_not_remembered(
    mounts: Mounts, run: Callable[..., Ran], image: Path, pattern: str
) -> None:
    cam = mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    assert run("umount", cam).code == 0
    done = mounts.shell("mount", image, cam, "--exclude", pattern)
    assert done.code == 2
    assert "exclude pattern" in done.error
    assert "M a.txt" in run("status", image).out
    assert mounts.mount(image) == cam
    assert (cam / "a.txt").read_text() == "edited\n"


def test_a_mount_whose_board_is_not_known_any_more_can_be_unmounted(
    mounts: Mounts, image: Path
) -> None:
    """Its table was removed from `boards.toml` meanwhile."""
    cam = mounts.mount(image, "--board", "OPENMV4")
    (cam / "a.txt").write_text("edited\n")
    folder = find_mounted(str(cam))
    assert folder is not None
    folder.info.write_text(folder.info.read_text().replace('"OPENMV4"', '"MY_BOARD"'))
    done = mounts.command("umount", cam)
    assert (done.code, find_mount(str(cam))) == (0, None)
    assert done.out == (
        f"1 change kept; continue: romfsfs mount {image} DIR; or write: romfsfs commit {image}\n"
    )
    assert mounts.shell("mount", image, cam).error.startswith(
        "romfsfs: error: unknown board 'MY_BOARD'; choose another with: mount --board BOARD"
    )
    mounts.mount(image, "--board", "OPENMV4")
    assert "M a.txt" in mounts.command("status", cam).out


def test_a_mount_that_is_refused_leaves_the_board_of_the_edits(
    mounts: Mounts, run: Callable[..., Ran], image: Path
) -> None:
    cam = mounts.mount(image, "--board", "OPENMV4")
    (cam / "a.txt").write_text("edited\n")
    assert run("umount", cam).code == 0
    done = mounts.shell("mount", image, cam, "--new", "--board", "OPENMV_N6", "--no-convert")
    assert done.code == 1
    assert "--new would drop them" in done.error
    assert "(OPENMV4, partition 0)" in run("status", image).out
    image.write_bytes(encode({"elsewhere.txt": b""}))
    assert mounts.shell("mount", image, cam, "--board", "OPENMV_N6").code == 7
    assert "(OPENMV4, partition 0)" in run("status", image).out


def test_a_mount_that_libfuse_refuses_leaves_the_session_as_it_was(
    mounts: Mounts, run: Callable[..., Ran], image: Path
) -> None:
    """Its board and patterns would count for edits that were made without them."""
    cam, refused = mounts.folder / "cam", ("--exclude", "*.txt", "-o", "bogus_option")
    cam.mkdir()
    done = mounts.shell("mount", image, cam, "--board", "OPENMV_AE3", *refused)
    assert (done.code, "bogus_option" in done.error) == (1, True), done.err
    assert run("sessions").out == "no sessions\n"
    mounts.mount(image, "--board", "OPENMV4")
    (cam / "a.txt").write_text("edited\n")
    assert run("umount", cam).code == 0
    before = run("status", "--json", image).out
    done = mounts.shell("mount", image, cam, "--board", "OPENMV_AE3", *refused)
    assert (done.code, "bogus_option" in done.error) == (1, True)
    assert run("status", "--json", image).out == before
    assert mounts.mount(image) == cam


def test_a_source_that_is_not_mounted_can_be_discarded(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image)
    (cam / "new.txt").write_text("1")
    assert "1 change kept; continue: " in mounts.command("umount", image).out
    refused = mounts.command("umount", image).error
    assert refused.endswith(f"it is not mounted ({image}); romfsfs sessions")
    assert mounts.command("umount", "--discard", image).out == "discarded 1 change\n"
    assert mounts.command("status", image).out.endswith(": not mounted, no edits\n")


def test_info_of_a_mounted_directory(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image, "--board", "N6")
    (cam / "new.txt").write_text("1")
    shown = mounts.command("info", cam).out
    assert shown.startswith(f"{image}: ")
    assert " of 25,165,824 B" in shown
    assert "a.txt" in mounts.command("info", "--map", cam / "lib").out
    assert mounts.command("umount", "--discard", cam).code == 0


def test_a_built_image_is_replaced_when_it_is_said(image: Path, run: Callable[..., Ran]) -> None:
    (image.parent / "tree").mkdir()
    for board in ([], ["--board", "N6"]):
        refused = run("build", "tree", image, *board)
        assert (refused.code, refused.error) == (
            2, f"romfsfs: error: the file exists ({image}); choose another name, or replace it "
            "with --force",
        )  # fmt: skip
    assert run("build", "tree", image, "--force").code == 0


def test_a_line_of_fstab_names_board_and_partition_too(mounts: Mounts, image: Path) -> None:
    cam = mounts.mount(image, "-o", "board=AE3:1")
    assert "(OPENMV_AE3, partition 1): " in mounts.command("status", cam).out
    assert mounts.command("umount", cam).code == 0
    with api.open(image, board="AE3:0") as editor:
        assert editor.session.info.partition == 0
