"""romfsfs: the ROMFS of an OpenMV camera, or of an image file, as a writable directory.

From Python: `romfsfs.open(source)` gives an `Editor` (see `romfsfs.api`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from romfsfs.api import Editor, build, open

__version__ = "0.1.0"
__all__ = ["Editor", "__version__", "build", "open"]


def __getattr__(name: str) -> object:
    """`open`, `build` and `Editor`, imported when first asked for: `romfsfs --version` needs neither."""
    if name in ("Editor", "build", "open"):
        from romfsfs import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
