"""What a mount needs from the session behind it.

The session implements these structurally and never imports this package. All paths are relative
to the tree's root, separated by '/', without a leading one; '' is the root. Names that are not
valid UTF-8 carry surrogates (`os.fsdecode`).

Every method may be called from any of libfuse's threads, several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

#: Gives the paths that are open for writing at the moment it is called.
OpenWriters = Callable[[], list[str]]


class Tree(Protocol):
    """A read-only tree shown below `.romfs/`: the image as it was, or as it would become."""

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        """(name, whether it is a folder) of what a folder holds.

        Raises KeyError or FileNotFoundError when there is no such folder.
        """
        ...

    def stat(self, path: str) -> tuple[bool, int, int] | None:
        """(whether it is a folder, size in bytes, modification time in ns); None: not there."""
        ...

    def open(self, path: str) -> tuple[int, int, int]:
        """(descriptor, offset, size in bytes) of a file's content.

        The descriptor is the caller's own, who closes it. Raises KeyError or FileNotFoundError
        when there is no such file, OSError EAGAIN while its conversion is pending and EIO when
        it failed.
        """
        ...


class MountHost(Protocol):
    """The session's side of a mount."""

    @property
    def work_fd(self) -> int:
        """Directory descriptor of `work/`, which the user edits."""
        ...

    @property
    def hidden_fd(self) -> int:
        """Directory descriptor of `hidden/`: files that are open and have no name any more.

        On the same file system as `work/`. The mount empties it when it starts: what a killed
        daemon left there was deleted by the user.
        """
        ...

    @property
    def read_only(self) -> bool: ...

    @property
    def log_file(self) -> Path | None:
        """Where a background mount's standard error and log records are appended."""
        ...

    def changed(self, path: str) -> None:
        """What is at `path` may have changed: written and closed, renamed, made, removed.

        For a folder it stands for all that it holds. Cheap. Called once per close, not per write.
        """
        ...

    def limit(self, path: str) -> int | None:
        """How many bytes a file with this path may have; None: no limit. Cheap."""
        ...

    def usage(self) -> tuple[int | None, int]:
        """(capacity, what the image would take now) in bytes; capacity None: unlimited."""
        ...

    def status_text(self, open_writers: OpenWriters) -> str:
        """What a commit would do, for people."""
        ...

    def status_json(self, open_writers: OpenWriters) -> str: ...

    def status_html(self, open_writers: OpenWriters) -> str: ...

    def log_text(self) -> str: ...

    def base(self) -> Tree:
        """The image as last read or committed."""
        ...

    def shadow(self) -> Tree:
        """What a commit would write now."""
        ...

    def zoo(self) -> Tree | None:
        """The models one can copy from; None: there is no `.romfs/zoo`."""
        ...

    def control(self, command: str, open_writers: OpenWriters) -> None:
        """Do what a line written to `.romfs/ctl` says; returns when it is done.

        Raises RomfsError, which makes the write fail with EIO and is logged.
        """
        ...

    def file_state(self, path: str) -> bytes:
        """The value of the extended attribute `user.romfs.state` of this file or folder."""
        ...

    def close(self) -> None:
        """The mount has ended; called once."""
        ...
