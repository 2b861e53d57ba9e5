"""Finding and running the external tools of this package: dfu-util and blhost.

One place runs them: in a folder of their own, with an environment of a few names, without input,
with limits of time, memory and file size. Everything else only builds argument lists and reads
output, as pure functions. Times in seconds.
"""

from __future__ import annotations

import contextlib
import os
import platform
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from romfsfs.errors import DeviceError, DeviceLost
from romfsfs.system.programs import find_on_path, search_path

#: what installs dfu-util, by the names in /etc/os-release (ID, then ID_LIKE)
_INSTALLERS = {
    "debian": "sudo apt install {}",
    "ubuntu": "sudo apt install {}",
    "fedora": "sudo dnf install {}",
    "rhel": "sudo dnf install {}",
    "arch": "sudo pacman -S {}",
    "suse": "sudo zypper install {}",
    "opensuse": "sudo zypper install {}",
    "alpine": "sudo apk add {}",
}


#: what a tool may know of our environment: where programs, libraries and its own packages are
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "LOCALAPPDATA", "APPDATA")
#: bytes: address space (blhost is a Python program with large packages), and of any file
_MEMORY, _FILE = 4 << 30, 1 << 30
#: bytes of output that are kept, the last ones
_MOST_OUTPUT = 1 << 20


#: Is given pieces of a tool's output as they come. May return how many seconds it has from then
#: on; what `limit` allows stays the most.
OnOutput = Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool left behind. output: standard output and error together, as they came."""

    argv: tuple[str, ...]
    status: int
    output: str


def find_tool(name: str, install: str | None = None) -> str:
    """The tool's path. DeviceError with the command that installs it when it is not there.

    install: that command, where it is not the system's package manager's.
    """
    found = find_on_path(name)
    if found is None:
        raise DeviceError(f"{name} is not installed", next_step=install or install_command(name))
    return found


def install_command(package: str, os_release: str | None = None) -> str:
    """The command that installs a package on this system. os_release: that file's text."""
    if platform.system() == "Darwin":
        return f"brew install {package}"
    if os_release is None:
        os_release = ""
        with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
            os_release = file.read()
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    names = [fields.get("ID", "").strip('"'), *fields.get("ID_LIKE", "").strip('"').split()]
    for name in names:
        if name in _INSTALLERS:
            return _INSTALLERS[name].format(package)
    return f"install {package} with your system's package manager"


def run_tool(
    argv: Sequence[str],
    *,
    limit: float,
    on_output: OnOutput | None = None,
) -> ToolResult:
    """Run a tool to its end. DeviceLost when it takes longer than `limit`.

    Its paths must be absolute: it runs in an empty folder. It gets no input. It and its children
    are killed at the limit and on Ctrl-C, which goes on to the caller.
    """
    with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
        process = subprocess.Popen(
            list(argv),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(folder),
        )
        _limit_memory(process.pid)
        return _follow(process, argv, limit, on_output)


def _environment(folder: str) -> dict[str, str]:
    """No secrets of the user's shell."""
    known = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**known, "PATH": search_path(), "LC_ALL": "C", "TMPDIR": folder, "TMP": folder}


def _limit_memory(pid: int) -> None:
    """On the running child: `preexec_fn` can deadlock in a program with threads. Linux only."""
    try:
        import resource

        prlimit = resource.prlimit
    except (ImportError, AttributeError):
        return
    limits = (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_FSIZE, _FILE),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, value in limits:
        # gone already, or a lower limit is in force; a setuid tool may not be limited by us
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            prlimit(pid, kind, (value, value))


def _follow(
    process: subprocess.Popen[bytes],
    argv: Sequence[str],
    limit: float,
    on_output: OnOutput | None,
) -> ToolResult:
    assert process.stdout is not None
    output = bytearray()
    started = time.monotonic()
    deadline = started + limit
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise subprocess.TimeoutExpired(list(argv), limit)
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    break
                output += piece
                if len(output) > 2 * _MOST_OUTPUT:
                    del output[:-_MOST_OUTPUT]
                left_now = on_output(piece.decode("utf-8", "replace")) if on_output else None
                if left_now is not None:
                    deadline = min(started + limit, time.monotonic() + left_now)
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise DeviceLost(
            f"{os.path.basename(argv[0])} did not finish within {time.monotonic() - started:.0f} s",
            next_step="unplug the camera, plug it in again and repeat the command",
            detail=_describe(argv, output),
        ) from error
    except BaseException:
        _kill(process)
        raise
    finally:
        process.stdout.close()
    return ToolResult(tuple(argv), status, output.decode("utf-8", "replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _describe(argv: Sequence[str], output: bytes | bytearray) -> str:
    return " ".join(argv) + "\n" + output.decode("utf-8", "replace")


def failed(result: ToolResult, what: str, next_step: str) -> DeviceError:
    """The error for a tool that ended with something else than success."""
    return DeviceError(
        f"{os.path.basename(result.argv[0])} could not {what} (status {result.status})",
        next_step=next_step,
        detail=" ".join(result.argv) + "\n" + result.output,
    )
