"""Every fuzz target: a function that takes any bytes and must end quietly.

A target raises only where there is a fault: the errors that its subject documents are caught in
it. The same functions run under atheris (`scripts/fuzz`) and, for a moment each, as ordinary
tests (`test_fuzz.py`). A new parser of anything that comes from outside gets a target here.
"""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fuzz_camera
import fuzz_images
import fuzz_outputs
from fuzz_images import SCRATCH

from romfsfs.boards import boards
from romfsfs.convert import cascade_xml, haar, mpy
from romfsfs.convert.cache import Cache
from romfsfs.convert.flatbuffer import ModelError, read_model
from romfsfs.devices.bootloader import blhost, dfu_util
from romfsfs.errors import DeviceError, RomfsError, UsageError
from romfsfs.fs.control import ControlDirectory
from romfsfs.ide import archive, defaults
from romfsfs.session.keep import history
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.locks import _read_record
from romfsfs.session.keep.state import Base, SessionInfo, dump
from romfsfs.session.rebase.record import Record
from romfsfs.system.runner import Outcome
from romfsfs.zoo import sources
from romfsfs.zoo.index import parse_index
from romfsfs.zoo.members import describe

Target = Callable[[bytes], None]


def model(data: bytes) -> None:
    """The operators of a TFLite model; reads bounded by the size of the file."""
    reads = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert 0 <= offset <= len(data)
        assert 0 <= size <= len(data) + 8
        return data[offset : offset + size]

    with contextlib.suppress(ModelError):
        read_model(read, len(data))
    assert reads < 40_000 + 10 * len(data)


def cascade(data: bytes) -> None:
    """OpenCV's XML."""
    cascade_xml.sniff(lambda at, size: data[at : at + size], len(data))
    with contextlib.suppress(cascade_xml.CascadeError):
        assert len(haar.convert_cascade(data).data) >= 12


def mpy_header(data: bytes) -> None:
    header = mpy.parse_header(data)
    if header is not None:
        assert "\n" not in mpy.mismatch(header, (6, 3))
        assert all(mpy.runs(header.architecture, on) in (True, False) for on in mpy.ARCHITECTURES)
        mpy.version_text(header.version, header.native)


def dfu_list(data: bytes) -> None:
    """What dfu-util lists: devices say their own names in it."""
    text = data.decode("utf-8", "replace")
    listing = dfu_util.parse_list(text)
    dfu_util.percentage(text)
    for board in boards().values():
        for partition in board.partitions:
            with contextlib.suppress(DeviceError):
                setting = dfu_util.choose_setting(listing, board, partition)
                for word in dfu_util.read_argv("dfu-util", setting, "/file", length=1)[1:-1]:
                    assert (
                        word[0] == "-" or word.translate({ord(c): None for c in ",:.-"}).isalnum()
                    )


def blhost_output(data: bytes) -> None:
    blhost.succeeded(Outcome(0, data.decode("utf-8", "replace"), False, 1.0))


def session_state(data: bytes) -> None:
    """The state files of a session, the lock's record, the log's and the cache's."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        folder = Path(name)
        for file in ("session.json", "base.json", "rebase.json", "lock"):
            (folder / file).write_bytes(data)
        loads: tuple[Callable[[], object], ...] = (
            lambda: dump(SessionInfo.load(folder / "session.json")),
            lambda: dump(Base.load(folder / "base.json")),
            lambda: Record.load(SessionFolder(folder)),
        )
        for load in loads:
            with contextlib.suppress(RomfsError):
                load()
        with open(folder / "lock", "rb") as lock:
            holder = _read_record(lock.fileno())
            assert isinstance(holder.pid, int)
        (folder / "history").mkdir()
        (folder / "history" / "000000.json").write_bytes(data)
        (folder / "history" / "000000.img").write_bytes(b"")
        for entry in history.entries(SessionFolder(folder)):
            assert isinstance(entry.number, int)
        key = "ab" * 32
        results = folder / "results" / key[:2]
        results.mkdir(parents=True)
        (results / f"{key}.json").write_bytes(data)
        (results / f"{key}.bin").write_bytes(b"")
        found = Cache(folder).get(key)
        assert found is None or isinstance(found.diagnostics, tuple)


def zoo_index(data: bytes) -> None:
    """`index.csv`. The patterns themselves are not run: see `romfsfs.zoo`, trust."""
    with contextlib.suppress(RomfsError):
        parse_index(data.decode("utf-8", "replace"), "fuzz")


def zoo_page(data: bytes) -> None:
    """A model's `index.html`, as large as one may be: two lines of text, in linear time."""
    for text in describe(data):
        assert "\n" not in text
        assert len(text) <= len(data)


def zip_file(data: bytes) -> None:
    """A zip as a zoo, and as a firmware release; what is read never exceeds what it declares."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        path = Path(name, "firmware_v4.5.6.zip")
        path.write_bytes(data)
        os.environ["ROMFSFS_CACHE_DIR"] = str(Path(name, "cache"))
        with contextlib.suppress(RomfsError):
            zoo = sources.ZipZoo(archive.local_zip(path))
            for member in list(zoo.catalog().members.values())[:5]:
                if member.size < 1 << 20:
                    with contextlib.suppress(RomfsError):
                        fd = zoo.open(member.path)
                        assert os.fstat(fd).st_size == member.size
                        os.close(fd)
        if archive.is_zip(path):
            with contextlib.suppress(RomfsError, UsageError):
                board = boards()["OPENMV4"]
                for image in defaults.find_defaults(board, 0, path):
                    assert len(image.read()) <= board.partition(0).size
        assert sorted(os.listdir(name)) in (["cache", path.name], [path.name])


class _Host:
    """A session's side of the control directory that takes the command `commit`."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def base(self) -> Any:
        return SimpleNamespace(
            stat=lambda path: (True, 0, 0) if path == "" else None,
            list=lambda path: {"": []}[path],
            open={}.__getitem__,
        )

    shadow = base

    def zoo(self) -> None:
        return None

    def status_text(self, open_writers: Callable[[], list[str]]) -> str:
        return "clean\n"

    def status_json(self, open_writers: Callable[[], list[str]]) -> str:
        return "{}"

    def status_html(self, open_writers: Callable[[], list[str]]) -> str:
        return f"<p>{len(open_writers())} writers\n"

    def log_text(self) -> str:
        return ""

    def control(self, command: str, open_writers: Callable[[], list[str]]) -> None:
        assert "\n" not in command
        assert command.strip()
        self.commands.append(command)
        if command != "commit":
            raise UsageError(f"unknown command {command!r}")


def control(data: bytes) -> None:
    """What is written to `.romfs/ctl`, in pieces, and any path below `.romfs`."""
    host = _Host()
    directory = ControlDirectory(host, list)  # type: ignore[arg-type]
    handle = directory.open("/.romfs/ctl", os.O_WRONLY)
    for piece in data.split(b"\xfd"):
        with contextlib.suppress(RomfsError, OSError):
            directory.file(handle).write(piece)
        assert len(directory.file(handle)._pending) <= 4096  # type: ignore[attr-defined]
    with contextlib.suppress(RomfsError, OSError):
        directory.file(handle).flush()
    directory.close(handle)
    path = "/.romfs/" + data[:200].decode("latin-1").replace("\0", "")
    with contextlib.suppress(OSError):
        directory.attributes(path)
        directory.close(directory.open(path, os.O_RDONLY))
    with contextlib.suppress(OSError):
        directory.close_dir(directory.open_dir(path))


#: What a target may take: so much, and so much for each byte of its input. CPU seconds (under
#: atheris everything is some ten times slower) and bytes of memory.
SECONDS, SECONDS_PER_BYTE = 4.0, 1e-4
MEMORY, MEMORY_PER_BYTE = 128 << 20, 1 << 10


def bounded(target: Target) -> Target:
    """The target, which fails when it takes more than is in proportion to its input."""

    def run(data: bytes) -> None:
        started, memory = time.process_time(), _most_memory()
        target(data)
        taken = time.process_time() - started
        assert taken < SECONDS + len(data) * SECONDS_PER_BYTE, f"{taken:.1f} s"
        grown = _most_memory() - memory
        assert grown < MEMORY + len(data) * MEMORY_PER_BYTE, f"{grown:,} bytes of memory"

    return run


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


_TARGETS: dict[str, Target] = {
    "image": fuzz_images.image,
    "layout": fuzz_images.layout,
    "varuint": fuzz_images.number,
    "model": model,
    "cascade": cascade,
    "mpy_header": mpy_header,
    "repl": fuzz_camera.raw_repl,
    "transfers": fuzz_camera.transfers,
    "camera": fuzz_camera.camera,
    "facts": fuzz_camera.facts,
    "dfu_list": dfu_list,
    "blhost": blhost_output,
    "session_state": session_state,
    "zoo_index": zoo_index,
    "zoo_page": zoo_page,
    "zip": zip_file,
    "summary": fuzz_outputs.summary,
    "tool_output": fuzz_outputs.tool_output,
    "settings": fuzz_outputs.settings,
    "control": control,
}
TARGETS = {name: bounded(target) for name, target in _TARGETS.items()}
