"""Many writers, many files, large files, many mounts: no error, and nothing that grows.

The same load comes several times: what the daemon holds after the first time it may hold after
the last. `$ROMFSFS_LONG` is seconds for each kind of writer, and makes thousands of files 20,000,
megabytes a gigabyte, a few mounts 200.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import ended, until
from real_mount import LONG, RealMount

Record = Callable[[str, object], None]

ROUNDS = 3
MIB = 1 << 20

#: What libfuse keeps waiting (10 in both versions) and one that it ends with its next request; the
#: main thread, the one that waits for signals, the workers.
THREADS = 10 + 1 + 2 + min(4, os.cpu_count() or 1)

#: Stressors of stress-ng that concern files and folders. Not those of what a ROMFS mount refuses
#: (link, symlink, mknod, xattr, acl, chattr, verity) or has none of (fiemap, quotas, bind mounts).
STRESSORS = [
    "access", "chdir", "chmod", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "dup",
    "fallocate", "fcntl", "filename", "flock", "fpunch", "fstat", "getdent", "hdd", "inotify",
    "iomix", "lease", "locka", "lockf", "lockofd", "metamix", "mmap", "open", "readahead",
    "rename", "revio", "seek", "sendfile", "splice", "sync-file", "touch", "unlink", "utime",
]  # fmt: skip
#: Without dir and dentry, which tidy up for several times as long as they run.
SHORT = ["chmod", "copy-file", "dirdeep", "filename", "fstat", "hdd", "iomix", "rename", "touch",
         "utime"]  # fmt: skip

pytestmark = pytest.mark.timeout(3600 if LONG else 300)


class Watch:
    """What a daemon holds, after each round of a load."""

    def __init__(self, mounted: RealMount, record: Record) -> None:
        self.mounted, self.record = mounted, record
        self.seen: list[tuple[int, int, int]] = []

    def look(self) -> None:
        (self.mounted.mnt / ".romfs/status").read_bytes()  # what it opens, it opens for good
        found = self.mounted.descriptors(), self.mounted.threads(), self.mounted.memory()
        self.seen.append(found)
        for name, value in zip(("descriptors", "threads"), found, strict=False):
            self.record(f"peak_{name}", value)
        self.record("peak_daemon_MiB", found[2] / MIB)

    def assert_flat(self, slack: int) -> None:
        """slack: bytes that the memory may grow by: allocators fill gaps as they find them."""
        descriptors, threads, memory = zip(*self.seen, strict=True)
        shown = [(d, t, f"{m / MIB:.1f} MiB") for d, t, m in self.seen]
        assert max(descriptors) - descriptors[0] <= 2, shown  # a directory, the base's image
        assert max(threads) <= THREADS, shown
        assert memory[-1] - memory[0] <= slack, shown
        self.record("memory_growth_KiB", (memory[-1] - memory[0]) / 1024)


def run(*command: object, timeout: float = 600) -> str:
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def stress(folder: Path) -> int:
    """stress-ng's file stressors in a folder, checking what they read; how many kinds."""
    program = "stress-ng"
    known = set(run(program, "--stressors").split())  # versions differ in what there is
    chosen = [each for each in (STRESSORS if LONG else SHORT) if each in known]
    assert len(chosen) >= 0.9 * len(STRESSORS if LONG else SHORT)
    groups = [chosen] if not LONG else [chosen[at : at + 4] for at in range(0, len(chosen), 4)]
    workers, seconds = (2, max(2, LONG // len(groups))) if LONG else (1, 1)
    for group in groups:
        words = [word for each in group for word in (f"--{each}", workers)]
        run(
            program, "--temp-path", folder, *words, "--timeout", f"{seconds}s", "--verify",
            timeout=seconds + 300,
        )  # fmt: skip
    return len(chosen)


@pytest.mark.program("stress-ng")
def test_many_writers(place: RealMount, record_property: Record) -> None:
    place.mount()
    watch = Watch(place, record_property)
    for _ in range(ROUNDS):
        folder = place.mnt / "load"
        folder.mkdir()
        record_property("stressor_runs", stress(folder))
        assert place.complaints() == []
        run("rm", "-r", folder)
        watch.look()
    watch.assert_flat(slack=3 * MIB)
    place.umount()


if LONG:  # fio's installation is ten times as large as all others

    @pytest.mark.parametrize("engine", ["psync", "mmap"])
    def test_fio_reads_what_it_wrote(
        place: RealMount, engine: str, record_property: Record
    ) -> None:
        """Four processes write blocks of many sizes at random and read them back, checked."""
        place.mount()
        watch = Watch(place, record_property)
        for _ in range(ROUNDS):
            said = run(
                "fio", "--output-format=json", f"--directory={place.mnt}", "--numjobs=4",
                "--name=load", "--rw=randrw", "--bsrange=4k-160k", "--size=64m", "--end_fsync=1",
                f"--ioengine={engine}", "--time_based", f"--runtime={LONG}", "--verify=crc32c",
                "--verify_backlog=256", "--verify_state_save=0", "--fallocate=none",
                timeout=LONG + 300,
            )  # fmt: skip
            for job in json.loads(said[said.index("{") :])["jobs"]:
                record_property("fio_MiB_written", job["write"]["io_bytes"] / MIB)
                assert job["error"] == 0
            assert place.complaints() == []
            run("sh", "-c", f"rm {place.mnt}/load*")
            watch.look()
        # Each of libfuse 3's ten threads has a buffer of 1 MiB, touched as far as its writes go.
        buffers = 10 if place.env["ROMFSFS_FUSE"] == "mfusepy" else 0
        watch.assert_flat(slack=(3 + buffers) * MIB)
        place.umount()


def test_thousands_of_files(
    make_mount: Callable[..., RealMount], tmp_path: Path, record_property: Record
) -> None:
    """Made, listed, committed and removed, again and again."""
    count = 20_000 if LONG else 500
    for number in range(count):
        folder = tmp_path / f"tree/d{number // 100:03}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number:05}.txt").write_text(f"{number:050}")
    place = make_mount().mount()
    watch = Watch(place, record_property)
    for _ in range(ROUNDS):
        run("cp", "-r", tmp_path / "tree", place.mnt / "tree")
        assert run("find", place.mnt, "-type", "f").count("\n") == count
        status = json.loads((place.mnt / ".romfs/status.json").read_text())
        assert sum(entry["path"].endswith(".txt") for entry in status["entries"]) == count
        with asking(place.mnt) as waits:
            (place.mnt / ".romfs/ctl").write_text("commit")
        record_property("peak_stat_ms_while_committing_files", max(waits) * 1000)
        run("diff", "-r", tmp_path / "tree", place.mnt / ".romfs/base/tree")
        record_property("files_committed", count)
        watch.look()  # while it holds most: what it holds of that later is a matter of gaps
        run("rm", "-r", place.mnt / "tree")
        (place.mnt / ".romfs/ctl").write_text("commit")
        assert place.stored() == {}
        assert place.complaints() == []
    # Python's objects take the same to the kilobyte (gdb: sys._debugmallocstats); how much memory
    # that is depends on how many looks at the whole tree met.
    watch.assert_flat(slack=watch.seen[0][2] // 3 if LONG else 4 * MIB)
    place.umount()


@contextmanager
def asking(folder: Path) -> Iterator[list[float]]:
    """Someone asks for names all the while; how long each answer took, in seconds.

    In a process of its own: a thread of this one would wait for the test.
    """
    script = """if True:
        import os, sys, time
        while True:
            begun = time.perf_counter()
            os.path.exists(sys.argv[1] + "/no such file")
            print(time.perf_counter() - begun, flush=True)
            time.sleep(0.005)
    """
    waits: list[float] = []
    with tempfile.TemporaryFile("w+") as said:
        asker = subprocess.Popen([sys.executable, "-c", script, folder], stdout=said)
        until(lambda: os.fstat(said.fileno()).st_size)
        try:
            yield waits
        finally:
            asker.terminate()
            asker.wait(30)
        said.seek(0)
        waits += map(float, said.read().split())


@pytest.mark.mount
def test_a_large_file(tmp_path: Path, record_property: Record) -> None:
    """One of bytes and one of holes, committed and read back, while others use the mount."""
    size = 1024 * MIB if LONG else 24 * MIB
    # Not where the others are: five copies of both are more than memory should be asked for.
    place = RealMount(Path(tempfile.mkdtemp(dir=tmp_path)))
    try:
        place.mount()
        block = os.urandom(MIB)
        with (place.mnt / "bytes.bin").open("wb", 0) as file:
            for number in range(size // MIB):
                file.write(number.to_bytes(8, "little") + block[8:])
        with (place.mnt / "holes.bin").open("wb", 0) as file:
            file.truncate(size - 7)
            file.seek(size // 2)
            file.write(b"here")
        with asking(place.mnt) as waits:
            (place.mnt / ".romfs/ctl").write_text("commit")
        record_property("peak_stat_ms_while_committing_bytes", max(waits) * 1000)
        assert max(waits) < 5, f"the mount stood still: {max(waits):.1f} s"
        for tree in (place.mnt, place.mnt / ".romfs/base", place.mnt / ".romfs/shadow"):
            _are_the_bytes(tree / "bytes.bin", size, block)
            with (tree / "holes.bin").open("rb") as file:
                file.seek(size // 2)
                assert file.read(5) == b"here\0"
                assert os.fstat(file.fileno()).st_size == size - 7
        place.run("verify", place.image)
        assert place.complaints() == []
        status = Path(f"/proc/{place.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) >> 10
        record_property("peak_daemon_MiB", peak)
        assert peak < 80
        place.umount()
        place.mount()
        _are_the_bytes(place.mnt / "bytes.bin", size, block)
        place.umount()
    finally:
        place.remove()


def _are_the_bytes(path: Path, size: int, block: bytes) -> None:
    with path.open("rb", 0) as file:
        for number in range(size // MIB):
            assert file.read(MIB) == number.to_bytes(8, "little") + block[8:], (path, number)
        assert not file.read(1)


def test_mounted_again_and_again(
    make_mount: Callable[..., RealMount], record_property: Record
) -> None:
    """Nothing stays: no process, no mount, no file of the session's."""
    place = make_mount()
    times = 200 if LONG else 4
    first: set[str] = set()
    for number in range(times):
        place.mount()
        pid = place.pid
        (place.mnt / f"f{number % 3}").write_text(str(number))
        if number % 2:
            place.run("commit", place.mnt)
        place.umount()
        assert ended(pid)
        assert not place.is_mounted
        left = {path.name for path in place.session.iterdir()}
        first = first or left
        if not number % 2:
            assert left <= first | {"history"}
    record_property("mounts", times)


def test_ten_mounts_at_once(make_mount: Callable[..., RealMount], record_property: Record) -> None:
    """Mounted together, written and committed together, unmounted together."""
    places = [make_mount(("fusepy", "mfusepy")[n % 2]) for n in range(10 if LONG else 4)]

    def use(number: int) -> None:
        place = places[number]
        for turn in range(200 if LONG else 20):
            (place.mnt / f"f{turn}").write_bytes(b"%d %d" % (number, turn))
        (place.mnt / "app.py").write_text(f"x = {number}\n")
        place.run("commit", place.mnt)
        assert place.stored()["f7"] == b"%d 7" % number
        assert (place.mnt / "f7").read_bytes() == b"%d 7" % number

    with ThreadPoolExecutor(len(places)) as together:
        list(together.map(RealMount.mount, places))
        pids = [place.pid for place in places]
        list(together.map(use, range(len(places))))
        assert [place.complaints() for place in places] == [[]] * len(places)
        list(together.map(RealMount.umount, places))
    assert all(map(ended, pids))
    record_property("mounts_at_once", len(places))
