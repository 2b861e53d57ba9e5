"""Fixtures that more than one part's tests use, and the two tiers of tests (`needs.py`)."""

from __future__ import annotations

import contextlib
import difflib
import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import needs
import pytest
from transcripts import Teller

CHECKOUT = Path(__file__).parent.parent
#: the marks that come with a fixture
MARKS = {
    "fuse_device": pytest.mark.mount,
    "micropython": pytest.mark.camera,
    "micropython64": pytest.mark.camera("64"),
}
#: the variables that change what programs do or print, by their beginnings
UNWANTED = (
    "PYTHON", "ROMFSFS_", "XDG_", "LC_", "GIT_", "DBUS_", "DISPLAY", "WAYLAND_", "PAGER", "LESS",
    "MANPAGER", "MANWIDTH", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "EDITOR",
    "VISUAL", "BASH_ENV", "ENV", "CDPATH", "STEDGEAI_", "UMASK", "SUDO_", "FUSE_", "SOURCE_DATE",
)  # fmt: skip
#: and those that are for the tests
OURS = ("ROMFSFS_LONG", "ROMFSFS_ROUND", "ROMFSFS_TEST_DATA", "ROMFSFS_TEST_CACHE")
#: tests that are not run, by the reason
LEFT_OUT: pytest.StashKey[Counter[str]] = pytest.StashKey()


def _make_environment_known() -> None:
    """Nothing of who started the tests decides about them: neither a variable, nor signals that
    are ignored (nohup, a shell's background) or blocked, nor a umask."""
    for name in list(os.environ):
        if name.startswith(UNWANTED) and name not in OURS:
            del os.environ[name]
    os.environ |= {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
    os.environ["ROMFSFS_CONFIG_DIR"] = "/nonexistent"  # boards of whoever runs the tests
    os.umask(0o022)
    if threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


_make_environment_known()
# How long examples take says how busy the machine is.
hypothesis.settings.register_profile(
    "romfsfs", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("romfsfs")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only what needs Python and libfuse")
    parser.addoption(
        "--update-transcripts", action="store_true", help="write what commands print anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, mark in MARKS.items():
            if fixture in fixtures:
                item.add_marker(mark)
        if os.geteuid() != 0 and (root := item.get_closest_marker("root")):
            item.add_marker(pytest.mark.skip(reason=f"only root can {root.args[0]}"))
    quick = config.getoption("quick")
    reasons = [needs.left_out(item, quick=quick) for item in items]
    config.stash[LEFT_OUT].update(reason for reason in reasons if reason)
    if gone := [item for item, reason in zip(items, reasons, strict=True) if reason]:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item, reason in zip(items, reasons, strict=True) if not reason]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:  # a worker of xdist tells who started it
        output["left_out"] = dict(config.stash[LEFT_OUT])
    elif config.stash[LEFT_OUT] and not config.getoption("quick") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # everything was asked for


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Each worker collects all tests, so one of them knows.
    node.config.stash[LEFT_OUT] |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for reason, count in config.stash[LEFT_OUT].most_common():
        terminalreporter.write_line(f"left out: {count:4} tests: {reason}")
    if config.stash[LEFT_OUT] and config.getoption("quick"):
        terminalreporter.write_line("scripts/test --all runs everything")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """No descriptor of a file below a test's folder stays open: a daemon lives for months."""
    used: dict[str, Any] = getattr(item, "funcargs", {})
    folder = used.get("tmp_path")
    for thread in threading.enumerate():
        # It waits for the disk, and then asks where this user's state is: it is this test's yet.
        if thread.name == "romfsfs-tidy":
            thread.join(60)
    yield
    used.clear()  # what fixtures gave goes too
    if folder is None or hasattr(sys, "last_type"):  # the traceback of a failure keeps its objects
        return
    end = time.monotonic() + 60  # a thread may still wait for a busy disk to sync
    while (left := _open_below(folder)) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert left == [], f"left open: {left}"


def _open_below(folder: Path) -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError):  # macOS has no /proc
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{fd}")
                found += [path] if path.startswith(f"{folder}/") else []
    return found


@pytest.fixture(autouse=True)
def _only_marked_tests_mount(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be mounted, quick tests without the mark `mount` are run all the same."""
    if not any(mark.name in {"mount", *needs.NOT_QUICK} for mark in request.node.iter_markers()):
        monkeypatch.setenv("FUSE_LIBRARY_PATH", "/this/test/lacks/the/mark/mount.so")


@pytest.fixture(autouse=True)
def _phases_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints does not depend on how busy the machine is."""
    monkeypatch.setattr("romfsfs.cli.output._SHOWN_AFTER_SECONDS", float("inf"))


@pytest.fixture
def retell(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> Iterator[Callable[..., None]]:  # fmt: skip
    """`retell(file)`: what the commands of a transcript print is what is written there. places:
    more that differs from run to run, each with the name that stands for it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROMFSFS_PORTS", os.environ.get("ROMFSFS_PORTS", ""))
    teller = Teller(tmp_path, tmp_path_factory.mktemp("bin"), capfd)

    def call(file: Path, places: Mapping[str, str] | None = None) -> None:
        written = file.read_text("utf-8")
        now = teller.tell(written, places or {})
        if request.config.getoption("update_transcripts"):
            file.write_text(now, "utf-8")
        else:
            told = difflib.unified_diff(written.splitlines(), now.splitlines(), lineterm="")
            if lines := list(told):
                pytest.fail("\n".join(["--update-transcripts?", *lines]), pytrace=False)

    yield call
    teller.close()


@pytest.fixture(scope="session")
def fuse_device() -> None:
    """Asked for by what mounts for real: its tests are marked `mount`."""


@pytest.fixture(scope="session")
def micropython() -> Path:
    """An executable MicroPython with VfsRom, the firmware's own ROMFS reader: of 32 bits, as the
    cameras', where this machine can run that. Its tests are marked `camera`."""
    return _get_micropython()


@pytest.fixture(scope="session")
def micropython64() -> Path:
    """The same of 64 bits, for samples of what runs on 32."""
    return _get_micropython("64")


def _get_micropython(*bits: str) -> Path:
    found, why = needs.micropython(*bits)
    assert found is not None, why
    return found


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """A folder of real images and models beside the checkout, or None; never a reason to skip.

    `$ROMFSFS_TEST_DATA` names another place.
    """
    place = Path(os.environ.get("ROMFSFS_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    return place if place.is_dir() else None
