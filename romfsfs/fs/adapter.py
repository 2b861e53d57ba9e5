"""The operations of a mount: the work tree passed through, plus the control directory.

Everything the user sees is the kernel's own behaviour on the plain directory behind it; this
module only refuses what ROMFS has no place for, and tells the session what changed.

Any of libfuse's threads calls these, several at once. libfuse itself keeps a rename from running
beside another operation on the same path.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

from romfsfs.fs import control, tree
from romfsfs.fs.file_operations import FileOperations
from romfsfs.fs.handles import Handle
from romfsfs.fs.tree import hidden_name, refuse, to_text

STATE_ATTRIBUTE = "user.romfs.state"

# `os.fsencode` without its checks, which a large folder pays for.
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_NO_ATTRIBUTE = getattr(errno, "ENOATTR", errno.ENODATA)
_OWNER_LOOKS = stat.S_IRUSR | stat.S_IXUSR
_BLOCK = 512  # bytes; of statfs for a partition
_OF_STATFS = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree",
              "f_favail")  # fmt: skip


class Adapter(FileOperations):
    """libfuse's operations on a host. Named and called as the bindings name and call them."""

    # -- the mount itself

    def init(self, path: str) -> None:
        self._ready()

    def destroy(self, path: str) -> None:
        # libfuse forgets a nameless file whose last close overlaps its removal (libfuse #746).
        self._tree.remove_leftovers()

    def statfs(self, path: str) -> dict[str, int]:
        real = os.fstatvfs(self._host.work_fd)
        capacity, used = self._host.usage()
        numbers = {name: getattr(real, name) for name in _OF_STATFS}
        if capacity is not None:
            free = max(0, capacity - used) // _BLOCK
            numbers |= {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": capacity // _BLOCK}
            # What is edited lies on the state folder's disk until it is committed.
            on_disk = real.f_bavail * real.f_frsize // _BLOCK
            numbers |= {"f_bfree": free, "f_bavail": min(free, on_disk)}
        return {**numbers, "f_namemax": 255}

    # -- names

    def getattr(self, path: str | None, info: Any = None) -> control.Attributes | os.stat_result:
        if info is not None:
            if info.fh >= control.FIRST_HANDLE:
                return self._control.file(info.fh).attributes
            found = os.fstat(info.fh)
            handle = self._handles.get(info.fh)
            return found if handle is None or handle.hidden is None else _nameless(found)
        if path is None:
            raise refuse(errno.ENOENT)
        if path.startswith(control.ROOT) and self._control.owns(path):
            return self._control.attributes(path)
        found = self._tree.stat(path)
        return found if hidden_name(path) is None else _nameless(found)

    def access(self, path: str, mode: int) -> int:
        if self._control.owns(path):
            self._control.attributes(path)
            if mode & os.W_OK and path != control.ROOT + "/ctl":
                raise refuse(errno.EROFS)
        elif mode & os.W_OK and self._read_only:
            raise refuse(errno.EROFS)
        elif not self._tree.at(os.access, path, mode):
            self._tree.stat(path)  # ENOENT where that is the reason
            raise refuse(errno.EACCES)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._check_change(path)
        self._tree.at(os.mkdir, path, mode)
        self._hand_over(path, mode)
        self._changed(path)
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        self._check_change(path)
        if not stat.S_ISREG(mode):
            raise refuse(errno.EPERM)
        os.close(self._tree.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(mode)))
        self._hand_over(path, mode)
        self._changed(path)
        return 0

    def symlink(self, path: str, target: str) -> int:
        raise refuse(errno.EPERM)

    def link(self, path: str, source: str) -> int:
        raise refuse(errno.EPERM)

    def unlink(self, path: str) -> int:
        self._check_change(path, hidden=True)
        taken = self._taken(path)
        try:
            self._tree.at(os.unlink, path)
        except FileNotFoundError:
            if hidden_name(path) is None:
                raise
            # libfuse 3.17 removes by itself what was closed while it was hidden; `rename` had.
        if taken:
            self._space.give(taken)
        self._changed(path)
        return 0

    def rmdir(self, path: str) -> int:
        self._check_change(path)
        self._tree.at(os.rmdir, path)
        self._changed(path)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._check_change(old, hidden=True)
        self._check_change(new, hidden=True)
        if flags & ~(tree.RENAME_NOREPLACE | tree.RENAME_EXCHANGE):
            raise refuse(errno.EINVAL)  # RENAME_WHITEOUT would leave a device behind
        hides, reveals = hidden_name(new), hidden_name(old)
        if hides is not None and stat.S_ISDIR(self._tree.stat(old).st_mode):
            raise refuse(errno.EPERM)  # libfuse hides files only: a user made this name up
        taken = self._taken(old) + self._taken(new)
        self._tree.rename(old, new, tree.renamer(flags))
        self._space.give(taken - self._taken(old) - self._taken(new))
        moved: list[Handle] = []
        if hides is not None:
            if not self._handles.hide(old, hides):
                # Its last close came in between, and libfuse forgets such a file (libfuse #746).
                self._tree.at(os.unlink, new)
        elif reveals is not None:
            moved = self._handles.reveal(reveals, new)
        elif flags & tree.RENAME_EXCHANGE:
            moved = self._handles.move({old: new, new: old})
        else:
            moved = self._handles.move({old: new})
        for handle in moved:
            if handle.writable and handle.path is not None:
                handle.limit = self._host.limit(to_text(handle.path))
        self._changed(old)
        self._changed(new)
        return 0

    # -- attributes

    def chmod(self, path: str | None, mode: int, info: Any = None) -> int:
        mode = stat.S_IMODE(mode)
        if info is not None:  # set-id bits, as a user who is not root cuts off an open file
            fd = self._descriptor(info)
            handle = self._handles.get(fd)
            path = None if handle is None else handle.path
            before = os.fstat(fd).st_mode
            os.fchmod(fd, mode)
        elif path is not None:
            self._check_change(path, hidden=True)
            if path == "/":
                mode |= _OWNER_LOOKS  # or nobody could look for what is in it, nor take this back
            before = self._tree.stat(path).st_mode
            self._tree.at(os.chmod, path, mode)
        looks = _OWNER_LOOKS if stat.S_ISDIR(before) else stat.S_IRUSR
        if path is not None and (before ^ mode) & looks:
            self._changed(path)  # what could not be read can be read now, or the other way
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        # An image holds no owners: EPERM for every change of one, root's too, as on FAT. Giving
        # a file to whom it belongs is what `cp -a` and `rsync -a` do, and is no change.
        self._check_change(path, hidden=True)
        found = self._tree.stat(path)
        if uid not in (-1, found.st_uid) or gid not in (-1, found.st_gid):
            raise refuse(errno.EPERM)
        self._tree.at(os.chown, path, uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str, times: Any) -> int:
        """times: libfuse's own two `struct timespec`, or None for both now."""
        self._check_change(path, hidden=True)
        self._tree.at(tree.set_times, path, times)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        # The kernel asks for security.capability at every write: answer that without a call.
        if name != STATE_ATTRIBUTE:
            # `ls -l` asks for those of access lists and SELinux for every file, until told that
            # there is no such thing here.
            raise refuse(_NO_ATTRIBUTE if name.startswith("user.") else errno.ENOTSUP)
        if self._control.owns(path) or hidden_name(path) is not None:
            raise refuse(_NO_ATTRIBUTE)
        self._tree.stat(path)
        return self._host.file_state(to_text(path))

    def listxattr(self, path: str) -> list[str]:
        return []  # not listed: `cp -a` and `rsync -X` must not carry the state along

    def setxattr(self, path: str, name: str, value: bytes, flags: int, position: int = 0) -> int:
        raise refuse(errno.ENOTSUP)

    def removexattr(self, path: str, name: str) -> int:
        raise refuse(errno.ENOTSUP)

    # -- folders

    def opendir(self, path: str) -> int:
        if self._control.owns(path):
            return self._control.open_dir(path)
        return self._tree.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def readdir(self, handle: int) -> list[tuple[bytes, int, int]]:
        """(name, kind, inode number) of each entry: what `binding.py` hands to libfuse."""
        # Kind and number cost nothing here, and the kind saves `find` and `rm -r` a stat each.
        # An entry without a number would be skipped: 0 means deleted.
        number = control.FIRST_HANDLE
        folder, file = stat.S_IFDIR, stat.S_IFREG
        if handle >= number:
            return [
                (name.encode(*_NAMES), folder if is_dir else file, number)
                for name, is_dir in ((".", True), ("..", True), *self._control.listing(handle))
            ]
        entries = [(b".", folder, os.fstat(handle).st_ino), (b"..", folder, number)]
        with os.scandir(handle) as found:
            entries += [
                # A link, put into the work tree by hand, may lead in a circle.
                (entry.name.encode(*_NAMES),
                 folder if entry.is_dir(follow_symlinks=False) else file, entry.inode())
                for entry in found
            ]  # fmt: skip
        return entries

    def releasedir(self, path: str | None, handle: int) -> int:
        if handle >= control.FIRST_HANDLE:
            self._control.close_dir(handle)
        else:
            os.close(handle)
        return 0

    def fsyncdir(self, path: str | None, data_only: int, handle: int) -> int:
        if handle < control.FIRST_HANDLE:
            os.fsync(handle)
        return 0


def _nameless(found: os.stat_result) -> control.Attributes:
    """What stat says of a file that only its open handles keep: libfuse's own name for it does
    not count."""
    fields = {name: getattr(found, name) for name in control.Attributes._fields}
    return control.Attributes(**{**fields, "st_nlink": 0})
