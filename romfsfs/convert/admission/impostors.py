"""Files that are not what their name says: what a click on a web page or a git clone without LFS
saves under a model's, a cascade's or a script's name. No board can use them.
"""

from __future__ import annotations

from romfsfs.convert.admission.models import MODEL_SUFFIXES, suffix
from romfsfs.convert.types import Diagnostic, Reader, error

_TEXTS = (".xml", ".py")
#: What is read of a file: white space may stand before it.
_HEAD_BYTES = 512
_LFS = b"version https://git-lfs.github.com/spec/"
#: How formats begin that people take for models: what it is, and the way out.
_FORMATS = (
    (b"\x89HDF\r\n\x1a\n", "a Keras model (HDF5)", "export it as .tflite"),
    (b"PK\x03\x04", "a zip archive (a Keras or PyTorch model, or a download)",
     "unpack it, or export it as .tflite"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it: gunzip"),
)  # fmt: skip


def impostor(path: str, read: Reader) -> Diagnostic | None:
    """What the file is in place of a model, cascade or script, or None. OSError of `read`."""
    ending = suffix(path)
    if ending not in (*MODEL_SUFFIXES, *_TEXTS):
        return None
    what, remedy = _recognise(read(0, _HEAD_BYTES), model=ending in MODEL_SUFFIXES)
    if not what:
        return None
    return error("not-what-it-is-called", f"is {what}, not {ending}; {remedy}")


def _recognise(head: bytes, *, model: bool) -> tuple[str, str]:
    """What it is and what to do, or two empty texts."""
    if not head and model:
        return "empty", "copy the file again"
    if head.startswith(_LFS):
        return "a Git LFS pointer", "git lfs pull gets the file itself"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the raw file"
    for magic, what, remedy in _FORMATS if model else _FORMATS[-1:]:
        if head.startswith(magic):
            return what, remedy
    return "", ""
