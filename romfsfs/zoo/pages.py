"""What a model's `index.html` says of it, as text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import NamedTuple


class Description(NamedTuple):
    """title: of the page. text: its first paragraph. On one line each, '' if there is none."""

    title: str
    text: str


def describe(page: bytes) -> Description:
    """The pages have a title, then a paragraph, then the whole licence."""
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
