"""An `Output` that writes down what is said."""

from __future__ import annotations

from romfsfs.cli.output import Output
from romfsfs.errors import RomfsError


class Spoken(Output):
    """All that is said, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None:
        self.said.append(f"note: {text}")

    def error(self, error: RomfsError) -> None:
        self.said.append(f"error: {error.line}")
