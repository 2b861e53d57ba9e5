"""romfsfs: the ROMFS of an OpenMV camera, or of an image file, as a writable directory.

From Python: `romfsfs.open`, `mount`, `find`, `build`, `push` and others (see `romfsfs.api`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from romfsfs.api import Editor, build, build_many, find, mount, open, push, unmount

__version__ = "0.1.0"
_API = ("Editor", "build", "build_many", "find", "mount", "open", "push", "unmount")
__all__ = [
    "Editor", "__version__", "build", "build_many", "find", "mount", "open", "push", "unmount",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import `romfsfs.api` when one of its names is first used: `romfsfs --version` needs none."""
    if name in _API:
        from romfsfs import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
