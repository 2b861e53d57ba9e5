"""Building one directory for several boards: an image for each, converted for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from romfsfs.boards import parse_board
from romfsfs.convert import Options, Target
from romfsfs.errors import RomfsError, UsageError, shell_word
from romfsfs.session.build import Built, build
from romfsfs.session.recipe import laid_out
from romfsfs.session.settings import options_below
from romfsfs.system.errors import os_error
from romfsfs.system.files import Progress, no_progress, opened_folder, replace_atomically


@dataclass(frozen=True, slots=True)
class Order:
    """An image to build. recipe: the firmware's recipe that selects the files, if there is one."""

    target: Target
    image: Path
    recipe: Path | None = None

    @property
    def name(self) -> str:
        """`OPENMV_AE3`, or `OPENMV_AE3:1` for a partition that is not the first."""
        return _name(self.target, ":")


@dataclass(frozen=True, slots=True)
class BoardResult:
    """What became of an order: either `built` or `error`, the other is None."""

    order: Order
    built: Built | None
    error: RomfsError | None


def boards_of(directory: str | os.PathLike[str], given: Sequence[str]) -> tuple[str, ...]:
    """The boards to build for: those given, else the one in the tree's `romfs.toml`. OSError."""
    named = None if given else options_below(directory).board
    return (named,) if named is not None else tuple(given)


def orders(
    boards: Sequence[str],
    image: str,
    partition: int = 0,
    options: Options | None = None,
    recipe: Path | None = None,
) -> list[Order]:
    """What to build for boards given as `NAME` or `NAME:PARTITION`; without any, one order.

    image: a folder, for `NAME.img` in it (`NAME.1.img` for partition 1); a pattern with `{board}`,
    and `{partition}` if there are several of a board; or, for a single board, a file. partition:
    for boards given without one. UsageError for an unknown board or partition, and when two orders
    would write the same file.
    """
    options = options or Options()
    wanted = [] if boards else [Order(Target(options=options), Path(image))]
    for text in boards:
        board, number = parse_board(text)
        place = board.partition(partition if number is None else number)
        target = Target(board, place, options)
        wanted.append(Order(target, _place(image, target, len(boards) == 1), recipe))
    taken: dict[Path, Order] = {}
    for order in wanted:
        other = taken.setdefault(order.image, order)
        if other is not order:
            raise UsageError(
                f"{other.name} and {order.name} would be written to the same file",
                where=str(order.image),
                next_step="give a folder, or a pattern such as 'out/{board}-{partition}.img'",
            )  # fmt: skip
    return wanted


def _place(image: str, target: Target, only_one: bool) -> Path:
    if "{board}" in image or "{partition}" in image:
        filled = image.replace("{board}", target.name)
        return Path(filled.replace("{partition}", str(_index(target))))
    if image.endswith(os.sep) or os.path.isdir(image):
        return Path(image) / f"{_name(target, '.')}.img"
    if only_one:
        return Path(image)
    raise UsageError(
        "several boards need a folder, or a pattern with {board}", where=image,
        next_step=f"for a folder: {shell_word(image + os.sep)}",
    )  # fmt: skip


def _name(target: Target, separator: str) -> str:
    index = _index(target)
    return target.name + (f"{separator}{index}" if index else "")


def _index(target: Target) -> int:
    return target.partition.index if target.partition is not None else 0


def build_each(
    directory: Path,
    wanted: Sequence[Order],
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
    hashed: bool = True,
) -> Iterator[BoardResult]:
    """Build one after the other; what stops an order is its result, and stops no other. OSError
    if there is no such folder."""
    with opened_folder(directory):  # or else the same would be said for each
        pass
    for order in wanted:
        try:
            order.image.parent.mkdir(parents=True, exist_ok=True)
            built = build_order(directory, order, excludes, progress, hashed)
        except RomfsError as error:
            yield BoardResult(order, None, error)
        except OSError as error:  # of the place for its image, for instance
            yield BoardResult(order, None, os_error(error))
        else:
            yield BoardResult(order, built, None)


def build_order(
    directory: Path,
    order: Order,
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
    hashed: bool = True,
) -> Built:
    """Build an image file from a folder; with a recipe, the folder is the firmware's checkout.

    An existing file is replaced only on success and keeps its permissions; a symbolic link stays
    one. Raises as `build`, and OSError."""
    final = Path(os.path.realpath(order.image))
    if final.is_dir():
        raise UsageError("a directory, not an image file", where=str(order.image))
    with ExitStack() as stack:
        target = order.target
        first: tuple[str, ...] = ()
        if order.recipe is not None:
            laid = stack.enter_context(laid_out(order.recipe, directory, _index(target)))
            directory, first = laid.folder, laid.order
            target = replace(target, options=target.options.over(laid.rules))
        file = stack.enter_context(replace_atomically(final, 0o666))
        built = build(directory, file, target, excludes, progress, first, hashed)
        if final.exists():
            os.fchmod(file.fileno(), final.stat().st_mode & 0o7777)
        return built
