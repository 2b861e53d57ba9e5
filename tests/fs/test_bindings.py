"""Which binding and library are used, and what passes between libfuse and the operations."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import RomfsError
from romfsfs.fs import binding
from romfsfs.fs.control import Attributes
from romfsfs.fs.fuse_class import add_operations_of_29, fuse_class_of

# -- the bindings


class Adapter:
    """Each operation says its name."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.done.append(f"{name}{args}")


@pytest.mark.parametrize(("max_read", "told"), [(None, 5), (4096, 4096)])
def test_what_libfuse_3_is_told_at_its_first_request(max_read: int | None, told: int) -> None:
    adapter, ending = Adapter(), Adapter()
    operations: Any = binding._Operations3(adapter, max_read, ending)  # type: ignore[arg-type]
    connection = SimpleNamespace(want=0xFFFFFFFF, max_read=5)
    operations.init_with_config(connection, None)
    # FUSE_CAP_AUTO_INVAL_DATA, READDIRPLUS and READDIRPLUS_AUTO are bits 12, 13 and 14
    assert connection == SimpleNamespace(want=0xFFFF8FFF, max_read=told)
    operations.destroy("/")
    assert (ending.done, adapter.done) == (["begin()", "forget()"], ["init('/',)", "destroy('/',)"])
    flags = [operations.use_ns, operations.flag_utime_omit_ok, operations.flag_nullpath_ok,
             operations.flag_nopath]  # fmt: skip
    assert flags == [True, 1, 1, 1]


@pytest.mark.parametrize(("options", "limit"), [({}, None), ({"max_read": "9"}, 9),
                                                ({"max_read": "9k"}, None)])  # fmt: skip
def test_libfuse_3_is_run_with_an_ending_of_ours(
    options: dict[str, str], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    module: Any = SimpleNamespace(_libfuse="library", fuse_main_real="theirs")
    monkeypatch.setattr(
        binding, "Ending", lambda library: SimpleNamespace(around=lambda real: f"{library} {real}")
    )
    monkeypatch.setattr(
        binding, "_Operations3", lambda adapter, max_read, ending: told.append((adapter, max_read))
    )

    def fuse(operations: object, place: str, **how: object) -> None:
        told.append((place, how, module.fuse_main_real))

    monkeypatch.setattr(binding, "fuse_class_of", lambda given, major: fuse)
    binding.Binding("mfusepy", module, (3, 14)).run("adapter", "/m", {"ro": True, **options})
    how = {"raw_fi": True, "encoding": "latin-1", "foreground": True, "ro": True, **options}
    assert told == [("adapter", limit), ("/m", how, "library theirs")]
    assert module.fuse_main_real == "theirs"


INSTALL = "; install it"
ANY = {2: ("libfuse.so.2", (2, 9)), 3: ("libfuse3.so.4", (3, 17))}
OLD_3 = {3: ("libfuse3.so.3", (3, 12))}
SLOW = "libfuse 3.12 is not used: before 3.13, simultaneous renames can deadlock a mount"
NO_BINDING = (
    "libfuse 3.17 is installed, but its Python binding is not; pip install 'romfsfs[fuse3]' (with "
    "pipx: pipx inject romfsfs mfusepy)"
)


@pytest.mark.parametrize(
    ("wanted", "libraries", "modules", "found"),
    [
        ("auto", ANY, ["mfusepy", "fuse"], "mfusepy libfuse3.so.4 (3, 17)"),
        ("auto", ANY, ["fuse"], "fuse libfuse.so.2 (2, 9)"),
        ("auto", ANY, ["mfusepy"], "mfusepy libfuse3.so.4 (3, 17)"),
        (None, {2: ANY[2], **OLD_3}, ["mfusepy", "fuse"], "fuse libfuse.so.2 (2, 9)"),
        ("fusepy", ANY, ["mfusepy", "fuse"], "fuse libfuse.so.2 (2, 9)"),
        ("mfusepy", ANY, ["mfusepy", "fuse"], "mfusepy libfuse3.so.4 (3, 17)"),
        ("auto", {3: ANY[3]}, ["fuse"], NO_BINDING), ("auto", OLD_3, ["mfusepy"], SLOW + INSTALL),
        ("mfusepy", OLD_3, ["mfusepy"], SLOW + INSTALL),
        ("auto", {}, ["mfusepy", "fuse"], "libfuse is not installed" + INSTALL),
        ("auto", {}, [], "libfuse is not installed" + INSTALL),
        ("fusepy", {3: ANY[3]}, ["fuse"], "libfuse 2 is not installed" + INSTALL),
        ("mfusepy", {2: ANY[2]}, ["mfusepy"], "libfuse 3 is not installed" + INSTALL),
        ("fusepy", ANY, ["mfusepy"], "the FUSE binding fusepy is not installed; pip install "
         "fusepy"),
        ("mfusepy", ANY, [], "the FUSE binding mfusepy is not installed; pip install "
         "'romfsfs[fuse3]'"),
        ("x", ANY, [], "no FUSE binding is called 'x' ($ROMFSFS_FUSE); use fusepy, mfusepy or "
         "auto"),
    ],
)  # fmt: skip
def test_which_binding_is_used(
    wanted: str | None, libraries: dict[int, Any], modules: list[str], found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("ROMFSFS_FUSE", raising=False)
    monkeypatch.setattr(binding, "_find_library", libraries.get)
    monkeypatch.setattr(
        binding.importlib.util, "find_spec", lambda name: name if name in modules else None
    )
    monkeypatch.setattr(binding, "_import", lambda name, library: f"{name} {library}")
    monkeypatch.setattr(binding, "install_command", lambda: "install it")
    monkeypatch.setattr(binding.sys, "platform", "linux")

    def said() -> str:
        try:
            chosen = binding.load_binding(wanted)
        except RomfsError as error:
            return error.line
        assert chosen.name == ("fusepy" if chosen._module.startswith("fuse ") else "mfusepy")
        return f"{chosen._module} {chosen.libfuse}"

    assert said() == found
    if wanted is not None:
        monkeypatch.setenv("ROMFSFS_FUSE", wanted)
        wanted = None
        assert said() == found
    if found.startswith("mfusepy"):  # which speaks libfuse 3 on Linux only
        monkeypatch.setattr(binding.sys, "platform", "darwin")
        assert not said().startswith("mfusepy")


@pytest.mark.parametrize(
    ("version", "major", "found"),
    [(29, 2, (2, 9)), (99, 9, (9, 9)), (100, 1, (1, 0)), (312, 3, (3, 12)), (317, 2, None),
     (26, 3, None), (None, 2, None)],
)  # fmt: skip
@pytest.mark.parametrize("given", [True, False])
def test_where_a_library_is_looked_for(
    version: int | None, major: int, found: tuple[int, int] | None, given: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[str] = []
    monkeypatch.delenv("FUSE_LIBRARY_PATH")

    def load(name: str) -> Any:
        asked.append(name)
        if version is None:
            raise OSError("not there")
        return SimpleNamespace(fuse_version=lambda: version)

    monkeypatch.setattr(binding.ctypes, "CDLL", load)
    monkeypatch.setattr(binding.sys, "platform", "linux")
    names = {2: ["libfuse.so.2"], 3: ["libfuse3.so.4", "libfuse3.so.3"]}.get(major, [])
    if given:
        monkeypatch.setenv("FUSE_LIBRARY_PATH", "/my/libfuse.so")
        names = ["/my/libfuse.so"]
    elif not names:
        return
    assert binding._find_library(major) == (None if found is None else (names[0], found))
    assert asked == (names if found is None else names[:1])


def test_where_a_library_is_looked_for_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names on Linux, and then by those that the system finds."""
    monkeypatch.delenv("FUSE_LIBRARY_PATH")
    monkeypatch.setattr(binding.sys, "platform", "darwin")
    for major, asked, found in (
        (2, ["fuse", "osxfuse", "fuse-t"], ["libfuse.so.2", "/osxfuse.dylib", "/fuse-t.dylib"]),
        (3, ["fuse3"], ["libfuse3.so.4", "libfuse3.so.3"]),
    ):
        stems: list[str] = []
        tried: list[str] = []

        def find(stem: str, stems: list[str] = stems) -> str | None:
            stems.append(stem)
            return f"/{stem}.dylib" if "-" in stem or stem == "osxfuse" else None

        def version(name: str, tried: list[str] = tried) -> None:
            tried.append(name)

        monkeypatch.setattr(ctypes.util, "find_library", find)
        monkeypatch.setattr(binding, "_version", version)
        assert binding._find_library(major) is None
        assert (stems, tried) == (asked, found)


@pytest.mark.parametrize("before", [None, "/mine.so"])
@pytest.mark.parametrize("right", [True, False])
def test_a_binding_finds_the_library_where_it_looks(
    before: str | None, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(FUSE=1, __file__="/there/fuse.py")
    if right:
        module.fuse_get_context = 1
    monkeypatch.setattr(
        binding.importlib, "import_module",
        lambda name: module if (name, os.environ["FUSE_LIBRARY_PATH"]) == ("fuse", "/l.so") else 0,
    )  # fmt: skip
    monkeypatch.delenv("FUSE_LIBRARY_PATH", raising=False)
    if before is not None:
        monkeypatch.setenv("FUSE_LIBRARY_PATH", before)
    if right:
        assert binding._import("fuse", "/l.so") is module
    else:
        with pytest.raises(RomfsError) as refused:
            binding._import("fuse", "/l.so")
        assert refused.value.line == (
            "the installed Python module `fuse` is not the FUSE binding fusepy (/there/fuse.py); "
            "pip uninstall fuse-python && pip install --force-reinstall fusepy"
        )
    assert os.environ.get("FUSE_LIBRARY_PATH") == before


# -- the bindings' class


def test_what_libfuse_29_has_besides() -> None:
    field = ("getattr", ctypes.c_void_p)
    operations = type("operations", (ctypes.Structure,), {"_fields_": [field]})
    information = type("information", (ctypes.Structure,), {"_fields_": [("fh", ctypes.c_int)]})
    module = SimpleNamespace(fuse_operations=operations, fuse_file_info=information)
    add_operations_of_29(module)
    made = module.fuse_operations
    names = [name for name, *_ in made._fields_]
    assert names == ["getattr", "poll", "write_buf", "read_buf", "flock", "fallocate"]
    assert made.fallocate.offset == 5 * ctypes.sizeof(ctypes.c_void_p)
    add_operations_of_29(module)
    assert module.fuse_operations is made


class Time(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class Stat(ctypes.Structure):
    _fields_ = tuple(
        (f"st_{name}", Time if name.endswith("spec") else ctypes.c_uint64)
        for name in ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "blksize", "atimespec",
                     "mtimespec", "ctimespec")
    )  # fmt: skip


METHODS = {
    2: ("read", "write", "getattr", "fgetattr", "readdir", "utimens"),
    3: ("read", "write", "getattr_fuse_3", "readdir_fuse_3", "truncate_fuse_3", "chmod_fuse_3",
        "chown_fuse_3", "utimens_fuse_3", "rename_fuse_3"),
}  # fmt: skip


@pytest.mark.parametrize("libfuse", [2, 3])
def test_what_libfuse_asks_is_passed_on_whole(libfuse: int) -> None:
    base = type("FUSE", (), dict.fromkeys(METHODS[libfuse]))
    made: Any = fuse_class_of(SimpleNamespace(FUSE=base, c_stat=Stat, __name__="x"), libfuse)
    adapter = Adapter()
    fuse: Any = made.__new__(made)
    fuse.operations = adapter
    file = SimpleNamespace(contents=SimpleNamespace(fh=5))
    there = file.contents
    of_3 = {name: getattr(fuse, f"{name}_fuse_3", None) for name in
            ("truncate", "chmod", "chown", "utimens", "rename")}  # fmt: skip
    fuse.fallocate("path", 1, 2, 3, file)
    (fuse.utimens if libfuse == 2 else of_3["utimens"])(b"/\xe9", 0, None)
    wanted = [f"fallocate(None, 1, 2, 3, {there})", "utimens('/\xe9', None)"]
    if libfuse == 3:
        of_3["truncate"](None, 7, file)
        of_3["truncate"](b"/a", 7, None)
        of_3["chmod"](None, 0o644, file)
        of_3["chown"](b"/a", 0xFFFFFFFF, 8, None)
        of_3["rename"](b"/a", b"/b", 2)
        of_3["utimens"](b"/a", "times", file)
        wanted += [
            f"truncate(None, 7, {there})", "truncate('/a', 7, None)",
            f"chmod(None, 420, {there})", "chown('/a', -1, 8)", "rename('/a', '/b', 2)",
            "utimens('/a', 'times')",
        ]  # fmt: skip
    assert adapter.done == wanted


@pytest.mark.parametrize("libfuse", [2, 3])
def test_entries_attributes_and_data_as_libfuse_wants_them(libfuse: int) -> None:
    base = type("FUSE", (), {**dict.fromkeys(METHODS[libfuse]), "fallocate": "its own"})
    made: Any = fuse_class_of(SimpleNamespace(FUSE=base, c_stat=Stat, __name__="x"), libfuse)
    fuse: Any = made.__new__(made)
    assert fuse.fallocate == "its own"
    file = SimpleNamespace(contents=SimpleNamespace(fh=5))
    names = [(b"a", 0o40000, 1), (b"b", 0o100000, 2), (b"c", 0o100000, 3)]
    asked: list[object] = []

    def found(path: str | None, info: object) -> Attributes:
        asked.append((path, info))
        if path == "/no":
            raise FileNotFoundError
        return Attributes(1, 2, 3, 4, 5, 6, 7, 8, 9_000_000_010, -1, 11)

    def read(space: memoryview, offset: int, info: object) -> int:
        assert not space.readonly
        space[:2] = b"ab"
        return len(space) + offset

    def write(space: memoryview, offset: int, info: object) -> int:
        assert space.readonly
        return space.tobytes().count(b"a") + offset

    fuse.operations = SimpleNamespace(
        readdir=lambda fh: names[: fh - 2], getattr=found, read=read, write=write
    )
    filled: list[object] = []

    def filler(buffer: str, name: bytes, entry: Any, *rest: int) -> int:
        filled.append((name, entry.contents.st_mode, entry.contents.st_ino, rest))
        return int(name == b"b")

    listing = fuse.readdir if libfuse == 2 else fuse.readdir_fuse_3
    flags = () if libfuse == 2 else (4,)
    assert listing(b"/", "buffer", filler, 0, file, *flags) == 0
    assert filled == [(*each, (0,) if libfuse == 2 else (0, 0)) for each in names[:2]]
    attributes = fuse.getattr if libfuse == 2 else fuse.getattr_fuse_3
    entry = Stat()
    buffer = SimpleNamespace(contents=entry)
    assert attributes(b"/\xe9", buffer, None) == attributes(None, buffer, file) == 0
    assert attributes(b"/no", buffer) == -errno.ENOENT
    assert asked == [("/\xe9", None), (None, file.contents), ("/no", None)]
    numbers = [getattr(entry, name) for name, kind in Stat._fields_ if kind is not Time]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8]
    times = [(each.tv_sec, each.tv_nsec)
             for each in (entry.st_atimespec, entry.st_mtimespec, entry.st_ctimespec)]  # fmt: skip
    assert times == [(9, 10), (-1, 999_999_999), (0, 11)]
    data = ctypes.create_string_buffer(b"xxaa", 4)
    assert fuse.write(b"/", ctypes.addressof(data), 4, 10, file) == 12
    assert fuse.read(b"/", ctypes.addressof(data), 4, 10, file) == 14
    assert data.raw == b"abaa"
