"""Scripts, compiled or not, against the camera that has to load them."""

from __future__ import annotations

from romfsfs.convert import mpy
from romfsfs.convert.script_text import text_problem
from romfsfs.convert.types import Diagnostic, Reader, Target, error, warning
from romfsfs.errors import ToolMissing

#: Bytes. Larger scripts do not fit into a camera's memory, and are not read.
_MAX_SOURCE = 1 << 20


def bytecode_findings(head: bytes, target: Target) -> tuple[Diagnostic, ...]:
    """What keeps the camera from loading an `.mpy`, by its first bytes.

    If the camera has not reported its bytecode version, that of the newest compiler is assumed,
    and a mismatch is only a warning."""
    header = mpy.parse_header(head)
    if header is None:
        message = "is not a compiled script; copy the .py, or compile it with mpy-cross"
        return (error("mpy-version", message),)
    remedy = "copy the .py instead of the .mpy"
    architecture = target.architecture
    if header.native and architecture and not mpy.runs(header.architecture, architecture):
        message = f"holds native code for {header.architecture}, "
        return (error("mpy-version", f"{message}{target.name} runs {architecture}; {remedy}"),)
    told = target.mpy_version
    expected = told or _newest()
    if expected is None:
        return ()
    problem = mpy.mismatch(header, expected)
    if not problem:
        return ()
    say = error if told else warning
    whose = "the camera loads" if told else "current firmware loads"
    return (say("mpy-version", f"{problem}, {whose} {mpy.version_text(expected)}; {remedy}"),)


def source_findings(path: str, read: Reader, size: int) -> tuple[Diagnostic, ...]:
    """What is wrong with the text of a script that is stored as source. OSError of `read`."""
    if size > _MAX_SOURCE:
        return ()
    problem = text_problem(path, read(0, size))
    return () if problem is None else (problem,)


def _newest() -> tuple[int, int] | None:
    from romfsfs.convert.script import find_compiler

    try:
        return find_compiler(None).version
    except ToolMissing:
        return None
