"""The default images of a board, for `reset`: in a file, a firmware release, or an IDE.

Layouts (docs/cameras.md, "Default contents"): a release `firmware_vX.Y.Z.zip` holds
`BOARD/romfs0.img`; a development build `firmware_BOARD.zip` holds `romfs0.img`; the resource folder
of an OpenMV IDE, installed or published, has `firmware/BOARD/romfs0.img`, and the version of that
firmware in `firmware/settings.json` (IDEs before 4.5: `firmware.txt`). Finds and reads only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from romfsfs.boards import Board
from romfsfs.devices.base import HEADER_SIZE
from romfsfs.errors import ImageFormatError, RomfsError, UsageError
from romfsfs.ide import published
from romfsfs.ide.archive import Fetching, Missing, Zip, is_zip, local_zip
from romfsfs.ide.places import resource_folders
from romfsfs.image.reader import image_size

Version = tuple[int, int, int]

_NAME = re.compile(r"romfs(\d+)\.img", re.IGNORECASE)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_STATED = re.compile(r'"firmware_version"\s*:\s*"([^"]*)"')
_RELEASES = "https://github.com/openmv/openmv/releases"


@dataclass(frozen=True, slots=True)
class DefaultImage:
    """One image that could be restored.

    path: the file that holds it. place: where that came from, for messages. version: of the
    firmware that it belongs to, None if unknown. size: bytes, from its header.
    """

    path: Path
    place: str
    version: Version | None
    board: str
    partition: int
    size: int

    @property
    def label(self) -> str:
        """Board, version and place, for messages."""
        version = "" if self.version is None else f" {version_text(self.version)}"
        return f"{self.board}{version} ({self.place})"

    def read(self) -> bytes:
        """Its bytes. OSError."""
        return _read(self.path, self.size)


def find_defaults(
    board: Board,
    partition: int = 0,
    place: str | Path | None = None,
    firmware: str = "",
    fetching: Fetching | None = None,
) -> list[DefaultImage]:
    """Candidates, the best first: those of the camera's firmware version, then newest first.

    place: an image file, a release zip, a folder, or the URL of a zip; None: where an OpenMV IDE
    keeps them, then, with `fetching`, what is published. firmware: the version the camera reports,
    in any text. UsageError when `place` holds none for this board; RomfsError when nothing is
    found.
    """
    wanted = find_version(firmware)
    what = f"no default image of {board.name}, partition {partition}"
    if place is not None:
        found = list(_in_place(place, board, partition, fetching))
        if not found:
            next_step = f"firmware releases: {_RELEASES}"
            raise UsageError(what, where=str(place), next_step=next_step)
    else:
        folders = resource_folders()
        found = [each for folder in folders for each in _in_place(folder, board, partition)]
        if not found and fetching is not None:
            found = list(_published(board, partition, wanted, fetching))
        if not found:
            where = "on this machine" if fetching is None else f"published at {published.WHERE}"
            next_step = f"download a firmware release from {_RELEASES} and add --from FILE.zip"
            raise RomfsError(f"{what}, {where}", next_step=next_step)
    return sorted(found, key=lambda image: _rank(image, wanted))


def find_version(text: str) -> Version | None:
    """The first `X.Y.Z` in a text; None without one."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def version_text(version: Version) -> str:
    """The version as `X.Y.Z`."""
    return ".".join(map(str, version))


def _rank(image: DefaultImage, firmware: Version | None) -> tuple[bool, tuple[int, ...]]:
    matches = firmware is not None and image.version == firmware
    return not matches, tuple(-part for part in image.version or (0, 0, 0))


def _published(
    board: Board, partition: int, wanted: Version | None, fetching: Fetching
) -> Iterator[DefaultImage]:
    """Images of the wanted version if that was published, else of the newest."""
    size = f"up to {sum(each.size for each in board.partitions) / 1e6:.1f} MB"
    archive = published.resources(fetching, size)
    if wanted is not None and _zip_version(archive) != wanted:
        try:
            other = published.resources(fetching, size, version_text(wanted))
            archive = other if _zip_version(other) == wanted else archive
        except Missing:
            pass
        except RomfsError:
            if not fetching.offline:
                raise
    yield from _in_zip(archive, board, partition, _zip_version(archive))


def _in_place(
    place: str | Path, board: Board, partition: int, fetching: Fetching | None = None
) -> Iterator[DefaultImage]:
    path = Path(place)
    at_url = isinstance(place, str) and "://" in place
    if at_url or is_zip(path):
        if at_url:
            from romfsfs.ide.remote import remote_zip

            archive = remote_zip(str(place), fetching or Fetching())
        else:
            archive = local_zip(path)
        version = _zip_version(archive) or find_version(path.name)
        yield from _in_zip(archive, board, partition, version, _is_of(path.name, board))
    elif path.is_dir():
        yield from _in_folder(path, board, partition)
    elif path.is_file():
        number = _NAME.fullmatch(path.name)
        if number is None or int(number[1]) == partition:
            yield from _image(path, str(path), find_version(path.name), board, partition)


def _is_of(zip_name: str, board: Board) -> bool:
    """Whether a zip is the development build of a board, by its name. Browsers number a file that
    they save twice: firmware_OPENMV4 (1).zip"""
    stem = re.sub(r"\s*(\(\d+\))?\.zip$", "", zip_name, flags=re.IGNORECASE).upper()
    return f"_{stem}".endswith(f"_{board.name}")


def _in_zip(
    archive: Zip, board: Board, partition: int, version: Version | None, flat: bool = False
) -> Iterator[DefaultImage]:
    infos = {info.filename: info for info in archive.infos()}
    for name in _matching(list(infos), board, partition, flat=flat):
        (path,) = archive.keep([infos[name]])
        yield from _image(path, f"{archive.name}, {name}", version, board, partition)


def _zip_version(archive: Zip) -> Version | None:
    """The version of the firmware in a zip of an IDE's resources; None if it does not say."""
    for info in archive.infos():
        if f"/{info.filename}".endswith("/firmware/settings.json"):
            (path,) = archive.keep([info])
            return _version_in(path, _STATED)
    return None


def _in_folder(folder: Path, board: Board, partition: int) -> Iterator[DefaultImage]:
    """Images in a resource folder, its `firmware`, or a board's own folder; and in zips there."""
    for root in (folder, folder / "firmware", folder / "share" / "qtcreator" / "firmware"):
        version = _version_in(root / "settings.json", _STATED)
        version = version or _version_in(root / "firmware.txt", _VERSION)
        names = [str(path.relative_to(root)) for path in root.glob("*/romfs*.img")]
        names += [path.name for path in root.glob("romfs*.img")]
        flat = root.name.casefold() == board.name.casefold()
        for name in _matching(sorted(names), board, partition, flat=flat):
            yield from _image(root / name, str(root / name), version, board, partition)
        for path in sorted(root.glob("firmware*.zip")):
            yield from _in_place(path, board, partition)


def _version_in(path: Path, pattern: re.Pattern[str]) -> Version | None:
    with suppress(OSError):
        found = pattern.search(path.read_text("utf-8", "replace"))
        return find_version(found[0]) if found else None
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
        if flat if len(parts) == 1 else _name(parts[-2]) == board.name:
            yield name


def _name(folder: str) -> str:
    """The board that a folder's name means, also a third party's (`boards/vendors.py`)."""
    return re.sub(r"[^A-Z0-9]+", "_", folder.upper())


def _image(
    path: Path, place: str, version: Version | None, board: Board, partition: int
) -> Iterator[DefaultImage]:
    """The image in a file, if it is one and fits the partition."""
    try:
        size = image_size(_read(path, HEADER_SIZE))
    except (ImageFormatError, OSError):
        return
    if size <= board.partition(partition).size:
        yield DefaultImage(path, place, version, board.name, partition, size)


def _read(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)
