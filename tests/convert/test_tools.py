"""What a tool gets, and how it is stopped."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import needs
import pytest
from processes import ended, until
from tool_time import is_up_after

from romfsfs.convert import Cancelled
from romfsfs.convert.types import failure, time_out
from romfsfs.system import runner
from romfsfs.system.runner import HEAD_BYTES, TAIL_BYTES, Limits, environment, run_tool


def python(folder: Path, code: str, seconds: float = 60, cancel=None, result=None, **limits: int):
    return run_tool(
        [sys.executable, "-c", code],
        folder=folder,
        env=environment(folder),
        limits=Limits(seconds, **limits),
        cancel=cancel,
        result=result,
    )


def test_outputs_are_read_as_one_in_order(tmp_path):
    code = "import sys\nfor i in range(3):\n print(i, flush=True); print('e', i, file=sys.stderr)"
    outcome = python(tmp_path, f"{code}\nsys.exit(3)")
    assert (outcome.status, outcome.output) == (3, "0\ne 0\n1\ne 1\n2\ne 2\n")
    assert outcome.last_line == "e 2"


def test_no_input_own_folder_and_nothing_of_the_users_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = "import os, sys; print(repr(sys.stdin.read()), os.getcwd(), sorted(os.environ))"
    output = python(tmp_path, code).output
    assert output.startswith(f"'' {tmp_path} ")
    assert "SECRET" not in output
    assert environment(tmp_path)["HOME"] == str(tmp_path)


def test_a_result_on_standard_output_is_whole_or_an_error(tmp_path):
    code = "import sys\nprint('note', file=sys.stderr)\nfor _ in range(900): print('x' * 999)"
    with (tmp_path / "result").open("xb") as file:
        outcome = python(tmp_path, code, result=file)
    assert (outcome.status, outcome.output) == (0, "note\n")
    assert (tmp_path / "result").read_bytes() == (b"x" * 999 + b"\n") * 900
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        python(tmp_path, code, result=full)
    with (tmp_path / "large").open("xb") as file, pytest.raises(OSError, match="too large"):
        python(tmp_path, code, result=file, file_bytes=1000)


def test_long_output_keeps_its_head_and_its_last_lines(tmp_path):
    code = "print('first')\nfor i in range(200000): print('line', i)\nprint('last')"
    output = python(tmp_path, code).output
    assert len(output) < HEAD_BYTES + TAIL_BYTES + 100
    assert output.startswith("first\nline 0\n")
    assert output.endswith("line 199999\nlast\n")
    assert "bytes left out" in output


def test_hanging_tool_and_its_children_are_killed(tmp_path, monkeypatch):
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print('working on layer 7', child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    is_up_after("working on layer 7", 0.7, monkeypatch)
    outcome = python(tmp_path, code, seconds=0.7)
    assert outcome.timed_out
    assert outcome.status < 0
    assert outcome.seconds == 0.7
    until(lambda: ended(int(outcome.last_line.split()[-1])))
    told = time_out("Tool", outcome, 0.7)
    assert told.message.startswith("Tool did not finish in 0.7 s and was stopped; its last output:")
    assert "working on layer 7" in told.message


def test_tool_that_ignores_signals_and_floods(tmp_path):
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True: print('x' * 10000)"
    )
    outcome = python(tmp_path, code, seconds=0.5)
    assert outcome.timed_out
    assert len(outcome.output) < HEAD_BYTES + TAIL_BYTES + 100


def test_child_left_behind_holds_nothing_up(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    outcome = python(tmp_path, code)
    assert (outcome.status, outcome.timed_out) == (0, False)
    assert outcome.seconds < 30
    until(lambda: ended(int(outcome.last_line)))


def test_child_left_behind_that_floods_holds_nothing_up(tmp_path):
    outcome = run_tool(
        ["/bin/sh", "-c", "yes & echo done"],
        folder=tmp_path,
        env=environment(tmp_path),
        limits=Limits(30),
    )
    assert not outcome.timed_out
    assert outcome.seconds < 30


def test_tool_that_closes_its_output_is_waited_for(tmp_path):
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(5)"
    outcome = python(tmp_path, code)
    assert outcome.status == 5


def test_cancel_stops_it_soon(tmp_path):
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        python(tmp_path, "import time; time.sleep(600)", cancel=cancel)
    assert time.monotonic() - started < 30


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_every_limit_of_a_tool_and_no_more_than_ours(tmp_path, monkeypatch):
    """Processor time for all processors, a second more; no core files. Nobody gets a limit raised
    that this process has."""
    import resource

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    names = ("CPU", "AS", "FSIZE", "CORE", "NOFILE")
    code = (
        "import resource as r, time\n"
        "while r.getrlimit(r.RLIMIT_CORE)[1]: time.sleep(0.01)\n"
        f"print([r.getrlimit(getattr(r, 'RLIMIT_' + each)) for each in {names}])"
    )
    ours = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]

    def least(value: int, hard: int) -> tuple[int, int]:
        return (value, value) if hard == resource.RLIM_INFINITY else (min(value, hard),) * 2

    wanted = [
        least(value, hard)
        for value, (_, hard) in zip((91, 1 << 31, 1 << 20, 0), ours, strict=False)
    ]
    outcome = python(tmp_path, code, seconds=30, memory_bytes=1 << 31, file_bytes=1 << 20)
    assert outcome.output == f"{[*wanted, ours[-1]]}\n"
    asked = []

    def prlimit(pid: int, kind: int, limits: tuple[int, int] = (0, 0)) -> tuple[int, int]:
        asked.append((kind, limits))
        return 0, 50

    monkeypatch.setattr(resource, "prlimit", prlimit)
    assert runner._limit(1, Limits(30))
    kinds = [getattr(resource, f"RLIMIT_{name}") for name in names[:4]]
    assert [each for each in asked if each[1] != (0, 0)] == [
        (kind, (50, 50)) for kind in kinds[:3]
    ]  # fmt: skip
    assert asked[-1] == (kinds[3], (0, 0))


def test_all_that_a_tool_knows_of_us(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert environment(tmp_path, MORE="1") == {
        "PATH": "/usr/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8", "MORE": "1",
    }  # fmt: skip


def test_a_program_that_is_busy_for_a_while(tmp_path, monkeypatch):
    """Another thread's child has it open still: it is tried again, and not for ever."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    real, tries = subprocess.Popen, []

    def busy(*args, **options):
        tries.append(1)
        if len(tries) < 4:
            raise OSError(26, "Text file busy")
        return real(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", busy)

    def run():
        return run_tool([str(program)], folder=tmp_path, env={}, limits=Limits(30))

    assert run().output == "ran\n"
    assert len(tries) == 4
    tries.clear()
    monkeypatch.setattr(runner, "BUSY_ATTEMPTS", 3)
    with pytest.raises(OSError, match="busy"):
        run()
    assert len(tries) == 3


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_memory_and_file_size_are_limited(tmp_path):
    # The limits are set on the running child, which may be quicker on a busy machine.
    wait = "import resource as r, time\n"
    wait += "while r.getrlimit(r.{})[0] == r.RLIM_INFINITY: time.sleep(0.01)\n"
    outcome = python(
        tmp_path, f"{wait.format('RLIMIT_AS')}x = bytearray(1 << 30)", memory_bytes=512 << 20
    )
    assert "MemoryError" in outcome.output
    code = "f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(1 << 20)); f.flush()"
    outcome = python(tmp_path, wait.format("RLIMIT_FSIZE") + code, file_bytes=10 << 20)
    assert outcome.status != 0
    assert (tmp_path / "big").stat().st_size <= 10 << 20


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_children_that_were_quicker_than_the_limits_have_them_too(tmp_path):
    """The program that starts the tool may be busy with other things just then."""
    until_limited = 'while [ "$(ulimit -v)" = unlimited ]; do sleep 0.01; done'
    done = threading.Event()
    busy = [threading.Thread(target=lambda: list(iter(done.is_set, True))) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        outcome = run_tool(
            ["/bin/sh", "-c", f"({until_limited}; ulimit -v) & wait"],
            folder=tmp_path,
            env=environment(tmp_path),
            limits=Limits(60, memory_bytes=1 << 30),
        )
    finally:
        done.set()
        for thread in busy:
            thread.join()
    assert outcome.output == f"{1 << 20}\n"


@pytest.mark.skipif(not needs.LINUX, reason="this system has no prlimit")
def test_a_tool_whose_master_was_killed_ends_as_well(tmp_path):
    code = f"""
import os, sys
from pathlib import Path
from romfsfs.system.runner import Limits, environment, run_tool
os.cpu_count = lambda: 1 / 30  # 2 s of the processor and one more, in a minute
spin = "import os; open('pid', 'w').write(str(os.getpid()))\\nwhile True: pass"
folder = Path({str(tmp_path)!r})
run_tool([sys.executable, "-c", spin], folder=folder, env=environment(folder), limits=Limits(60))
"""
    master = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
        assert master.poll() is None
    tool = int((tmp_path / "pid").read_text())
    while resource.prlimit(tool, resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY:
        time.sleep(0.05)  # it may have written that before its master could limit it
    master.kill()
    master.wait()
    try:
        until(lambda: ended(tool), 100)  # three of the processor's, of which others want a share
    except AssertionError:
        os.kill(tool, signal.SIGKILL)  # or it would keep a processor busy for good
        raise


def test_no_descriptor_is_left_or_handed_on(tmp_path):
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(secret, True)
    before = len(os.listdir("/dev/fd"))
    output = python(tmp_path, "import os; print(sorted(map(int, os.listdir('/dev/fd'))))").output
    os.close(secret)
    assert output == "[0, 1, 2, 3]\n"  # 3 is the listing's own
    with pytest.raises(FileNotFoundError):
        run_tool(["/no/such/tool"], folder=tmp_path, env={}, limits=Limits(1))
    assert len(os.listdir("/dev/fd")) == before - 1


def test_failures_are_worded(tmp_path):
    assert failure("T", python(tmp_path, "import sys; sys.exit('no luck')")).message == (
        "T failed with exit status 1: no luck"
    )
    crash = python(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert failure("T", crash).message == "T was killed by SIGSEGV: it said nothing"
    assert failure("T", python(tmp_path, "")).message == "T made no file: it said nothing"
