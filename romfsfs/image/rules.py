"""How file data has to be aligned in an image, by file name."""

from __future__ import annotations

from romfsfs.image.tuples import NamedTuple


class AlignmentRules(NamedTuple):
    """Powers of two, at least 4: memory-mapped models are read in place, by hardware that needs
    its data aligned.

    default: for names without a rule of their own. suffixes: (lower-case suffix without its dot,
    alignment).
    """

    default: int = 4
    suffixes: tuple[tuple[str, int], ...] = ()

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
        return max([self.default, *(alignment for _, alignment in self.suffixes)])

    def check(self) -> None:
        """ValueError unless every alignment is a power of two and at least 4."""
        for alignment in (self.default, *(alignment for _, alignment in self.suffixes)):
            if alignment < 4 or alignment & alignment - 1:
                raise ValueError(f"alignment {alignment} is not a power of two of at least 4")


#: what the IDE uses for every board without an own table
DEFAULT_RULES = AlignmentRules(4, (("tflite", 16), ("lite", 16), ("bin", 16)))
