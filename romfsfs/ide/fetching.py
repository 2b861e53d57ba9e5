"""How resources may be fetched, and what is raised where there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.files import Progress, no_progress


def _unasked(what: str) -> None:
    raise UsageError(f"{what}, which nobody agreed to", next_step="see: romfsfs zoo list")


@dataclass(frozen=True, slots=True)
class Fetching:
    """How things may be fetched. agree: asked before the first contact with a server that the user
    did not name; raises if it must not be. offline: only what is kept. update: ask for a newer
    version of what is kept."""

    agree: Callable[[str], None] = _unasked
    offline: bool = False
    update: bool = False
    progress: Progress = no_progress


class Missing(RomfsError):
    """The server has no such file."""
