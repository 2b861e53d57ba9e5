"""The image that a board came with, for `reset`: in a file, a firmware release, or an IDE.

Layouts (docs/cameras.md, "Default contents"): a release `firmware_vX.Y.Z.zip` holds
`BOARD/romfs0.img`; a development build `firmware_BOARD.zip` holds `romfs0.img`; an installed
OpenMV IDE has `firmware/BOARD/romfs0.img` in its resource folder. Finds and reads, writes nothing.
"""

from __future__ import annotations

import contextlib
import glob
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from romfsfs.boards import Board
from romfsfs.devices.base import HEADER_SIZE
from romfsfs.errors import ImageFormatError, RomfsError, UsageError
from romfsfs.image.reader import image_size

#: what zipfile raises, one time or another, for a zip that is damaged, encrypted or not supported
_DAMAGED = (
    OSError, EOFError, KeyError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error,
    lzma.LZMAError, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
_NAME = re.compile(r"romfs(\d+)\.img", re.IGNORECASE)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_RELEASES = "https://github.com/openmv/openmv/releases"
#: where an IDE keeps `firmware/`, by system; its version differs in the folder's name
_IDE_FOLDERS = (
    "~/.config/OpenMV/*/firmware",
    "~/.config/OpenMV/firmware",
    "~/.config/OpenMV/*/*/firmware",
    "~/.local/share/OpenMV/*/firmware",
    "~/[Oo]pen[Mm][Vv]*/share/qtcreator/firmware",
    "~/*/[Oo]pen[Mm][Vv]*/share/qtcreator/firmware",
    "/opt/[Oo]pen[Mm][Vv]*/share/qtcreator/firmware",
    "/usr/local/[Oo]pen[Mm][Vv]*/share/qtcreator/firmware",
    "/Applications/OpenMV*.app/Contents/Resources/firmware",
    "~/Applications/OpenMV*.app/Contents/Resources/firmware",
    "~/Library/Application Support/OpenMV/*/firmware",
    "~/AppData/*/OpenMV/*/firmware",
    "C:/Program Files*/OpenMV*/share/qtcreator/firmware",
    "C:/OpenMV*/share/qtcreator/firmware",
)


@dataclass(frozen=True, slots=True)
class DefaultImage:
    """One image that could be restored.

    path: the file that holds it; member: its name inside, if that is a zip. version: of the
    firmware that it belongs to, None where nothing says. size: bytes, from its header.
    """

    path: Path
    member: str | None
    version: tuple[int, int, int] | None
    board: str
    partition: int
    size: int

    @property
    def label(self) -> str:
        """How to show it."""
        version = "" if self.version is None else f" {'.'.join(map(str, self.version))}"
        inside = f", {self.member}" if self.member else ""
        return f"{self.board}{version} ({self.path}{inside})"

    def read(self) -> bytes:
        """Its bytes. RomfsError when the file cannot be read any more."""
        return _read(self.path, self.member, self.size)


def find_defaults(
    board: Board, partition: int = 0, place: Path | None = None, firmware: str = ""
) -> list[DefaultImage]:
    """Candidates, the best first: those of the camera's firmware version, then newest first.

    place: an image file, a release zip or a folder; None: wherever an OpenMV IDE keeps them
    ($ROMFSFS_DEFAULTS names further places). firmware: the version the camera reports, in any
    text. UsageError when `place` holds none for this board; RomfsError when nothing is found.
    """
    places = [place] if place is not None else list(_ide_folders())
    found = [image for each in places for image in _in_place(each, board, partition)]
    if not found:
        what = f"no default image of {board.name}, partition {partition}"
        if place is not None:
            raise UsageError(
                f"{what}, there", where=str(place), next_step=f"firmware releases: {_RELEASES}"
            )
        raise RomfsError(
            f"{what}, on this machine",
            next_step=f"download a firmware release from {_RELEASES} and add --from FILE.zip",
        )
    return sorted(found, key=lambda image: _rank(image, _version(firmware)))


def _rank(
    image: DefaultImage, firmware: tuple[int, int, int] | None
) -> tuple[bool, tuple[int, ...]]:
    matches = firmware is not None and image.version == firmware
    return not matches, tuple(-part for part in image.version or (0, 0, 0))


def _version(text: str) -> tuple[int, int, int] | None:
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _ide_folders() -> Iterator[Path]:
    for name in os.environ.get("ROMFSFS_DEFAULTS", "").split(os.pathsep):
        if name:
            yield Path(name)
    for pattern in _IDE_FOLDERS:
        for name in sorted(glob.glob(os.path.expanduser(pattern))):
            yield Path(name)


def _in_place(place: Path, board: Board, partition: int) -> Iterator[DefaultImage]:
    if place.is_dir():
        yield from _in_folder(place, board, partition)
    elif _is_zip(place):
        names = _names(place)
        # browsers number what they save twice: firmware_OPENMV4 (1).zip
        stem = re.sub(r"\s*\(\d+\)$", "", place.stem).upper()
        flat = f"_{stem}".endswith(f"_{board.name}")
        for name in _matching(names, board, partition, flat=flat):
            yield from _image(place, name, _version(place.name), board, partition)
    elif place.is_file():
        number = _NAME.fullmatch(place.name)
        if number is None or int(number[1]) == partition:
            yield from _image(place, None, _version(place.name), board, partition)


def _in_folder(folder: Path, board: Board, partition: int) -> Iterator[DefaultImage]:
    """In a resource folder, its `firmware`, or a board's folder itself; and in zips beside them."""
    for root in (folder, folder / "firmware", folder / "share" / "qtcreator" / "firmware"):
        if not root.is_dir():
            continue
        version = _folder_version(root)
        names = [str(path.relative_to(root)) for path in root.glob("*/romfs*.img")]
        names += [path.name for path in root.glob("romfs*.img")]
        flat = root.name.casefold() == board.name.casefold()
        for name in _matching(sorted(names), board, partition, flat=flat):
            yield from _image(root / name, None, version, board, partition)
        for path in sorted(root.glob("firmware*.zip")):
            yield from _in_place(path, board, partition)


def _folder_version(folder: Path) -> tuple[int, int, int] | None:
    """The IDE writes its firmware's version to `firmware.txt` (the folder's name has its own)."""
    try:
        with open(folder / "firmware.txt", encoding="utf-8", errors="replace") as file:
            return _version(file.read(200))
    except OSError:
        return None


def _matching(names: Sequence[str], board: Board, partition: int, *, flat: bool) -> Iterator[str]:
    """Names `BOARD/romfsN.img`; and `romfsN.img` where the place is the board's own (flat)."""
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts:
            continue  # "." and the like
        number = _NAME.fullmatch(parts[-1])
        if number is None or int(number[1]) != partition:
            continue
        if flat if len(parts) == 1 else parts[-2].upper() == board.name:
            yield name


def _image(
    path: Path,
    member: str | None,
    version: tuple[int, int, int] | None,
    board: Board,
    partition: int,
) -> Iterator[DefaultImage]:
    """The image, if that is what it is."""
    with contextlib.suppress(ImageFormatError, RomfsError):
        size = image_size(_read(path, member, HEADER_SIZE))
        if size <= board.partition(partition).size:
            yield DefaultImage(path, member, version, board.name, partition, size)


def _is_zip(path: Path) -> bool:
    """`zipfile.is_zipfile` raises for some that are damaged; opening those says what is wrong."""
    try:
        return zipfile.is_zipfile(path)
    except (zipfile.BadZipFile, struct.error):
        return True


def _names(path: Path) -> list[str]:
    """The files in a zip. RomfsError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if name and not name.endswith("/")]
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RomfsError:
    return RomfsError(
        f"cannot read the default image: {error}", where=str(path), next_step="try another"
    )


def _read(path: Path, member: str | None, size: int) -> bytes:
    try:
        if member is None:
            with open(path, "rb") as file:
                return file.read(size)
        with zipfile.ZipFile(path) as archive:
            method = archive.getinfo(member).compress_type
            if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # The others take memory as the zip says, up to 4 GiB, before the first byte.
                raise NotImplementedError(f"compression method {method} is not supported")
            with archive.open(member) as file:
                return file.read(size)
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
