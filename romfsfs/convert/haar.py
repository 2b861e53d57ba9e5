"""Haar cascades: OpenCV's `.xml` to the `.cascade` that `image.HaarCascade` loads.

The binary is little-endian and has no magic number. With S stages, F features, R rectangles:

    3 x int32   window width, height, S
    S x uint8   features of each stage, then zeros until 12 + S is a multiple of 4
    S x int16   stage thresholds x 256
    F x int16   feature thresholds x 4096
    F x int16   left values x 256, then F x int16 right values x 256
    F x uint8   rectangles of each feature
    R x int8    weights, then R x 4 uint8 x, y, width, height

Values truncate toward zero (docs/converters.md, "Haar cascades"). Two generations of
XML: the new one has `stageNum`, and trees that name features by number; the old one has the
features in the trees. Trees of more than one node have no place in the binary and are refused.

The XML is untrusted: no document type is accepted (so no entities), nesting and sizes are bounded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.convert.types import Decision, Job, Product, Reader, State, error, unchanged, warning

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element, TreeBuilder

#: How much of a file is read to tell a cascade by its first elements (a licence may come first).
SNIFF_BYTES = 64 << 10
#: OpenCV's own largest is 3 MiB.
MAX_XML_BYTES = 8 << 20
_MAX_DEPTH = 32
#: OpenCV allows 3. More would fit the binary, but bounds it by the size of the XML.
_MAX_RECTANGLES = 16
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?\Z", re.ASCII)
_MAX_NUMBER_TEXT = 64


class CascadeError(ValueError):
    """Why the XML cannot become a cascade, a phrase."""


class Feature(NamedTuple):
    """rectangles: x, y, width, height, weight of each."""

    threshold: float
    left: float
    right: float
    rectangles: tuple[tuple[int, int, int, int, int], ...]


class Stage(NamedTuple):
    threshold: float
    features: tuple[Feature, ...]


class HaarConverter:
    name = "haar"
    version = 1
    source_name = "cascade.xml"

    def concerns(self, path: str) -> bool:
        return path.lower().endswith(".xml")

    def stored_path(self, path: str) -> str | None:
        return None

    def made_for(self, path: str) -> Mapping[str, str]:
        return {}  # the same on every board

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        kind = sniff(read(0, SNIFF_BYTES)) if size <= MAX_XML_BYTES else ""
        if kind == "HAAR":
            return Decision(State.PENDING, path[: -len(".xml")] + ".cascade")
        if kind:
            message = f"is a cascade of {kind} features, which the camera cannot use; it has Haar"
            return unchanged(path, warning("cascade-unsupported", message))
        return unchanged(path)

    def convert(self, job: Job) -> Product:
        output = job.folder / "result.cascade"
        try:
            output.write_bytes(convert_cascade(job.source.read_bytes()))
        except CascadeError as caught:
            message = f"not a usable Haar cascade: {caught}"
            return Product(None, (error("cascade-invalid", message),))
        return Product(output)


def sniff(head: bytes) -> str:
    """The feature type (`HAAR`, `LBP`, ...) when the first bytes of a file begin a cascade of
    OpenCV's, or ""."""
    if b"opencv_storage" not in head and b"o\0p\0e\0n\0c\0v" not in head:
        return ""
    watcher = _Sniffer()
    try:
        _feed(head, watcher, final=False)
    except CascadeError:
        pass
    except _Known:
        pass
    return watcher.kind


class _Known(Exception):
    """Enough has been seen."""


class _Sniffer:
    """Reads `opencv_storage`, the node in it, and that node's type.

    A new cascade says `featureType` within its first elements; an old one starts with `size`."""

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
        self._text = (self._text + text)[:_MAX_NUMBER_TEXT]

    def end(self, tag: str) -> None:
        if len(self._path) == 3 and tag == "featureType" and self.kind:
            self.kind = self._text.strip() or "HAAR"
            raise _Known
        self._path.pop()
        if len(self._path) == 1 and self.kind:
            raise _Known


def convert_cascade(xml: bytes) -> bytes:
    """The `.cascade` of a cascade's XML. CascadeError."""
    if len(xml) > MAX_XML_BYTES:
        raise CascadeError(f"more than {MAX_XML_BYTES >> 20} MiB of XML")
    root = _parse(xml)
    if root.tag != "opencv_storage":
        raise CascadeError("the root element is not opencv_storage")
    for node in root:
        if node.find("stageNum") is not None:
            return _encode(_new_window(node), _new_stages(node))
        if node.find("stages") is not None and node.find("size") is not None:
            return _encode(_old_window(node), _old_stages(node))
    raise CascadeError("no cascade in it")


def _parse(xml: bytes) -> Element:
    from xml.etree.ElementTree import TreeBuilder

    builder = TreeBuilder()
    _feed(xml, builder, final=True)
    return builder.close()


def _feed(xml: bytes, sink: TreeBuilder | _Sniffer, *, final: bool) -> None:
    """Parse `xml` into `sink`. CascadeError: not well formed, or more than plain elements."""
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
        parser.Parse(xml, final)
    except expat.ExpatError as caught:
        raise CascadeError(f"not well-formed XML: {caught}") from None
    except (LookupError, ValueError) as caught:  # encodings that Python lacks or expat cannot use
        if isinstance(caught, CascadeError):
            raise
        raise CascadeError(f"unreadable XML: {caught}") from None


def _new_window(node: Element) -> tuple[int, int]:
    return _integer(_text(node, "width"), "width"), _integer(_text(node, "height"), "height")


def _new_stages(node: Element) -> list[Stage]:
    rectangles = [
        _rectangles(each.find("rects"), f"feature {number}")
        for number, each in enumerate(_children(node, "features"))
    ]
    stages = []
    for number, stage in enumerate(_children(node, "stages")):
        where = f"stage {number}"
        features = tuple(
            _new_feature(each, rectangles, where) for each in _children(stage, "weakClassifiers")
        )
        stages.append(Stage(_real(_text(stage, "stageThreshold"), where), features))
    return stages


def _new_feature(
    node: Element, rectangles: Sequence[tuple[tuple[int, int, int, int, int], ...]], where: str
) -> Feature:
    internal = _text(node, "internalNodes").split()
    leaves = _text(node, "leafValues").split()
    if len(internal) != 4 or len(leaves) != 2:
        raise CascadeError(f"{where}: a tree of more than one node, which the camera cannot use")
    index = _integer(internal[2], where)
    if not 0 <= index < len(rectangles):
        raise CascadeError(f"{where}: feature {index} of {len(rectangles)}")
    threshold, left, right = (_real(each, where) for each in (internal[3], *leaves))
    return Feature(threshold, left, right, rectangles[index])


def _old_window(node: Element) -> tuple[int, int]:
    words = _text(node, "size").split()
    if len(words) != 2:
        raise CascadeError("size: not a width and a height")
    return _integer(words[0], "width"), _integer(words[1], "height")


def _old_stages(node: Element) -> list[Stage]:
    stages = []
    for number, stage in enumerate(_children(node, "stages")):
        where = f"stage {number}"
        features = tuple(_old_feature(tree, where) for tree in _children(stage, "trees"))
        stages.append(Stage(_real(_text(stage, "stage_threshold"), where), features))
    return stages


def _old_feature(tree: Element, where: str) -> Feature:
    if len(tree) != 1:
        raise CascadeError(f"{where}: a tree of more than one node, which the camera cannot use")
    node = tree[0]
    threshold, left, right = (
        _real(_text(node, name), where) for name in ("threshold", "left_val", "right_val")
    )
    return Feature(threshold, left, right, _rectangles(node.find("feature/rects"), where))


def _rectangles(node: Element | None, where: str) -> tuple[tuple[int, int, int, int, int], ...]:
    if node is None:
        raise CascadeError(f"{where}: no rects")
    if len(node) > _MAX_RECTANGLES:
        raise CascadeError(f"{where}: {len(node)} rectangles, at most {_MAX_RECTANGLES}")
    found = []
    for each in node:
        words = (each.text or "").split()
        if len(words) != 5:
            raise CascadeError(f"{where}: a rectangle without x, y, width, height, weight")
        x, y, width, height = (_integer(word, where) for word in words[:4])
        found.append((x, y, width, height, int(_real(words[4], where))))
    return tuple(found)


def _encode(window: tuple[int, int], stages: Sequence[Stage]) -> bytes:
    if not stages:
        raise CascadeError("no stages")
    features = [feature for stage in stages for feature in stage.features]
    rectangles = [each for feature in features for each in feature.rectangles]
    return b"".join(
        (
            _pack("i", (*window, len(stages)), "window size"),
            _pack("B", (len(stage.features) for stage in stages), "features of a stage"),
            bytes(-(12 + len(stages)) % 4),
            _pack("h", (int(stage.threshold * 256) for stage in stages), "stage threshold"),
            _pack("h", (int(each.threshold * 4096) for each in features), "feature threshold"),
            _pack("h", (int(each.left * 256) for each in features), "left value"),
            _pack("h", (int(each.right * 256) for each in features), "right value"),
            _pack("B", (len(each.rectangles) for each in features), "rectangles of a feature"),
            _pack("b", (each[4] for each in rectangles), "weight"),
            _pack("B", (side for each in rectangles for side in each[:4]), "rectangle"),
        )
    )


def _pack(code: str, values: Iterable[int], what: str) -> bytes:
    numbers = list(values)
    bits = 8 * struct.calcsize(f"<{code}")
    low, high = (0, 2**bits - 1) if code == "B" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for number in numbers:
        if not low <= number <= high:
            raise CascadeError(f"{what} {number} is out of range, {low} to {high}")
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def _children(node: Element, name: str) -> Element:
    found = node.find(name)
    if found is None:
        raise CascadeError(f"no {name} in {node.tag}")
    return found


def _text(node: Element, name: str) -> str:
    return _children(node, name).text or ""


def _real(text: str, where: str) -> float:
    word = text.strip()
    if len(word) > _MAX_NUMBER_TEXT or not _NUMBER.match(word):
        raise CascadeError(f"{where}: {word[:20]!r} is not a number")
    value = float(word)
    if abs(value) > 1e12:  # out of every range here; also keeps infinity out of int()
        raise CascadeError(f"{where}: {word[:20]} is out of range")
    return value


def _integer(text: str, where: str) -> int:
    value = _real(text, where)
    if value != int(value):
        raise CascadeError(f"{where}: {text.strip()[:20]} is not a whole number")
    return int(value)
