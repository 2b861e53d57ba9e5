"""What a session works with: board, excludes and converters, as the user's choices and the tree's
own options (`romfs.toml`) say together.

The command line's choices are remembered in `session.json` and win over the tree's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from romfsfs.boards import get_board, parse_board
from romfsfs.convert import Converters, Excludes, Options, Target
from romfsfs.convert.romfs_toml import MAX_BYTES, NAME, TreeOptions, read_tree_options, unreadable
from romfsfs.devices.base import Known
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.plan.admission import Admission
from romfsfs.session.tree.worktree import open_file
from romfsfs.system.files import cache_dir, make_private_dir, opened_folder

NO_OPTIONS = TreeOptions()


class Settings(NamedTuple):
    """info: what is remembered, with the tree's board where the user chose none. tree: what its
    `romfs.toml` says."""

    info: SessionInfo
    tree: TreeOptions
    target: Target
    excludes: Excludes
    converters: Converters
    admission: Admission

    @property
    def capacity(self) -> int | None:
        """Bytes that the partition holds, None when unlimited: the camera's word, then ours."""
        if self.info.capacity is not None:
            return self.info.capacity
        return self.target.partition.size if self.target.partition else None

    @property
    def erase_size(self) -> int | None:
        """Bytes that the partition erases at once, None where nothing is erased."""
        if self.info.erase_size is not None:
            return self.info.erase_size
        return self.target.partition.erase_size if self.target.partition else None


def make_settings(info: SessionInfo, tree: TreeOptions = NO_OPTIONS) -> Settings:
    """The settings that these two mean. KeyError, TypeError, ValueError when `info.options` are
    none of ours; UsageError for a board or pattern that does not exist."""
    if tree.board is not None and info.board is None:
        named, number = parse_board(tree.board)
        at = info.partition if not info.is_file or number is None else number
        info = replace(info, board=named.name, partition=at)
    target = device_target(info, Options.from_record(info.options).over(tree.rules))
    converters = Converters(target, make_private_dir(cache_dir()) / "convert")
    excludes = Excludes((*tree.excludes, *info.excludes))
    return Settings(info, tree, target, excludes, converters, Admission(converters))


def device_target(info: Known, options: Options | None = None) -> Target:
    """What is to run on this device."""
    board = get_board(info.board) if info.board else None
    partition = board.partition(info.partition) if board else None
    return Target(board, partition, options or Options(), info.mpy_version, info.march, info.here)


def options_of_tree(root_fd: int, folder: str) -> TreeOptions:
    """What `romfs.toml` in a tree says; nothing where there is none."""
    try:
        fd = open_file(root_fd, NAME)
        try:
            return read_tree_options(os.read(fd, MAX_BYTES + 1), folder)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return NO_OPTIONS
    except OSError as error:  # a folder or a link of that name, or its mode
        return unreadable(f"it cannot be read: {error.strerror}; make it a plain file")


def options_below(folder: str | os.PathLike[str]) -> TreeOptions:
    """The same for a folder that has not been opened. OSError."""
    with opened_folder(folder) as fd:
        return options_of_tree(fd, os.path.abspath(folder))
