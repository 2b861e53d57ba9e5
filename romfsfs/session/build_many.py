"""One directory, an image for each of several boards, converted for each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from romfsfs.boards import Board, Partition, parse_board
from romfsfs.convert import Options, Target
from romfsfs.errors import RomfsError, UsageError, shell_word
from romfsfs.session.build import Built, build
from romfsfs.session.recipe import laid_out
from romfsfs.session.settings import options_below
from romfsfs.system.files import Progress, no_progress, replace_atomically


@dataclass(frozen=True, slots=True)
class Order:
    """An image to build. name: how to show it, `OPENMV_AE3`, or `OPENMV_AE3:1` for a partition
    that is not the first."""

    board: Board
    partition: Partition
    image: Path

    @property
    def name(self) -> str:
        return _name(self.board, self.partition, ":")


@dataclass(frozen=True, slots=True)
class BoardResult:
    """What became of an order: one of the two is None."""

    order: Order
    built: Built | None
    error: RomfsError | None


def boards_of(directory: str | os.PathLike[str], given: Sequence[str]) -> tuple[str, ...]:
    """The boards to build for: the given ones, else the one that the tree's `romfs.toml` names."""
    named = None if given else options_below(directory).board
    return (named,) if named is not None else tuple(given)


def orders(boards: Sequence[str], image: str, partition: int = 0) -> list[Order]:
    """What to build for boards given as `NAME` or `NAME:PARTITION`.

    image: a folder, for `NAME.img` in it (`NAME.1.img` for partition 1); a pattern with `{board}`,
    and `{partition}` if there are several of a board; or, for a single board, a file. partition:
    where a board is given without one. UsageError when two orders would write the same file.
    """
    wanted = []
    for text in boards:
        board, number = parse_board(text)
        place = board.partition(partition if number is None else number)
        wanted.append(Order(board, place, _place(image, board, place, len(boards) == 1)))
    taken: dict[Path, Order] = {}
    for order in wanted:
        other = taken.setdefault(order.image, order)
        if other is not order:
            raise UsageError(
                f"{other.name} and {order.name} would be the same file", where=str(order.image),
                next_step="give a folder, or a pattern such as 'out/{board}-{partition}.img'",
            )  # fmt: skip
    return wanted


def _place(image: str, board: Board, partition: Partition, only_one: bool) -> Path:
    if "{board}" in image or "{partition}" in image:
        filled = image.replace("{board}", board.name)
        return Path(filled.replace("{partition}", str(partition.index)))
    if image.endswith(os.sep) or os.path.isdir(image):
        return Path(image) / f"{_name(board, partition, '.')}.img"
    if only_one:
        return Path(image)
    raise UsageError(
        "several boards need a folder, or a pattern with {board}", where=image,
        next_step=f"for a folder: {shell_word(image + os.sep)}",
    )  # fmt: skip


def _name(board: Board, partition: Partition, separator: str) -> str:
    return board.name + (f"{separator}{partition.index}" if partition.index else "")


def build_each(
    directory: Path,
    wanted: Sequence[Order],
    options: Options,
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
) -> Iterator[BoardResult]:
    """Build one after the other; what goes wrong with one is its outcome and stops no other."""
    for order in wanted:
        target = Target(order.board, order.partition, options)
        try:
            order.image.parent.mkdir(parents=True, exist_ok=True)
            built = build_file(directory, order.image, target, excludes, progress)
        except RomfsError as error:
            yield BoardResult(order, None, error)
        else:
            yield BoardResult(order, built, None)


def build_recipe(
    top: Path,
    recipe: Path,
    wanted: Order,
    options: Options,
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
) -> Built:
    """Build what a recipe of the firmware says. top: the firmware's checkout."""
    with laid_out(recipe, top, wanted.partition.index) as laid:
        target = Target(wanted.board, wanted.partition, options.over(laid.rules))
        return build_file(laid.folder, wanted.image, target, excludes, progress, laid.order)


def build_file(
    directory: Path,
    image: Path,
    target: Target,
    excludes: tuple[str, ...] = (),
    progress: Progress = no_progress,
    order: Sequence[str] = (),
) -> Built:
    """Build an image file. A file that is there is replaced only when all is well; it keeps its
    permissions, and where it is a symbolic link, the link stays. order: files that come first."""
    final = Path(os.path.realpath(image))
    if final.is_dir():
        raise UsageError("a directory, not an image file", where=str(image))
    capacity = target.partition.size if target.partition is not None else None
    with replace_atomically(final, 0o666) as file:
        built = build(directory, file, target, capacity, excludes, progress, order)
        if final.exists():
            os.fchmod(file.fileno(), final.stat().st_mode & 0o7777)
    return built
