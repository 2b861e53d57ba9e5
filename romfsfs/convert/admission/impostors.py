"""Files that are not what their name says, and that no board can use.

For example what a click on a web page or a git clone without LFS saves under the name of a model,
cascade or script.
"""

from __future__ import annotations

from romfsfs.convert.admission.models import MODEL_SUFFIXES, suffix
from romfsfs.convert.types import Diagnostic, Reader, error

_TEXTS = (".xml", ".py")
#: Bytes read of a file: white space may precede what tells its format.
_HEAD_BYTES = 512
_LFS = b"version https://git-lfs.github.com/spec/"
#: Formats that people take for models: first bytes, what it is, remedy.
_FORMATS = (
    (b"\x89HDF\r\n\x1a\n", "a Keras model (HDF5)", "export it as .tflite"),
    (b"PK\x03\x04", "a zip archive (a Keras or PyTorch model, or a download)",
     "unpack it, or export it as .tflite"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it: gunzip"),
)  # fmt: skip


def impostor(path: str, read: Reader) -> Diagnostic | None:
    """The diagnostic for a file that is no model, cascade or script despite its suffix, or None.

    OSError of `read`."""
    ending = suffix(path)
    if ending not in (*MODEL_SUFFIXES, *_TEXTS):
        return None
    what, remedy = _recognise(read(0, _HEAD_BYTES), model=ending in MODEL_SUFFIXES)
    if not what:
        return None
    return error("not-what-it-is-called", f"is {what}, not {ending}; {remedy}")


def _recognise(head: bytes, *, model: bool) -> tuple[str, str]:
    """What the file is, and the remedy; two empty texts if nothing is wrong."""
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
