"""Everything about a mountpoint before and after the mount itself: checks, unmounting, who uses it.

Nothing here touches what is mounted, except to see whether it answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from romfsfs.errors import RomfsError, UsageError, shell_word
from romfsfs.fs.binding import install_command
from romfsfs.system.mount_table import (
    dead_mountpoint,
    find_mount,
    mounts,
    real_place,
    refuse_hanging,
)
from romfsfs.system.programs import find_on_path, processes_using

FILE_SYSTEM = "fuse.romfsfs"
_FUSE_CONF = Path("/etc/fuse.conf")
_COMMAND_SECONDS = 30
_SHOWN_PROCESSES = 8
#: Seconds for which a "busy" is retried while no process is found that uses the mount.
_BUSY_SECONDS = 2.0
_BUSY_PAUSE_SECONDS = 0.05
#: Seconds; after a lazy unmount, the daemon of a mount that nobody uses ends at once.
_LAZY_SECONDS = 2.0
_END_SECONDS = 60.0


def prepare(mountpoint: str | os.PathLike[str], *, allow_other: bool, nonempty: bool) -> str:
    """Check all that a mount there needs, and return the folder's real path.

    A dead mountpoint of ours is unmounted first. Raises UsageError or RomfsError with what to do.
    """
    path = real_place(mountpoint)
    refuse_hanging(path)
    _remove_dead(path)
    if not os.path.isdir(path):
        if os.path.lexists(path):
            raise UsageError("not a folder", where=path, next_step="choose an empty folder")
        raise UsageError("no such folder", where=path, next_step=f"mkdir -p {shell_word(path)}")
    _check_free(path, nonempty)
    check_device()
    if allow_other:
        check_allow_other()
    if sys.platform.startswith("linux") and os.geteuid() and not os.access(path, os.W_OK):
        what = "you can mount only on a folder that you can write to"
        raise UsageError(what, where=path, next_step="choose a folder of your own")
    return path


@contextlib.contextmanager
def claimed(path: str, *, nonempty: bool) -> Iterator[Callable[[], None]]:
    """Lock the folder against other romfsfs mounts, in the block or until the result is called.

    Two mounts made at the same time would be stacked, which libfuse 3 does not notice. That the
    folder is free is checked again: reading a camera takes a while. Raises UsageError as `prepare`.
    """
    with contextlib.ExitStack() as stack:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another mount is being made there"
            raise UsageError(what, where=path, next_step="choose another folder") from None
        except OSError:  # a file system without locks
            pass
        _check_free(path, nonempty)
        yield stack.close


def _check_free(path: str, nonempty: bool) -> None:
    mounted = find_mount(path)
    if mounted is not None and mounted.kind == FILE_SYSTEM:
        what = f"{mounted.source} is mounted there already"
        raise UsageError(what, where=path, next_step=f"romfsfs umount {shell_word(path)}")
    if not nonempty and os.listdir(path):
        what = "the folder is not empty, and what is in it would be hidden"
        next_step = "choose an empty folder, or add -o nonempty"
        raise UsageError(what, where=path, next_step=next_step)


def _remove_dead(path: str) -> None:
    dead = dead_mountpoint(path)
    if dead is None:
        return
    mounted = find_mount(dead)
    if mounted is not None and mounted.kind != FILE_SYSTEM:
        what = f"a file system that does not answer is mounted there ({mounted.kind})"
        raise UsageError(what, where=dead, next_step=f"fusermount3 -u {shell_word(dead)}")
    if dead != path:
        what = "the folder is in a mount whose daemon has ended"
        raise UsageError(what, where=path, next_step=f"romfsfs umount {shell_word(dead)}")
    # Lazily if need be: nothing can be written to a mount without a daemon.
    code, output = _run([*_unmounter(), path])
    if code != 0:
        code, output = _run([*_unmounter(lazy=True), path])
    if code != 0:
        what, next_step = "cannot remove what is left of an earlier mount", "sudo umount -l "
        raise RomfsError(what, where=path, detail=output, next_step=next_step + shell_word(path))


def check_device() -> None:
    """Raise RomfsError if this user cannot mount at all."""
    if not sys.platform.startswith("linux"):
        return
    if not os.path.exists("/dev/fuse"):
        next_step = "sudo modprobe fuse; in a container start it with --device /dev/fuse"
        next_step += " --cap-add SYS_ADMIN"
        raise RomfsError("this system has no /dev/fuse", next_step=next_step)
    if os.geteuid() == 0:
        return
    # libfuse opens the device itself, even where fusermount, which is setuid root, then mounts.
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise RomfsError("no permission to use /dev/fuse", next_step="sudo chmod a+rw /dev/fuse")
    if find_on_path("fusermount3") is None and find_on_path("fusermount") is None:
        raise RomfsError("fusermount is not installed", next_step=install_command())


def check_allow_other() -> None:
    """Raise UsageError if this user cannot mount for other users too."""
    if os.geteuid() == 0 or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        if re.search(r"^\s*user_allow_other\b", _FUSE_CONF.read_text(), re.MULTILINE):
            return
    what = "allow_other is not allowed to ordinary users on this system"
    next_step = "add the line user_allow_other to it: echo user_allow_other | sudo tee -a "
    raise UsageError(what, where=str(_FUSE_CONF), next_step=f"{next_step}{_FUSE_CONF}")


def unmount(
    mountpoint: str | os.PathLike[str], *, pid: int | None = None, lazy: bool = False
) -> bool:
    """Unmount and wait until the daemon `pid` has ended, a minute at most.

    lazy: detach the mountpoint even if it is in use; only when the user asks for it. Returns False
    if programs still use it then: the daemon serves them until they end.
    Raises UsageError if nothing is mounted there; RomfsError naming the processes that use it, for
    a mount inside it, or when the daemon has not ended.
    """
    path = os.fspath(mountpoint)
    if find_mount(path) is None:  # in the table: no realpath, since the mount may not answer
        path = os.path.realpath(mountpoint)
    code, output = _unmount_when_free(path, lazy)
    if code != 0:
        if find_mount(path) is None and sys.platform.startswith("linux"):
            raise UsageError("nothing is mounted there", where=path)
        users = list(processes_using(path))
        if users:
            shown = ", ".join(users[:_SHOWN_PROCESSES])
            what = f"the folder is in use by {shown}{', ...' * (len(users) > _SHOWN_PROCESSES)}"
            next_step = "end them or leave the folder, and try again"
            raise RomfsError(what, where=path, next_step=next_step)
        inside = _mounted_in(path)
        if inside:
            what = f"something else is mounted in it, at {inside[-1]}"
            raise RomfsError(what, where=path, next_step="unmount that first")
        said = output.splitlines()
        raise RomfsError(f"cannot unmount: {said[-1] if said else 'no reason given'}", where=path)
    if pid is not None and not wait_for_exit(pid, _LAZY_SECONDS if lazy else _END_SECONDS):
        if lazy:
            return False
        raise RomfsError(
            f"unmounted, but its process {pid} did not end within {_END_SECONDS:.0f} s", where=path,
            next_step="a container that was started meanwhile may hold a copy of the mount; see "
            "the mount's log",
        )  # fmt: skip
    return True


def _unmount_when_free(path: str, lazy: bool) -> tuple[int, str]:
    """Exit code and output of the program that unmounts.

    The kernel may say "busy" of a mount that nobody uses, while the release of a file or the
    reading of a folder is still under way: it is asked again, for `_BUSY_SECONDS`.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        code, output = _run([*_unmounter(lazy=lazy), path])
        if code == 0 or time.monotonic() > deadline or find_mount(path) is None:
            return code, output
        if _mounted_in(path) or any(processes_using(path)):
            return code, output
        time.sleep(_BUSY_PAUSE_SECONDS)


def _mounted_in(path: str) -> list[str]:
    return [each.mountpoint for each in mounts() if each.mountpoint.startswith(path + "/")]


def wait_for_exit(pid: int, timeout: float) -> bool:
    """Whether the process ended within `timeout` seconds."""
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:  # a kernel or sandbox without the call
            pass
        else:
            try:
                return bool(select.select([fd], [], [], timeout)[0])
            finally:
                os.close(fd)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        time.sleep(0.02)
    return False


def _unmounter(*, lazy: bool = False) -> list[str]:
    """The command that unmounts, without the mountpoint."""
    if sys.platform.startswith("linux"):
        for program in filter(None, map(find_on_path, ("fusermount3", "fusermount"))):
            return [program, "-uz" if lazy else "-u", "--"]
    lazily = "-f" if sys.platform == "darwin" else "-l"
    return ["umount", lazily] if lazy else ["umount"]


def _run(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_COMMAND_SECONDS, check=False, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
