"""How file data has to be aligned in an image, by file name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class AlignmentRules(NamedTuple):
    """Powers of two, at least 4: memory-mapped models are read in place, by hardware that needs
    its data aligned.

    default: for names without a rule of their own. suffixes: (lower-case suffix without its dot,
    alignment). paths: what the user wants for single files, by their whole path in the image;
    it never lowers what their suffix asks for.
    """

    default: int = 4
    suffixes: tuple[tuple[str, int], ...] = ()
    paths: Mapping[str, int] | None = None

    def for_path(self, path: str) -> int:
        """The alignment of the file at a path of the image."""
        return max(self.for_name(path), self.paths.get(path, 4) if self.paths else 4)

    def for_name(self, name: str) -> int:
        """The alignment for a file name (or path), by its last suffix in any case.

        The IDE and openmv-ota match everything after the first dot, so that their
        `yolo.v8.tflite` lands at 4. A leading dot starts no suffix: `.bin` has none.
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
        """The largest alignment of any rule: what directories are aligned to."""
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


#: what the IDE uses for every board without an own table
DEFAULT_RULES = AlignmentRules(4, (("tflite", 16), ("lite", 16), ("bin", 16)))
