"""What a zoo holds: files by path below `models/`, the models among them, and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import NamedTuple

from romfsfs.errors import RomfsError

#: What is a model, by the end of its name (any case). The IDE shows the first two; ST Edge AI
#: takes the third as well.
MODEL_SUFFIXES = (".tflite", ".lite", ".onnx")
LABEL_SUFFIX = ".txt"
INDEX = "index.csv"
#: Describes the models of its folder, and of folders below it that have no such page.
PAGE = "index.html"

#: A zoo has hundreds of files; a source with more than this is not one (`--from /`).
MAX_FILES = 50_000


class Member(NamedTuple):
    """A file of a zoo. path: below `models/`, '/' between. size in bytes."""

    path: str
    size: int
    mtime_ns: int


class Model(NamedTuple):
    """A model. label: the path of its labels; page: of the page about it; None if it has none."""

    path: str
    size: int
    label: str | None
    page: str | None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def is_model(path: str) -> bool:
    """Whether a file is a model, by its suffix."""
    return path.lower().endswith(MODEL_SUFFIXES)


def is_wanted(path: str) -> bool:
    """Whether a file can be a part of a zoo: a model, labels, a description, or its index."""
    name = path.rpartition("/")[2]
    return is_model(path) or path.lower().endswith(LABEL_SUFFIX) or name == PAGE or path == INDEX


def stem(name: str) -> str:
    """A model's file name without its suffix."""
    return name.rpartition(".")[0] if is_model(name) else name


def label_name(model_name: str) -> str:
    """The name under which the firmware looks for a model's labels, in the same folder.

    `ml.Model` cuts at the first dot: `yolo.v8.tflite` has `yolo.txt` (docs/converters.md).
    """
    return model_name.partition(".")[0] + LABEL_SUFFIX


def models(members: Mapping[str, Member]) -> list[Model]:
    """The models among these files, in code point order of their paths, each with its labels."""
    paths = sorted(filter(is_model, members))
    return [Model(path, members[path].size, _label(path, members), _page(path, members))
            for path in paths]  # fmt: skip


def _label(path: str, members: Mapping[str, Member]) -> str | None:
    folder, slash, name = path.rpartition("/")
    for candidate in (label_name(name), stem(name) + LABEL_SUFFIX):
        if folder + slash + candidate in members:
            return folder + slash + candidate
    return None


def _page(path: str, members: Mapping[str, Member]) -> str | None:
    """The nearest page, but not that of the whole zoo."""
    folder = path.rpartition("/")[0]
    while folder:
        if f"{folder}/{PAGE}" in members:
            return f"{folder}/{PAGE}"
        folder = folder.rpartition("/")[0]
    return None


def checked_path(path: str, where: str) -> str:
    """A path from an untrusted zip; RomfsError unless it is relative and has no `..`."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        next_step = "a zoo's names are relative, with '/' between and without '..'"
        raise RomfsError(f"refused: a file is named {path!r}", where=where, next_step=next_step)
    return path


class Description(NamedTuple):
    """What a page says: its title and its first paragraph, on one line each, '' if missing."""

    title: str
    text: str


def describe(page: bytes) -> Description:
    """The description in a page, which has a title, then a paragraph, then the whole licence."""
    reader = _Reader()
    reader.feed(page.decode("utf-8", "replace"))
    reader.close()
    return Description(*(" ".join(reader.found[tag].split()) for tag in ("title", "p")))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = {"title": "", "p": ""}
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.found:
            self._inside = "" if self.found[tag].strip() else tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[self._inside] += data
