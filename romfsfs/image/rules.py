"""How file data has to be aligned in an image, by file name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class AlignmentRules(NamedTuple):
    """Alignments in bytes: powers of two, at least 4.

    Models are read in place from memory-mapped flash, by hardware that needs aligned data.
    default: for names without a rule of their own. suffixes: (lower-case suffix without its dot,
    alignment). paths: the user's choice for single files, by their path in the image; it never
    lowers the alignment of their suffix.
    """

    default: int = 4
    suffixes: tuple[tuple[str, int], ...] = ()
    paths: Mapping[str, int] | None = None

    def for_path(self, path: str) -> int:
        """The alignment of the file at a path of the image."""
        return max(self.for_name(path), self.paths.get(path, 4) if self.paths else 4)

    def for_name(self, name: str) -> int:
        """The alignment for a file name (or path), by its last suffix in any case.

        The IDE and openmv-ota match everything after the first dot, so they align
        `yolo.v8.tflite` to 4. A leading dot starts no suffix: `.bin` has none.
        """
        name = name[name.rfind("/") + 1 :]
        dot = name.rfind(".")
        if dot > 0:
            suffix = name[dot + 1 :].lower()
            for candidate, alignment in self.suffixes:
                if candidate == suffix:
                    return alignment
        return self.default

    @property
    def largest(self) -> int:
        """The largest alignment of any rule; the content of directories is aligned to it."""
        return max(self._all)

    def check(self) -> None:
        """ValueError unless every alignment is a power of two and at least 4."""
        for alignment in self._all:
            if alignment < 4 or alignment & alignment - 1:
                raise ValueError(f"alignment {alignment} is not a power of two of at least 4")

    @property
    def _all(self) -> list[int]:
        of_suffixes = (alignment for _, alignment in self.suffixes)
        return [self.default, *of_suffixes, *(self.paths or {}).values()]


#: what the IDE uses for every board without a table of its own
DEFAULT_RULES = AlignmentRules(4, (("tflite", 16), ("lite", 16), ("bin", 16)))
