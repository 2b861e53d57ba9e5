"""Recognises and parses the XML of OpenCV's cascades.

It is untrusted: no document type is accepted (so no entities), nesting and sizes are bounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from romfsfs.convert.types import Reader

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element, TreeBuilder

#: Bytes read at a time: the first elements tell, but a licence of any length may precede them.
_SNIFF_BYTES = 64 << 10
_BEGINS = (b"<", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MAX_DEPTH = 32
_MAX_TYPE = 64


class CascadeError(ValueError):
    """Why the XML cannot become a cascade, as a phrase. remedy: what to do about it."""

    def __init__(self, reason: str, remedy: str = "copy the file again, or use another") -> None:
        super().__init__(reason)
        self.remedy = remedy


def sniff(read: Reader, size: int) -> str:
    """The feature type (`HAAR`, `LBP`, ...) of an OpenCV cascade; "" for any other file."""
    if not read(0, _SNIFF_BYTES).lstrip().startswith(_BEGINS):
        return ""
    watcher = _Sniffer()
    parts = (read(at, _SNIFF_BYTES) for at in range(0, size, _SNIFF_BYTES))
    with contextlib.suppress(CascadeError, _Known):
        _feed(parts, watcher)
    return watcher.kind


class _Known(Exception):
    """Ends the parsing: enough has been seen."""


class _Sniffer:
    """Reads `opencv_storage`, the first node in it, and that node's type.

    A new cascade has `featureType` among its first elements; an old one starts with `size`."""

    def __init__(self) -> None:
        self.kind = ""
        self._path: list[str] = []
        self._text = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._path and tag != "opencv_storage":
            raise _Known
        self._path.append(tag)
        self._text = ""
        if len(self._path) == 2:
            self.kind = ""
            type_id = attributes.get("type_id", "")
            if type_id == "opencv-haar-classifier":
                self.kind = "HAAR"
                raise _Known
            if type_id == "opencv-cascade-classifier" or tag == "cascade":
                self.kind = "HAAR"  # until featureType says otherwise
        elif len(self._path) == 3 and tag == "stages" and self.kind:
            raise _Known

    def data(self, text: str) -> None:
        self._text = (self._text + text)[:_MAX_TYPE]

    def end(self, tag: str) -> None:
        if len(self._path) == 3 and tag == "featureType" and self.kind:
            self.kind = self._text.strip() or "HAAR"
            raise _Known
        self._path.pop()
        if len(self._path) == 1 and self.kind:
            raise _Known


def parse(xml: bytes) -> Element:
    """The root element of the XML. CascadeError."""
    from xml.etree.ElementTree import TreeBuilder

    builder = TreeBuilder()
    _feed([xml, b""], builder)
    return builder.close()


def _feed(parts: Iterable[bytes], sink: TreeBuilder | _Sniffer) -> None:
    """Parse XML into `sink`; an empty part ends it.

    CascadeError if it is not well formed, nested too deep, or has a document type."""
    from xml.parsers import expat

    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise CascadeError(f"elements nested more than {_MAX_DEPTH} deep")
        sink.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        sink.end(tag)

    def refuse(*_: object) -> None:
        raise CascadeError("a document type declaration, which OpenCV never writes")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = sink.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        for part in parts:
            parser.Parse(part, not part)
    except expat.ExpatError as caught:
        raise CascadeError(f"not well-formed XML: {caught}") from None
    except (LookupError, ValueError) as caught:  # encodings that Python lacks or expat cannot use
        if isinstance(caught, CascadeError):
            raise
        raise CascadeError(f"unreadable XML: {caught}") from None
