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
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from romfsfs.errors import Interrupted, RomfsError
from romfsfs.fs.binding import Binding, load_binding
from romfsfs.fs.messages import Sender, rebuilt
from romfsfs.fs.mountpoint import claimed, prepare
from romfsfs.fs.options import fuse_options, parse_extra
from romfsfs.fs.output import Captured, all_of, log_too, nameless_file, redirect_output, to_log
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

_COULD_NOT_MOUNT = "could not mount"


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
        serve(options.progress, log_too)
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
    with nameless_file() as said, nameless_file() as noted:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            # Twice: the daemon must not become a zombie of a long-lived caller.
            if os.fork() == 0:
                _daemon(serve, writing, Captured(said, noted))  # does not return
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
                    raise rebuilt(message["error"])
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


def _daemon(serve: _Serve, channel: int, captured: Captured) -> None:
    """Run the forked daemon, then exit: must not return or raise into the code that called."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller may ignore or handle it
        make_absolute()
        os.chdir("/")
        _let_go_of_others({channel, *(file.fileno() for file in captured)})
        redirect_output(captured)
        send = Sender(channel)
        send(pid=os.getpid())
        try:
            serve(send.progress, lambda host: to_log(host, send, captured))
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


def _fail(error: RomfsError, send: Sender, captured: Captured) -> None:
    said = noted = ""
    if not captured.said.closed:
        said, noted = (all_of(file).decode("utf-8", "replace").strip() for file in captured)
    detail = "\n".join(filter(None, (error.detail, noted, said)))
    if said and error.what == _COULD_NOT_MOUNT:
        error.what = f"{error.what}: {said.splitlines()[0]}"  # libfuse's own words
    log.error("%s", error.line)
    send(error={
        "type": [type(error).__module__, type(error).__qualname__], "what": error.what,
        "where": error.where, "next_step": error.next_step, "detail": detail,
    })  # fmt: skip
    send.close()
