"""A camera's partition as a target. It is written block by block, and only by the program that has
the camera open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from romfsfs.devices.base import HEADER_SIZE, WriteReport
from romfsfs.errors import ImageFormatError, RomfsError, too_large
from romfsfs.image.model import Image
from romfsfs.image.reader import image_size
from romfsfs.image.slots import slots_text
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.images import parse
from romfsfs.session.keep.state import Base, SessionInfo
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.system.files import EMPTY_DIGEST, Progress, digest_fd, no_progress


class CameraTarget(Target):
    """A partition of a camera."""

    def refuse_slots(self, size: int) -> None:
        slots = self.device.slots(size)
        if not slots:
            return
        info = self.device.info()
        name, (mine, other) = info.name, ("BA" if info.slot else "AB")
        only, room = slots[0].only, slots[0].room
        way_out = ""
        if only and not room:  # one erase unit: what writes that erases status and trailer too
            command = f"mpremote connect PORT romfs -p {info.partition} deploy FILE.img"
            way_out = f"; to give openmv-ota up there, run this and replug the camera: {command}"
        if not self.slot:
            raise RomfsError(
                f"this partition is openmv-ota's ({slots_text(slots)}), and writing slot {mine} "
                "breaks its signature: the camera then mounts "
                + ("nothing" if only else f"slot {other}, or nothing"),
                where=name,
                next_step="nothing was written there; build and sign the image with openmv-ota's "
                "tools (commit --to FILE gives its body)"
                + (f", or add --slot {mine} --force" if room else way_out),
            )
        if not room:
            tools = "openmv-ota's tools write both"
            if only:
                tools = "`openmv-ota flash romfs` writes it"
            raise RomfsError(
                f"an erase block there spans slot {mine} and "
                + ("its own status and trailer" if only else f"slot {other}"),
                where=name,
                next_step=f"nothing was written there; {tools}{way_out}",
            )
        if size > room:
            next_step = "nothing was written there; remove files"
            raise too_large(size, room, f"{name}, slot {mine}", next_step)

    def unchanged_since(self, base: BaseImage) -> bool:
        held = base.base
        if held.fresh and held.target_digest == "":
            return True  # `--new`: what it held was not looked at, and is replaced
        same = None
        if held.image_size:
            with os.fdopen(os.dup(base.fd), "rb") as image:
                same = self.device.matches(image, held.image_size)
        return self._digest() == held.target_digest if same is None else same

    def holds(self, image: Path | None) -> bool:
        """Compares the image only: bytes after it in the file are not written to a camera."""
        assert image is not None  # None: no file
        with open(image, "rb") as file:
            header = file.read(16)
            size = image_size(header) if header else 0
            same = self.device.matches(file, size) if size else None
            if same is not None:
                return same
            return self._digest() == digest_fd(file.fileno(), 0, size)

    def _digest(self) -> str:
        """The digest of the image it holds, '' if it holds none: by reading all of it, for devices
        that cannot compute one."""
        import tempfile

        with tempfile.TemporaryFile() as copy:
            try:
                size = self.device.read_image(copy)
            except ImageFormatError:
                return ""
            copy.flush()
            return digest_fd(copy.fileno()) if size else EMPTY_DIGEST

    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        with folder.create(folder.found) as file:
            try:
                size = self.device.read_image(file, progress)
            except ImageFormatError:
                return Held("", 0)
            file.flush()
            return Held(digest_fd(file.fileno()), size)

    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        with folder.create(folder.staged) as file:
            size = 0 if new else self.device.read_image(file, progress)
            file.flush()
            advice = (
                "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
            )
            image = parse(file, info.name, advice)
        return Base(EMPTY_DIGEST if new else "", size, image.size, "", None, (), new), image

    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        assert image is not None
        size = os.stat(image).st_size
        self.refuse_slots(size or HEADER_SIZE)
        if not size:
            return self._cleared("the camera is blank again")
        with contextlib.ExitStack() as stack:
            believed = stack.enter_context(open(old, "rb")) if old is not None else None
            file = stack.enter_context(open(image, "rb"))
            return self.device.write_image(file, believed, progress)
