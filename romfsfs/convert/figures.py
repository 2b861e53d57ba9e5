"""What a model costs and where it runs, as its compiler says: kept beside the conversion, found
again by the digest of what is stored, so that a later mount and `info` of an image know it too.
"""

from __future__ import annotations

import hashlib

from romfsfs.convert.admission.models import MODEL_SUFFIXES, look_into, suffix
from romfsfs.convert.cache import Cache
from romfsfs.convert.flatbuffer import Model
from romfsfs.convert.types import Figures, Product, Reader


def keep(cache: Cache, digest: str, figures: Figures) -> None:
    """Remember the figures of what is stored with this digest. OSError."""
    cache.put(_key(digest), Product(None, figures=figures))


def figures_of(path: str, read: Reader, size: int, digest: str, cache: Cache) -> Figures | None:
    """What is known of a stored model: what its compiler said, or what its bytes tell. None: it is
    no model. OSError of `read`."""
    if suffix(path) not in MODEL_SUFFIXES:
        return None
    filed = cache.get(_key(digest))
    if filed is not None and filed.figures is not None:
        return filed.figures
    model = look_into(read, size)
    if not isinstance(model, Model) or model.npu:
        return Figures(flash=size)
    return Figures(0, model.cpu, None, size)


def _key(digest: str) -> str:
    return hashlib.sha256(f"figures {digest}".encode()).hexdigest()
