"""Imports go one way: cli -> fs -> session -> (convert, devices, image, boards).

Read from the source, so that imports inside functions and under `TYPE_CHECKING` count too.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "romfsfs"

#: Parts that hold nothing but what every part shares.
LEAVES = {"errors", "system"}

#: part -> the parts it may import, besides itself and the leaves
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "system": set(),
    "image": set(),
    "boards": {"image"},  # the alignment rules of a partition are the layout's own type
    "convert": {"boards"},
    "devices": {"boards", "image"},
    "simulator": {"boards", "image"},
    "ide": {"boards", "devices", "image"},
    "desktop": {"boards"},
    "zoo": {"boards", "ide"},
    "session": {"boards", "convert", "devices", "image", "zoo"},  # zoo: served in the mount
    "fs": {"session", "zoo"},
    "api": {"boards", "convert", "devices", "fs", "image", "session"},
    "cli": {
        "api",
        "boards",
        "convert",
        "devices",
        "fs",
        "ide",
        "image",
        "desktop",
        "session",
        "simulator",
        "zoo",
    },
    "": {"api"},  # the package itself: `romfsfs.open`, imported when it is asked for
    "__main__": {"cli"},
}

#: The rooms of `session/`, each of which may import those before it.
SESSION_ROOMS = ["keep", "tree", "plan", "settings", "session", "rebase"]

FUSE_BINDINGS = {"fuse", "mfusepy"}
PRINTING = {"click", "rich"}


class Import(NamedTuple):
    """One imported module. part: of the importing file, '' for the package's own `__init__`."""

    file: Path
    line: int
    part: str
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(CHECKOUT)}:{self.line} imports {self.module}"


def part_of(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(file: Path, source: bytes) -> Iterator[Import]:
    part = part_of(file)
    # The package that `from .` means: the folder's own for __init__.py and its neighbours alike.
    package = ["romfsfs", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(source, str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, part, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from romfsfs import errors` and `from .. import errors` name a part, too
                yield Import(file, node.lineno, part, f"{module}.{alias.name}")
        elif isinstance(node, ast.Call) and _is_dynamic_import(node):
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Import(file, node.lineno, part, argument.value)


def _is_dynamic_import(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def imported_part(module: str) -> str | None:
    """The part of romfsfs that a module belongs to; None: not ours, or no part (`__version__`)."""
    names = module.split(".")
    if names[0] != "romfsfs" or len(names) < 2:
        return None
    is_part = (PACKAGE / names[1]).is_dir() or (PACKAGE / f"{names[1]}.py").is_file()
    return names[1] if is_part else None


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for file in FILES for found in imports_of(file, file.read_bytes())]


def test_every_part_is_known_here() -> None:
    unknown = {part_of(file) for file in FILES} - set(MAY_IMPORT)
    assert not unknown, f"say in {Path(__file__).name} what these may import: {sorted(unknown)}"


@pytest.mark.parametrize("part", sorted(MAY_IMPORT), ids=lambda part: part or "romfsfs")
def test_imports_go_one_way(part: str) -> None:
    allowed = MAY_IMPORT[part] | LEAVES | {part}
    wrong = [
        found
        for found in IMPORTS
        if found.part == part
        and (target := imported_part(found.module)) is not None
        and target not in allowed
    ]
    assert not wrong, "\n".join(map(str, wrong))


def session_room(module: str) -> str | None:
    """'keep' of `romfsfs.session.keep.state`; None: not of `session/`."""
    names = module.split(".")
    return names[2] if names[:2] == ["romfsfs", "session"] and len(names) > 2 else None


def module_of(file: Path) -> str:
    names = ("romfsfs", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(names).removesuffix(".__init__")


MODULES = {module_of(file): file for file in FILES}


def imported_module(name: str) -> str | None:
    """The module of ours that a name belongs to."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def test_the_rooms_of_a_session_know_those_below_them_alone() -> None:
    wrong = []
    for found in IMPORTS:
        room, target = session_room(module_of(found.file)), session_room(found.module)
        if room == target or room is None or target is None or room not in SESSION_ROOMS:
            continue  # what is beside the rooms (opening, service, ...) may know all of them
        if target not in SESSION_ROOMS[: SESSION_ROOMS.index(room)]:
            wrong.append(found)
    assert not wrong, "\n".join(map(str, wrong))


def test_no_module_needs_itself() -> None:
    """No circle, of two modules or of ten."""
    below: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        module, target = module_of(found.file), imported_module(found.module)
        if target is not None and target != module:
            below[module].add(target)
    # What imports nothing that is left is in no circle; what remains is.
    while free := {module for module, needs in below.items() if not needs & below.keys()}:
        below = {module: needs for module, needs in below.items() if module not in free}
    circles = {module: sorted(needs & below.keys()) for module, needs in below.items()}
    assert not circles, circles


def test_only_fs_imports_fuse() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.module.split(".")[0] in FUSE_BINDINGS and found.part != "fs"
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_only_cli_imports_what_prints() -> None:
    wrong = [
        found for found in IMPORTS if found.module.split(".")[0] in PRINTING and found.part != "cli"
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_image_package_opens_nothing() -> None:
    """It takes buffers and open files: what may be opened is decided above it."""
    wrong = []
    for file in sorted((PACKAGE / "image").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            if call in ("open", "os.open", "io.open") or call.endswith(
                (".read_bytes", ".read_text", ".write_bytes", ".write_text")
            ):
                wrong.append(f"{file.relative_to(CHECKOUT)}:{node.lineno} calls {call}")
    assert not wrong, "\n".join(wrong)


def test_the_rule_sees_imports_wherever_they_are() -> None:
    """The guard guarded: relative, nested, dynamic and aliased imports are all found."""
    source = (
        b"from ..errors import RomfsError\n"
        b"def late():\n"
        b"    from .. import devices\n"
        b"    import romfsfs.fs.daemon as daemon\n"
        b"    importlib.import_module('fuse')\n"
    )
    found = [one.module for one in imports_of(PACKAGE / "image" / "imaginary.py", source)]
    assert sorted(found) == [
        "fuse",
        "romfsfs.devices",
        "romfsfs.errors.RomfsError",
        "romfsfs.fs.daemon",
    ]


def test_what_the_scripts_import_is_there() -> None:
    """Each section of the bench and each long run begins: nothing else imports them."""
    folder = CHECKOUT / "scripts" / "benchlib"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__main__")
    assert "camera" in names
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    subprocess.run(
        [sys.executable, "-c", code, *names], check=True, timeout=120, cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"{folder}:{CHECKOUT}"},
    )  # fmt: skip
