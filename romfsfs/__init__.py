"""romfsfs: the ROMFS of an OpenMV camera, or of an image file, as a writable directory.

From Python: `romfsfs.open`, `build`, `build_many` and `push` (see `romfsfs.api`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from romfsfs.api import Editor, build, build_many, open, push

__version__ = "0.1.0"
_API = ("Editor", "build", "build_many", "open", "push")
__all__ = ["Editor", "__version__", "build", "build_many", "open", "push"]


def __getattr__(name: str) -> object:
    """The names of `romfsfs.api`, imported when first asked for: `romfsfs --version` needs none."""
    if name in _API:
        from romfsfs import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
