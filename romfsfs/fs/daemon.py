"""The life of a mount: checks, fork, session, mount, serve, end.

The order is what keeps it safe. Everything that can be checked is checked first. The fork comes
before any thread exists, the session is opened in the daemon, and the mount is made last, so a
failure leaves nothing behind. The parent returns when the kernel has mounted and the daemon
answers, or raises what went wrong. After a crash the mountpoint stays dead ("transport endpoint
is not connected") on purpose: an empty folder would invite a mirroring tool to delete
everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from romfsfs.errors import Interrupted, RomfsError, printable
from romfsfs.fs.binding import Binding, load_binding
from romfsfs.fs.mountpoint import claimed, prepare
from romfsfs.fs.options import fuse_options, parse_extra
from romfsfs.fs.request_loop import END
from romfsfs.system.environment import make_absolute
from romfsfs.system.errors import os_error
from romfsfs.system.files import Progress, no_progress

if TYPE_CHECKING:
    from romfsfs.session.service import SessionHost

log = logging.getLogger(__name__)

#: Opens the session in the daemon, after the fork; may report progress, which the parent shows.
HostFactory = Callable[[Progress], "SessionHost"]
#: Called when the session is open; returns a function to call, with the lines to show the user,
#: once the kernel has mounted.
_Begin = Callable[["SessionHost"], Callable[[list[str]], None]]
_Serve = Callable[[Progress, _Begin], None]

_M_ARENA_MAX = -8  # <malloc.h>

_PROGRESS_SECONDS = 0.05
_COULD_NOT_MOUNT = "could not mount"
#: A session's log that is longer than the first is cut to the second; bytes.
_LOG_LIMIT = 1 << 20
_LOG_KEPT = 1 << 18
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """source: what the mount table shows. extra: values of `-o`, comma-separated lists.
    foreground: serve in this process until unmounted or interrupted. mounted: called in the serving
    process, once mounted and before any request is answered; `mount` returns its lines. failed:
    called there after an error, perhaps one of the factory; the mount may have been made."""

    source: str = "romfsfs"
    allow_other: bool = False
    foreground: bool = False
    extra: tuple[str, ...] = ()
    progress: Progress = no_progress
    mounted: Callable[[], list[str]] = list
    failed: Callable[[], None] = lambda: None


def mount(
    host_factory: HostFactory,
    mountpoint: str | os.PathLike[str],
    options: MountOptions = MountOptions(),
) -> tuple[int, list[str]]:
    """Mount. Returns (the daemon's pid, the lines of `options.mounted`) once the mount answers.

    With `foreground`, returns (0, []) after the unmount. Call it before starting threads: the
    daemon is forked from this process. Raises RomfsError: what a check found, what the factory
    raised, or libfuse's own words; Interrupted at Ctrl-C while mounting.
    """
    binding = load_binding()
    extra = parse_extra(options.extra)
    allow_other = options.allow_other or bool(extra.pop("allow_other", False))
    nonempty = bool(extra.pop("nonempty", False))
    path = prepare(mountpoint, allow_other=allow_other, nonempty=nonempty)

    def serve(progress: Progress, begin: _Begin) -> None:
        try:
            open_and_serve(progress, begin)
        except BaseException:
            with contextlib.suppress(OSError):  # what failed first says more
                options.failed()
            raise

    def open_and_serve(progress: Progress, begin: _Begin) -> None:
        host = host_factory(progress)
        try:
            announce = begin(host)
            with claimed(path, nonempty=nonempty) as release:

                def ready() -> None:
                    said = options.mounted()
                    release()
                    announce(said)

                of_libfuse = fuse_options(
                    binding.libfuse, options.source, extra, read_only=host.read_only,
                    allow_other=allow_other, nonempty=nonempty,
                )  # fmt: skip
                _serve(binding, host, path, of_libfuse, ready)
        finally:
            host.close()

    if options.foreground:
        serve(options.progress, _log_too)
        return 0, []
    return _in_background(serve, path, options.progress)


def _serve(
    binding: Binding, host: SessionHost, path: str, fuse_options: dict[str, str | bool],
    ready: Callable[[], None],
) -> None:  # fmt: skip
    """Mount `path` and serve it until it is unmounted or a signal of `END` arrives.

    Raises what `ready` raises, after unmounting."""
    from romfsfs.fs.adapter import Adapter

    mounted = False
    failed: list[BaseException] = []

    def on_ready() -> None:
        nonlocal mounted
        mounted = True
        try:
            ready()
        except BaseException as error:  # noqa: BLE001 (raised again; libfuse would serve on)
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)  # not `raise_signal`: libfuse 3's threads block it

    # Mounted by root for other users: what they create must belong to them.
    shared = "allow_other" in fuse_options and os.geteuid() == 0
    caller = binding.caller if shared else None
    adapter = Adapter(
        host, caller=caller, requester=binding.caller, ready=on_ready,
        keeps_times="noatime" in fuse_options,
    )  # fmt: skip
    _raise_file_limit()
    _share_one_heap()
    # Our handlers are installed where libfuse is called. For a mount without threads libfuse
    # installs its own, but only over the default action. For SIGINT both bindings set the default
    # and afterwards restore what was there: that must not be the default.
    for number in END:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    try:
        binding.run(adapter, path, fuse_options)
    except RuntimeError as error:
        if not mounted:
            next_step = "remove the -o options that libfuse refuses; see romfsfs doctor"
            raise RomfsError(_COULD_NOT_MOUNT, where=path, next_step=next_step) from error
        # libfuse 3 returns a code after a signal, too; of any other cause it has told itself.
        log.info("libfuse ended with code %s", error)
    finally:
        # Ignored from here on: a second signal would leave running tools behind.
        for number in END:
            signal.signal(number, signal.SIG_IGN)
    if failed:
        raise failed[0]


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed: each file open in the mount takes one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        log.debug("open files: %s raised to %s", soft, hard)


def _share_one_heap() -> None:
    """Limit glibc's malloc to one arena. It gives each thread its own, which keeps its peak size:
    a look at 20,000 files, ten times over. Threads that share the GIL gain nothing by that."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _in_background(serve: _Serve, path: str, progress: Progress) -> tuple[int, list[str]]:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()  # or the daemon would write it a second time
    with _nameless_file() as said, _nameless_file() as noted:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            # Twice: the daemon must not become a zombie of a long-lived caller.
            if os.fork() == 0:
                _daemon(serve, writing, _Captured(said, noted))  # does not return
            os._exit(0)
    os.close(writing)
    with contextlib.suppress(ChildProcessError):  # a caller that ignores SIGCHLD
        os.waitpid(child, 0)
    pid = 0
    with open(reading, "rb") as messages:
        try:
            for line in messages:
                message: dict[str, Any] = json.loads(line)
                if "pid" in message:
                    pid = message["pid"]
                elif "progress" in message:
                    progress(*message["progress"])
                elif "ready" in message:
                    return pid, message["ready"]
                elif "error" in message:
                    raise _rebuilt(message["error"])
        except BaseException as error:
            if pid and not isinstance(error, RomfsError):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("interrupted while mounting", where=path) from None
            raise
    what = "the mount's process ended and gave no reason"
    next_step = "run romfsfs -vv mount --foreground to see what it does"
    raise RomfsError(what, where=path, next_step=next_step)


class _Captured(NamedTuple):
    """What the daemon says until the session's log is known. said: by libfuse, which writes to
    standard error why it cannot mount. noted: by our own log."""

    said: BinaryIO
    noted: BinaryIO


def _nameless_file() -> BinaryIO:
    """In memory if the system can do that: on a full disk no folder takes a temporary file."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("romfsfs"), "w+b")
    return tempfile.TemporaryFile()  # macOS


def _daemon(serve: _Serve, channel: int, captured: _Captured) -> None:
    """Run the forked daemon, then exit: must not return or raise into the code that called."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller may ignore or handle it
        make_absolute()
        os.chdir("/")
        _let_go_of_others({channel, *(file.fileno() for file in captured)})
        _redirect_output(captured)
        send = _Sender(channel)
        send(pid=os.getpid())
        try:
            serve(send.progress, lambda host: _to_log(host, send, captured))
            code = 0
        except RomfsError as error:
            _fail(error, send, captured)
            code = error.exit_code
        except OSError as error:
            log.exception("the mount ended")
            _fail(os_error(error), send, captured)
        except BaseException as error:  # the process boundary: nobody above to tell
            log.exception("the mount ended")
            _fail(RomfsError(f"{type(error).__name__}: {error}"), send, captured)
    finally:
        logging.shutdown()
        os._exit(code)


def _redirect_output(captured: _Captured) -> None:
    """Point standard input at /dev/null, and output at these files."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for number in (1, 2):
        os.dup2(captured.said.fileno(), number)
    level = logging.getLogger().getEffectiveLevel()
    stream = open(  # noqa: SIM115
        captured.noted.fileno(), "w", encoding="utf-8", errors="backslashreplace", buffering=1,
        closefd=False,
    )  # fmt: skip
    sys.stdout = sys.stderr = stream
    logging.raiseExceptions = False  # on a full disk, a report of the failed write is lost too
    logging.basicConfig(
        force=True, handlers=[_LogHandler(stream)], format=_LOG_FORMAT,
        level=min(level, logging.INFO),
    )  # fmt: skip


class _LogHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no [] in Python 3.10
    """Keeps a log file within `_LOG_LIMIT`, and escapes control characters: people read the log
    with `cat`, and names in it must not control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).expandtabs().split("\n")))

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError):
            shorten(self.stream.fileno())


def _log_too(host: SessionHost) -> Callable[[list[str]], None]:
    """In the foreground: log to the session's log too; standard error gets no more than before.
    Raises OSError if the log cannot be opened."""
    if host.log_file is not None:
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(logging.StreamHandler())  # as logging does where there is none
        for handler in root.handlers:
            handler.setLevel(max(handler.level, root.getEffectiveLevel()))
        stream = open(host.log_file, "a+", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        handler = _LogHandler(stream)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        root.addHandler(handler)
        root.setLevel(min(root.getEffectiveLevel(), logging.INFO))
    return lambda _: None


def shorten(fd: int) -> None:
    """Cut a log, open for reading and appending, to its last `_LOG_KEPT` bytes if it exceeds
    `_LOG_LIMIT`: mounts last for months. Files not open for appending are left alone."""
    size = os.fstat(fd).st_size
    if size > _LOG_LIMIT and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        kept = os.pread(fd, _LOG_KEPT, size - _LOG_KEPT)
        os.ftruncate(fd, 0)
        os.write(fd, kept[kept.find(b"\n") + 1 :])


def _let_go_of_others(ours: set[int]) -> None:
    """Replace inherited descriptors but these by /dev/null: a lock on one would last as long as the
    mount, and a program at the other end of a pipe would wait as long.

    The numbers stay taken: a caller's object that closes its descriptor must not close ours.
    """
    null = os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(OSError):  # no such folder: no /proc in a container
        for fd in map(int, os.listdir("/dev/fd")):
            if fd not in {0, 1, 2, null, *ours}:
                with contextlib.suppress(OSError):  # that of the listing itself, closed by now
                    os.fstat(fd)
                    os.dup2(null, fd, inheritable=False)
    os.close(null)


def _to_log(host: SessionHost, send: _Sender, captured: _Captured) -> Callable[[list[str]], None]:
    """Open the session's log while the mount can still be refused. Raises OSError.

    Returns the function to call once the kernel has mounted: it redirects output to the log."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    path = os.devnull if host.log_file is None else host.log_file
    target = os.open(path, flags, 0o600)

    def ready(said: list[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk loses what was captured, not the mount
            for file in (captured.noted, captured.said):
                os.write(target, _all_of(file))
        for number in (1, 2):
            os.dup2(target, number)
        os.dup2(target, captured.noted.fileno(), inheritable=False)
        os.close(target)
        shorten(2)
        captured.said.close()
        send(ready=said)
        send.close()

    return ready


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _fail(error: RomfsError, send: _Sender, captured: _Captured) -> None:
    said = noted = ""
    if not captured.said.closed:
        said, noted = (_all_of(file).decode("utf-8", "replace").strip() for file in captured)
    detail = "\n".join(filter(None, (error.detail, noted, said)))
    if said and error.what == _COULD_NOT_MOUNT:
        error.what = f"{error.what}: {said.splitlines()[0]}"  # libfuse's own words
    log.error("%s", error.line)
    send(error={
        "type": [type(error).__module__, type(error).__qualname__], "what": error.what,
        "where": error.where, "next_step": error.next_step, "detail": detail,
    })  # fmt: skip
    send.close()


class _Sender:
    """Sends messages to the parent, one JSON object per line. Silent once the parent has gone."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._last = ("", 0.0)

    def __call__(self, **message: Any) -> None:
        if self._channel >= 0:
            with contextlib.suppress(OSError):
                os.write(self._channel, json.dumps(message).encode() + b"\n")

    def progress(self, phase: str, done: int, total: int) -> None:
        """A `Progress` that passes on one report in `_PROGRESS_SECONDS`, and each phase's ends."""
        now = time.monotonic()
        last_phase, when = self._last
        if phase != last_phase or done >= total or now - when >= _PROGRESS_SECONDS:
            self._last = phase, now
            self(progress=[phase, done, total])

    def close(self) -> None:
        channel, self._channel = self._channel, -1
        if channel >= 0:
            os.close(channel)


def _rebuilt(fields: dict[str, Any]) -> RomfsError:
    """The daemon's error in this process: same class (and so exit code), same words. Only the
    daemon may have imported the module that defines it."""
    module, name = fields.pop("type")
    kind = getattr(importlib.import_module(module), name)
    error: RomfsError = kind.__new__(kind)
    RomfsError.__init__(error, **fields)
    return error
