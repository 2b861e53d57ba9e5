"""Every error that romfsfs raises on purpose, and the exit code each one gives.

    RomfsError                  1  failure
    |-- UsageError              2  the call is wrong
    |-- ConversionError         3  a script or model could not be converted
    |   `-- ToolMissing         3  the compiler for it is not installed
    |-- ImageError              4  an image, or what would become one, is not valid
    |   |-- ImageFormatError    4  bytes that are no ROMFS image: carries the offset
    |   |-- CapacityError       4  more than the partition holds: carries by how much
    |   `-- PlanError           4  conflicts and names that the camera cannot use
    |-- DeviceError             5  the camera or file could not be used
    |   |-- DeviceAbsent        5  not there
    |   |-- DeviceBusy          5  another program holds it
    |   |-- DeviceLost          5  it went away or stopped answering while in use
    |   `-- DeviceAnswer        5  it answered with an error
    |-- VerifyError             6  what was read back is not what was written
    |-- TargetChanged           7  the target is not what this session last read
    |-- SessionBusy             1  another process uses the session
    |-- Cancelled               1  it was told to stop
    `-- Interrupted           130  Ctrl-C

An error carries facts and is worded in one place (`RomfsError.line`), printed in one place (`cli`).
"""

from __future__ import annotations

import os

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONVERSION = 3
EXIT_IMAGE = 4
EXIT_DEVICE = 5
EXIT_VERIFY = 6
EXIT_CHANGED = 7
EXIT_INTERRUPTED = 130


def printable(text: str) -> str:
    """Text from an image or camera with all that could control a terminal escaped. A byte that is
    not UTF-8 is escaped as that byte, so that a shell's $'...' reads it back."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def shell_word(path: str | os.PathLike[str]) -> str:
    """A path quoted for a shell command that we suggest: on one line whatever is in it, and never
    mistaken for an option."""
    import shlex

    word = os.fspath(path)
    if word.startswith("-"):
        word = "./" + word
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_in_shell, word)) + "'"


def _in_shell(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def count_text(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    plural = noun if count == 1 else noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {plural}"


def _one_line(text: str) -> str:
    """Join the lines that a tool's message may have; names keep their spaces."""
    parts = (part.strip() for part in text.expandtabs(1).splitlines())
    return printable(" ".join(part for part in parts if part))


class RomfsError(Exception):
    """An error a user can act on.

    what: what went wrong, a phrase without a full stop. where: the file, offset or port it
    happened at. next_step: what to do now, ideally a command. detail: a tool's whole output or
    the like, shown below the line with `-v` (and always for tool messages, see `show_detail`).
    """

    exit_code = EXIT_FAILURE
    show_detail = False

    def __init__(
        self, what: str, *, where: str = "", next_step: str = "", detail: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step
        self.detail = detail

    @property
    def line(self) -> str:
        """`WHAT (WHERE); NEXT STEP`, on one line, fit for a terminal."""
        text = _one_line(self.what)
        if self.where:
            text += f" ({printable(self.where)})"
        if self.next_step:
            text += f"; {_one_line(self.next_step)}"
        return text

    def __str__(self) -> str:
        return self.line


class UsageError(RomfsError):
    exit_code = EXIT_USAGE


def file_exists(file: str | os.PathLike[str]) -> UsageError:
    """The error for a file that exists and may not be replaced."""
    next_step = "choose another name, or replace it with --force"
    return UsageError("the file exists", where=os.fspath(file), next_step=next_step)


class ConversionError(RomfsError):
    exit_code = EXIT_CONVERSION
    show_detail = True


class ToolMissing(ConversionError):
    pass


class Cancelled(RomfsError):
    """A conversion or another program was told to stop; users never see this."""


class ImageError(RomfsError):
    exit_code = EXIT_IMAGE


class ImageFormatError(ImageError):
    """offset: bytes from the start of the image at which the reader gave up. reason: why."""

    def __init__(self, reason: str, offset: int, *, where: str = "", next_step: str = "") -> None:
        place = f"{where}, offset {offset:#x}" if where else f"offset {offset:#x}"
        super().__init__(f"not a valid ROMFS image: {reason}", where=place, next_step=next_step)
        self.reason = reason
        self.offset = offset

    def at(self, where: str, next_step: str = "") -> ImageFormatError:
        """The same error, with the name of the image."""
        return ImageFormatError(self.reason, self.offset, where=where, next_step=next_step)


class CapacityError(ImageError):
    """The image would not fit. size and capacity in bytes."""

    def __init__(self, what: str, *, size: int, capacity: int, **words: str) -> None:
        super().__init__(what, **words)
        self.size = size
        self.capacity = capacity


def too_large(size: int, capacity: int, where: str, next_step: str = "") -> CapacityError:
    """The error for an image that does not fit. size and capacity in bytes."""
    what = f"the image is {size - capacity:,} B too large, there is room for {capacity:,} B"
    return CapacityError(what, size=size, capacity=capacity, where=where, next_step=next_step)


class PlanError(ImageError):
    """What the user made cannot become an image; `detail` has a line for each problem."""

    show_detail = True


class DeviceError(RomfsError):
    exit_code = EXIT_DEVICE


class DeviceAbsent(DeviceError):
    pass


class DeviceBusy(DeviceError):
    pass


class DeviceLost(DeviceError):
    pass


class DeviceAnswer(DeviceError):
    """The device answered a request with an error. errno: its number (positive), or 0."""

    def __init__(self, what: str, *, errno: int = 0, **words: str) -> None:
        super().__init__(what, **words)
        self.errno = errno


class VerifyError(RomfsError):
    exit_code = EXIT_VERIFY


class TargetChanged(RomfsError):
    exit_code = EXIT_CHANGED


class SessionBusy(RomfsError):
    pass


class Interrupted(RomfsError):
    exit_code = EXIT_INTERRUPTED
