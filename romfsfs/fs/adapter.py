"""The operations of a mount: a passthrough to the work tree, plus the control directory.

What the user sees is the kernel's own behaviour on the plain directory behind the mount. This
module only refuses what a ROMFS cannot hold, and tells the session what changed.

Operations run on libfuse's threads, several at once. libfuse itself never runs a rename at the
same time as another operation on the same path.
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
from romfsfs.fs.tree import refuse, to_text

STATE_ATTRIBUTE = "user.romfs.state"

# As `os.fsencode` encodes; calling it for each entry slows down large folders.
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_NO_ATTRIBUTE = getattr(errno, "ENOATTR", errno.ENODATA)
_OWNER_LOOKS = stat.S_IRUSR | stat.S_IXUSR
_BLOCK = 512  # bytes; the block size that statfs reports for a partition
_OF_STATFS = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree",
              "f_favail")  # fmt: skip


class Adapter(FileOperations):
    """libfuse's operations on a `SessionHost`, by the names that the bindings give them."""

    # -- the mount itself

    def init(self, path: str) -> None:
        self._ready()

    def destroy(self, path: str) -> None:
        # libfuse leaves a hidden file behind if its last close overlaps its unlink (libfuse #746).
        self._tree.remove_leftovers()

    def statfs(self, path: str) -> dict[str, int]:
        real = os.fstatvfs(self._host.work_fd)
        capacity, used = self._host.usage()
        numbers = {name: getattr(real, name) for name in _OF_STATFS}
        if capacity is not None:
            free = max(0, capacity - used) // _BLOCK
            numbers |= {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": capacity // _BLOCK}
            # Edits are on the state folder's disk until they are committed.
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
        return found if self._tree.hidden_name(path) is None else _nameless(found)

    def access(self, path: str, mode: int) -> int:
        if self._control.owns(path):
            self._control.attributes(path)
            if mode & os.W_OK and path != control.ROOT + "/ctl":
                raise refuse(errno.EROFS)
        elif mode & os.W_OK and self._read_only:
            raise refuse(errno.EROFS)
        elif not self._tree.at(os.access, path, mode):
            self._tree.stat(path)  # raises ENOENT if that is the reason
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
            if self._tree.hidden_name(path) is None:
                raise
            # libfuse 3.17 unlinks a file that was closed while being hidden; `rename` has done so.
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
        hides, reveals = self._tree.hidden_name(new), self._tree.hidden_name(old)
        if hides is not None and stat.S_ISDIR(self._tree.stat(old).st_mode):
            raise refuse(errno.EPERM)  # libfuse hides files only: this name comes from a user
        taken = self._taken(old) + self._taken(new)
        self._tree.rename(old, new, tree.renamer(flags))
        self._space.give(taken - self._taken(old) - self._taken(new))
        moved: list[Handle] = []
        if hides is not None:
            if not self._handles.hide(old, hides):
                # Closed meanwhile: libfuse would leave the hidden file behind (libfuse #746).
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
        if info is not None:  # the kernel clears set-id bits at ftruncate by a non-root user
            fd = self._descriptor(info)
            handle = self._handles.get(fd)
            path = None if handle is None else handle.path
            before = os.fstat(fd).st_mode
            os.fchmod(fd, mode)
        elif path is not None:
            self._check_change(path, hidden=True)
            if path == "/":
                mode |= _OWNER_LOOKS  # else nobody could look up anything in it, nor undo this
            before = self._tree.stat(path).st_mode
            self._tree.at(os.chmod, path, mode)
        looks = _OWNER_LOOKS if stat.S_ISDIR(before) else stat.S_IRUSR
        if path is not None and (before ^ mode) & looks:
            self._changed(path)  # it became readable, or stopped being so
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        # An image stores no owners: any change is EPERM, for root too, as on FAT. Setting the
        # owner that a file already has, as `cp -a` and `rsync -a` do, is no change.
        self._check_change(path, hidden=True)
        found = self._tree.stat(path)
        if uid not in (-1, found.st_uid) or gid not in (-1, found.st_gid):
            raise refuse(errno.EPERM)
        self._tree.at(os.chown, path, uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str, times: Any) -> int:
        """times: pointer to libfuse's two `struct timespec`; None: both are set to now."""
        self._check_change(path, hidden=True)
        self._tree.at(tree.set_times, path, times)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        # The kernel asks for security.capability at every write: answer without a system call.
        if name != STATE_ATTRIBUTE:
            # `ls -l` asks for the ACL and SELinux attributes of every file until it gets ENOTSUP.
            raise refuse(_NO_ATTRIBUTE if name.startswith("user.") else errno.ENOTSUP)
        if self._control.owns(path) or self._tree.hidden_name(path) is not None:
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
        """(name, file type, inode number) of each entry, which `fuse_class.py` passes on."""
        # Both come free with the listing, and the type saves `find` and `rm -r` a stat per entry.
        # An inode number of 0 would mean a deleted entry, which is skipped.
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
                # A symbolic link, put into the work tree by hand, may be a loop.
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
    """The attributes of an unlinked open file: libfuse's hidden name does not count as a link."""
    fields = {name: getattr(found, name) for name in control.Attributes._fields}
    return control.Attributes(**{**fields, "st_nlink": 0})
