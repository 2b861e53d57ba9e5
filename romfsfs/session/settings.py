"""A session's settings: board, excludes and converters.

They combine the user's choices with the tree's own options (`romfs.toml`). The command line's
choices are remembered in `session.json` and win over the tree's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from romfsfs.boards import boards, get_board, parse_board
from romfsfs.convert import Converters, Excludes, Options, Target
from romfsfs.convert.romfs_toml import MAX_BYTES, NAME, TreeOptions, read_tree_options, unreadable
from romfsfs.convert.types import error
from romfsfs.devices.base import Known
from romfsfs.errors import UsageError
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.plan.admission import Admission
from romfsfs.session.plan.problems import Problem
from romfsfs.session.tree.worktree import open_file
from romfsfs.system.files import opened_folder
from romfsfs.system.user_folders import cache_dir, make_private_dir

NO_OPTIONS = TreeOptions()


class Settings(NamedTuple):
    """What a session works with.

    info: what is remembered, with the tree's board if the user chose none. tree: its `romfs.toml`.
    problems: with what is remembered; they stop a commit.
    """

    info: SessionInfo
    tree: TreeOptions
    target: Target
    excludes: Excludes
    converters: Converters
    admission: Admission
    problems: tuple[Problem, ...] = ()

    @property
    def capacity(self) -> int | None:
        """Bytes of the partition, as the camera reports them, else the board's; None: unlimited."""
        if self.info.capacity is not None:
            return self.info.capacity
        return self.target.partition.size if self.target.partition else None

    @property
    def erase_size(self) -> int | None:
        """Bytes of an erase block, from the camera, else the board; None: nothing is erased."""
        if self.info.erase_size is not None:
            return self.info.erase_size
        return self.target.partition.erase_size if self.target.partition else None


def make_settings(info: SessionInfo, tree: TreeOptions = NO_OPTIONS) -> Settings:
    """Combine what is remembered with the tree's options.

    KeyError, TypeError, ValueError when `info.options` is malformed (see `as_ours`); UsageError
    for an invalid pattern. A board that is not known any more is one of `problems`."""
    if tree.board is not None and info.board is None:
        named, number = parse_board(tree.board)
        at = info.partition if not info.is_file or number is None else number
        try:
            info = replace(info, board=named.name, partition=named.partition(at).index)
        except UsageError as refused:  # no exception: the file can be corrected only in the mount
            what = f"{refused.what}, which this session is for; {refused.next_step}"
            tree = tree._replace(board=None, problems=(*tree.problems, error("options", what)))
    options = Options.from_record(info.options).over(tree.rules)
    problems: tuple[Problem, ...] = ()
    try:
        target = device_target(info, options)
    except UsageError as refused:  # no exception: its edits can be seen, and its mount unmounted
        problems = (Problem("no-board", "", refused.line),)
        info = replace(info, board=None)
        target = device_target(info, options)
    converters = Converters(target, make_private_dir(cache_dir()) / "convert")
    excludes = Excludes((*tree.excludes, *info.excludes))
    admission = Admission(converters)
    return Settings(info, tree, target, excludes, converters, admission, problems)


def device_target(info: Known, options: Options | None = None) -> Target:
    """The conversion target that this device is.

    UsageError if its board is not known any more, or lacks the partition."""
    board = None
    if info.board:
        boards()  # a mistake in boards.toml is reported as it is
        try:
            board = get_board(info.board)
        except UsageError as refused:
            next_step = "choose another with: mount --board BOARD; or enter it in boards.toml"
            raise UsageError(refused.what, next_step=next_step) from None
    partition = board.partition(info.partition) if board else None
    return Target(board, partition, options or Options(), info.mpy_version, info.march, info.here)


def options_of_tree(root_fd: int, folder: str) -> TreeOptions:
    """The options in a tree's `romfs.toml`, empty if there is none; problems are part of them.

    folder: the tree's path, to which files named there are relative."""
    try:
        fd = open_file(root_fd, NAME)
        try:
            return read_tree_options(os.read(fd, MAX_BYTES + 1), folder)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return NO_OPTIONS
    except OSError as caught:  # a folder or link of that name, or its mode forbids reading
        return unreadable(f"it cannot be read: {caught.strerror}; make it a plain file")


def options_below(folder: str | os.PathLike[str]) -> TreeOptions:
    """As `options_of_tree`, by the folder's path. OSError if it cannot be opened."""
    with opened_folder(folder) as fd:
        return options_of_tree(fd, os.path.abspath(folder))
