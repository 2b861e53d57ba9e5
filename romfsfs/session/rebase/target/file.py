"""An image file as a target: replaced in one step, and any program may change it at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from romfsfs.devices.base import WriteReport
from romfsfs.devices.file import FileDevice, Stamp
from romfsfs.errors import (
    DeviceAbsent,
    DeviceBusy,
    SessionBusy,
    TargetChanged,
    shell_word,
)
from romfsfs.image.model import Image
from romfsfs.session.keep import history
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.images import WHOLE_COPY, parse
from romfsfs.session.keep.state import Base, SessionInfo
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.system.copying import fill
from romfsfs.system.errors import os_error
from romfsfs.system.files import (
    EMPTY_DIGEST,
    Progress,
    digest_fd,
    digest_file,
    lock_within,
    named,
    no_progress,
    remove_temporaries,
)

#: errno of a full disk: of where something is written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Seconds to wait for another commit into the same folder.
_FOLDER_PATIENCE = 10.0


class FileTarget(Target):
    """An image file."""

    atomic = True
    device: FileDevice

    def __init__(self, device: FileDevice) -> None:
        super().__init__(device)
        #: Digest, and the stamp from before reading: a file that changed since has another stamp.
        self._seen: tuple[str | None, Stamp | None] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the file's folder with flock(2), which leaves no file there and excludes other users
        and containers too. SessionBusy if it stays locked for 10 seconds."""
        folder = os.path.dirname(self.device.path)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # the write reports it
            yield
            return
        try:
            with contextlib.suppress(OSError):  # a file system without such locks
                if not lock_within(fd, _FOLDER_PATIENCE):
                    raise SessionBusy(
                        "another program keeps the folder locked",
                        where=folder,
                        next_step="nothing was written; try again when it has finished",
                    )
            remove_temporaries(*os.path.split(self.device.path))  # of writes that were killed
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Word an OSError of reading the file; the caller would blame the session's folder, for
        which that of a full disk is left."""
        try:
            with named(self.device.given):
                yield
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise os_error(error) from error

    def unchanged_since(self, base: BaseImage) -> bool:
        """Compares stamps, and reads the file only if they differ."""
        stamp, digest = self.device.stamp(), base.base.target_digest
        if stamp == base.base.stamp:
            self._seen = digest, stamp
        return self._is(digest)

    def _is(self, digest: str | None) -> bool:
        """Whether the file has this digest; for None, whether there is no file."""
        stamp = self.device.stamp()
        if stamp is None or digest is None:
            return stamp is None and digest is None
        return self._seen == (digest, stamp) or self.held().digest == digest

    def held(self) -> Held:
        """What it holds, read but not copied."""
        stamp = self.device.stamp()
        if stamp is None:
            return Held(None, 0)
        certain = self.device.certain_stamp()
        size = (certain or stamp)[2]
        with self._reading():
            digest = self.device.digest(size)
        self._seen = digest, certain
        return Held(digest, size)

    def holds(self, image: Path | None) -> bool:
        stamp = self.device.stamp()
        if stamp is None or image is None:
            return stamp is None and image is None
        size = os.stat(image).st_size
        if stamp[2] != size:
            return False
        return self.device.digest(size) == digest_file(image)

    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        """All of its bytes, image or not."""
        if not self.device.exists():
            return Held(None, 0)
        stamp = self.device.certain_stamp()
        with folder.create(folder.found) as file:
            with self._reading():
                size = self.device.read_bytes(file, progress)
            file.flush()
            digest = digest_fd(file.fileno())
        self._seen = digest, stamp
        return Held(digest, size)

    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        device = self.device
        stamp = device.certain_stamp()
        before = stamp or device.stamp()  # its change time may lie in the future
        if not device.exists() and not new:
            name, last = shell_word(info.name), history.entries(folder)[-1:]
            known = last and not last[0].missing
            raise DeviceAbsent(
                "no such image file",
                where=info.name,
                next_step=(f"bring it back: romfsfs undo {name}; or " if known else "")
                + f"make one: romfsfs new {name} --board BOARD, or mount with --new",
            )
        with folder.create(folder.staged) as file:
            if new:
                with self._reading():
                    target = digest_file(device.path) if device.exists() else None
            else:
                length = before[2] if before else 0
                with self._reading():
                    size = device.read_image(file, progress)
                if not size:
                    fill(file, 0xFF, length)  # a dump of erased flash keeps its length
                file.flush()
                target = ""
            if device.stamp() != before:
                raise DeviceBusy(
                    "the file is being changed by another program",
                    where=info.name,
                    next_step="try again when that has finished",
                )
            image = parse(file, info.name, f"{WHOLE_COPY} mount --new starts empty")
            size = os.fstat(file.fileno()).st_size
        return Base(EMPTY_DIGEST if new else "", size, image.size, target, stamp, (), new), image

    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        def last_look() -> None:
            if not self._is(before.digest):
                raise TargetChanged(
                    "another program changed the file just before it was to be replaced",
                    where=self.device.given,
                    next_step="nothing was written; look at the file, and try again",
                )

        last_look()
        if image is None:
            return self._cleared("the file was deleted: there was none before")
        with open(image, "rb") as file:
            return self.device.write_image(file, None, progress, last_look)

    def stamp_of(self, base: Base) -> Stamp | None:
        if self.device.written_stamp is not None:
            return self.device.written_stamp
        stamp = self.device.certain_stamp()
        if stamp is None or stamp == base.stamp:  # unchanged since it was read
            return stamp
        return stamp if self.device.digest(stamp[2]) == base.target_digest else None
