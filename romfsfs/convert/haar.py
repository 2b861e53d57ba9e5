"""Haar cascades: OpenCV's `.xml` to the `.cascade` that `image.HaarCascade` loads.

The binary and the two generations of XML are described in docs/converters.md, "Haar cascades". The
binary has only upright rectangles with integer weights, stages in one sequence, and features that
are trees of one node; anything else is refused. Tilted features lose their tilt and detect worse;
a factory image of a camera has such a cascade, so that is a warning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.convert.cascade_xml import CascadeError, parse, sniff
from romfsfs.convert.types import Decision, Job, Product, Reader, State, error, unchanged, warning

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

#: OpenCV's own largest is 3 MiB.
MAX_XML_BYTES = 8 << 20
#: OpenCV allows 3. The binary could hold more; the limit bounds it by the size of the XML.
_MAX_RECTANGLES = 16
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?\Z", re.ASCII)
_MAX_NUMBER_TEXT = 64
_SIMPLER = "the camera runs simpler ones, such as OpenCV's haarcascade_frontalface_default.xml"


class Feature(NamedTuple):
    """A weak classifier. left, right: its values. rectangles: x, y, width, height, weight."""

    threshold: float
    left: float
    right: float
    rectangles: tuple[tuple[int, int, int, int, int], ...]
    tilted: bool


class Stage(NamedTuple):
    """Weak classifiers whose sum must reach the threshold."""

    threshold: float
    features: tuple[Feature, ...]


class HaarConverter:
    """Converts OpenCV's cascades to the firmware's own format."""

    name = "haar"
    version = 2
    source_name = "cascade.xml"

    def concerns(self, path: str) -> bool:
        return path.lower().endswith(".xml")

    def made_for(self, path: str) -> str:
        return ""  # the same on every board

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        kind = sniff(read, size) if size <= MAX_XML_BYTES else ""
        if kind == "HAAR":
            return Decision(State.PENDING, path[: -len(".xml")] + ".cascade")
        if kind:
            message = f"is a cascade of {kind} features, and the camera runs only Haar cascades; "
            message += "use one of OpenCV's haarcascade_*.xml"
            return unchanged(path, warning("cascade-unsupported", message))
        return unchanged(path)

    def convert(self, job: Job) -> Product:
        output = job.folder / "result.cascade"
        try:
            made = convert_cascade(job.source.read_bytes())
        except CascadeError as caught:
            message = f"not a usable Haar cascade: {caught}; {caught.remedy}"
            return Product(None, (error("cascade-invalid", message),))
        output.write_bytes(made.data)
        if not made.tilted:
            return Product(output)
        message = f"has tilted features ({made.tilted} of {made.features}), which the camera "
        message += "treats as upright: it detects less reliably; try it, or use a cascade without "
        message += "them"
        return Product(output, (warning("cascade-tilted", message),))


class Cascade(NamedTuple):
    """data: the `.cascade`. features: how many are in use. tilted: how many lost their tilt."""

    data: bytes
    features: int
    tilted: int


def convert_cascade(xml: bytes) -> Cascade:
    """Convert a cascade's XML. CascadeError if the firmware's format cannot hold it."""
    if len(xml) > MAX_XML_BYTES:
        raise CascadeError(f"more than {MAX_XML_BYTES >> 20} MiB of XML")
    root = parse(xml)
    if root.tag != "opencv_storage":
        raise CascadeError("the root element is not opencv_storage")
    for node in root:
        if node.find("stageNum") is not None:
            width, height = (_integer(_text(node, side), side) for side in ("width", "height"))
            return _encode((width, height), _new_stages(node))
        if node.find("stages") is not None and node.find("size") is not None:
            return _encode(_old_window(node), _old_stages(node))
    raise CascadeError("no cascade in it")


def _new_stages(node: Element) -> list[Stage]:
    rectangles = [
        (_rectangles(each.find("rects"), f"feature {number}"), _is_tilted(each))
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
    node: Element,
    rectangles: Sequence[tuple[tuple[tuple[int, int, int, int, int], ...], bool]],
    where: str,
) -> Feature:
    internal = _text(node, "internalNodes").split()
    leaves = _text(node, "leafValues").split()
    if len(internal) != 4 or len(leaves) != 2:
        raise CascadeError(f"{where}: a tree of more than one node", _SIMPLER)
    index = _integer(internal[2], where)
    if not 0 <= index < len(rectangles):
        raise CascadeError(f"{where}: feature {index} of {len(rectangles)}")
    threshold, *values = (_real(each, where) for each in (internal[3], *leaves))
    children = [_integer(each, where) for each in internal[:2]]
    if not {0, -1}.issuperset(children):  # above 0: a further node; below -1: a third leaf
        raise CascadeError(f"{where}: a tree that leads to nodes {children}", _SIMPLER)
    left, right = (values[-child] for child in children)
    return Feature(threshold, left, right, *rectangles[index])


def _old_window(node: Element) -> tuple[int, int]:
    words = _text(node, "size").split()
    if len(words) != 2:
        raise CascadeError("size: not a width and a height")
    return _integer(words[0], "width"), _integer(words[1], "height")


def _old_stages(node: Element) -> list[Stage]:
    stages = []
    for number, stage in enumerate(_children(node, "stages")):
        where = f"stage {number}"
        links = [stage.find(name) for name in ("parent", "next")]
        follows = [str(number - 1), "-1"]
        if any(link is not None and (link.text or "").strip() != to
               for link, to in zip(links, follows, strict=True)):  # fmt: skip
            raise CascadeError(f"{where}: the stages are a tree, not one after the other", _SIMPLER)
        features = tuple(_old_feature(tree, where) for tree in _children(stage, "trees"))
        stages.append(Stage(_real(_text(stage, "stage_threshold"), where), features))
    return stages


def _old_feature(tree: Element, where: str) -> Feature:
    if len(tree) != 1:
        raise CascadeError(f"{where}: a tree of more than one node", _SIMPLER)
    node = tree[0]
    threshold, left, right = (
        _real(_text(node, name), where) for name in ("threshold", "left_val", "right_val")
    )
    rectangles = _rectangles(node.find("feature/rects"), where)
    return Feature(threshold, left, right, rectangles, _is_tilted(node.find("feature")))


def _is_tilted(feature: Element | None) -> bool:
    text = "0" if feature is None else feature.findtext("tilted", "0")
    return text.strip() not in ("", "0")


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
        weight = _real(words[4], where)
        if weight != int(weight):
            what = f"{where}: a weight of {words[4][:20]}, and the camera takes whole numbers"
            raise CascadeError(what, _SIMPLER)
        found.append((x, y, width, height, int(weight)))
    return tuple(found)


def _encode(window: tuple[int, int], stages: Sequence[Stage]) -> Cascade:
    if not stages or not all(stage.features for stage in stages):
        raise CascadeError("a stage without features" if stages else "no stages")
    features = [feature for stage in stages for feature in stage.features]
    rectangles = [each for feature in features for each in feature.rectangles]
    for x, y, width, height, _ in rectangles:
        if x + width > window[0] or y + height > window[1]:
            what = f"a rectangle of {width} x {height} at {x}, {y} reaches out of the window of "
            raise CascadeError(f"{what}{window[0]} x {window[1]}")
    data = _pack("i", (*window, len(stages)), "window size")
    data += _pack("B", (len(stage.features) for stage in stages), "features of a stage")
    data += bytes(-len(data) % 4)
    data += _pack("h", (int(stage.threshold * 256) for stage in stages), "stage threshold")
    data += _pack("h", (int(each.threshold * 4096) for each in features), "feature threshold")
    data += _pack("h", (int(each.left * 256) for each in features), "left value")
    data += _pack("h", (int(each.right * 256) for each in features), "right value")
    data += _pack("B", (len(each.rectangles) for each in features), "rectangles of a feature")
    data += _pack("b", (each[4] for each in rectangles), "weight")
    data += _pack("B", (side for each in rectangles for side in each[:4]), "rectangle")
    return Cascade(data, len(features), sum(each.tilted for each in features))


def _pack(code: str, values: Iterable[int], what: str) -> bytes:
    numbers = list(values)
    bits = 8 * struct.calcsize(f"<{code}")
    low, high = (0, 2**bits - 1) if code == "B" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for number in numbers:
        if not low <= number <= high:
            raise CascadeError(f"{what} {number} is out of range, {low} to {high}", _SIMPLER)
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
