"""Building an image from a directory without a session, and extracting one into a directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from romfsfs.convert import Converters, Excludes, Target
from romfsfs.errors import RomfsError, UsageError
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.session.keep.state import Base
from romfsfs.session.plan.admission import Admission
from romfsfs.session.plan.conversions import Conversions
from romfsfs.session.plan.plan import Plan, make_plan
from romfsfs.session.plan.shadow import Deriver, flat
from romfsfs.session.plan.stored import open_stored
from romfsfs.session.rebase.encoding import StoredFiles, encode_plan
from romfsfs.session.rebase.prepare import raise_problems
from romfsfs.session.settings import options_of_tree
from romfsfs.session.tree.extraction import Extracted, Item, extract
from romfsfs.session.tree.worktree import scan_folders
from romfsfs.system.files import EMPTY_DIGEST, Progress, digest_fd, no_progress, opened_folder
from romfsfs.system.removal import remove_folder
from romfsfs.system.user_folders import cache_dir, make_private_dir

if TYPE_CHECKING:
    from typing import BinaryIO

_NOTHING = Base(EMPTY_DIGEST, 0, 0, None, None)


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was built: its plan (with warnings), size in bytes and SHA-256.

    digest: "" with `hashed=False`: for a large image it takes longer than all the rest."""

    plan: Plan
    size: int
    digest: str


def build(
    source: Path,
    out: BinaryIO,
    target: Target,
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
    order: Sequence[str] = (),
    hashed: bool = True,
) -> Built:
    """Write an image of everything below `source` to `out` (an empty regular file), verified.

    target, excludes: the caller's choices; they win over the tree's `romfs.toml`, and a board named
    there is ignored (see `build_many.boards_of`). order: files that come first. hashed: compute the
    digest. The same tree gives the same bytes. Raises ConversionError, PlanError, CapacityError,
    OSError; `out` is then incomplete.
    """
    with opened_folder(source) as work_fd:
        tree = options_of_tree(work_fd, os.path.abspath(source))
        target = replace(target, options=target.options.over(tree.rules))
        is_junk = Excludes((*tree.excludes, *excludes)).matches
        converters = Converters(target, make_private_dir(cache_dir()) / "convert")
        conversions = Conversions(converters, work_fd)
        opened = partial(open_stored, work_fd=work_fd, held=None)
        check = partial(Admission(converters).checked, open_location=opened)
        deriver = Deriver(
            work_fd, _NOTHING, converters.concerns, conversions.lookup, is_junk,
            lambda fd: (digest_fd(fd), None), tree.problems, check, quick=True,
        )  # fmt: skip
        found = scan_folders(work_fd)
        folders = deriver.derive(found)
        if conversions.run(flat(folders), progress):
            folders = deriver.derive(found)
        capacity = target.partition.size if target.partition is not None else None
        plan = make_plan(folders, _NOTHING, target, capacity, order)
        raise_problems(plan, plan.errors, "build")
        sources = StoredFiles(plan, None, work_fd)
        encoded = encode_plan(plan, plan.layout, sources, out, progress=progress, hashed=hashed)
        return Built(plan, encoded.size, encoded.digest)


def extract_image(
    image: Image, file: BinaryIO, folder: Path, progress: Progress = no_progress
) -> list[Extracted | None]:
    """Extract an image, read from `file`, into a folder that does not exist yet or is empty.

    The result of each node, in `walk` order; None for a folder. The reader refuses names that lead
    out of the folder. UsageError for a folder that is not empty; RomfsError, with nothing left
    behind, when it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the folder exists and is not empty", where=str(folder), next_step="choose another name"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    nodes = list(walk(image))
    items = [
        Item(path, file.fileno(), *node.extent)
        if isinstance(node, FileNode)
        else Item(path, None, 0, 0)
        for path, node in nodes
    ]
    with _staged(folder) as stage, opened_folder(stage) as fd:
        return extract(items, fd, progress)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds.

    A folder that is there, empty, stays the user's own: what was extracted is moved into it. It may
    be the current one, a mountpoint or a link, none of which can be replaced."""
    there, stage = folder.is_dir(), None
    try:
        place = folder if there else folder.parent
        stage = Path(tempfile.mkdtemp(prefix=".romfsfs.", dir=place))
        yield stage
        if there:
            _move_up(stage, folder)
        else:
            stage.chmod(0o777 & ~_umask())
            os.replace(stage, folder)
    except OSError as error:
        raise RomfsError(
            f"cannot extract: {error.strerror}",
            where=str(folder),
            next_step="nothing was left there; free space, or choose another folder",
        ) from error
    finally:
        if stage is not None:
            with suppress(OSError):
                remove_folder(stage)


def _move_up(stage: Path, folder: Path) -> None:
    """Move all that is in `stage` into `folder`, or nothing. OSError."""
    moved: list[str] = []
    try:
        for name in os.listdir(stage):
            os.rename(stage / name, folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            os.rename(folder / name, stage / name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
