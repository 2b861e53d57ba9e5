"""Headers of compiled scripts (`.mpy`), and which of them a camera loads.

Four bytes: `M`, bytecode version, bits 0-1 sub-version and bits 2-5 native architecture, small
integer width (MicroPython: docs/reference/mpyfiles.rst, py/persistentcode.c). The loader requires
its own version and, for files with native code, also its own sub-version and an architecture that
it runs; from ARMv6-M on, an ARM core also runs the code of all lower architectures.
"""

from __future__ import annotations

from typing import NamedTuple

from romfsfs.boards.model import ARCHITECTURES

#: The first version whose header holds a sub-version.
_FIRST_WITH_SUBVERSION = 6


class Header(NamedTuple):
    """version: (6, 3) is bytecode 6.3; files without native code have sub-version 0.
    architecture: of native code; "": none."""

    version: tuple[int, int]
    architecture: str

    @property
    def native(self) -> bool:
        return bool(self.architecture)


def parse_header(data: bytes) -> Header | None:
    """The header in the first bytes of a file; None if it is no compiled script."""
    if len(data) < 4 or data[0] != ord("M"):
        return None
    number = data[2] >> 2 & 0x0F
    architecture = ARCHITECTURES[number] if number < len(ARCHITECTURES) else f"number {number}"
    minor = data[2] & 3 if data[1] >= _FIRST_WITH_SUBVERSION else 0
    return Header((data[1], minor), architecture)


def version_text(version: tuple[int, int], native: bool = True) -> str:
    """`6.3`, or `6` if the sub-version has no meaning."""
    if version[0] < _FIRST_WITH_SUBVERSION or not native:
        return str(version[0])
    return f"{version[0]}.{version[1]}"


def runs(architecture: str, on: str) -> bool:
    """Whether a core of architecture `on` runs native code for `architecture`."""
    if architecture == on:
        return True
    if architecture not in ARCHITECTURES or on not in ARCHITECTURES:
        return False
    first, last = ARCHITECTURES.index("armv6m"), ARCHITECTURES.index("armv7emdp")
    code, core = ARCHITECTURES.index(architecture), ARCHITECTURES.index(on)
    return first <= code <= core <= last


def mismatch(header: Header, version: tuple[int, int]) -> str:
    """Why a camera of that bytecode version does not load the file, or ""."""
    same = header.version == version if header.native else header.version[0] == version[0]
    return "" if same else f"is bytecode {version_text(header.version, header.native)}"
