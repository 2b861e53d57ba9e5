"""Does operations on sessions, each in a process of its own that ends as by a crash at a step.

Reads lines of JSON: [environment, operation, step, source]; answers each with a line of JSON:
[exit code, what it said]. Exit code 42: it came to the step. A fork of this process, which has
imported everything and has no threads, takes a few milliseconds. source is an image file, or
`flash:FILE` for the tests' camera.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from session_desk import Desk, Flash

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.session.keep import steps
from romfsfs.session.keep.folder import folder_of
from romfsfs.session.rebase.commit import commit
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import revert
from romfsfs.session.session import Session

CRASHED = 42
FLASH_SIZE = 65536


def device_of(source: str) -> Device:
    if source.startswith("flash:"):
        return Flash(Path(source[len("flash:") :]), FLASH_SIZE)
    return FileDevice(source)


def run(operation: str, wanted: str, source: str) -> None:
    device = device_of(source)

    def crash(step: str) -> None:
        if step == wanted:
            os._exit(CRASHED)

    steps.on_step = crash
    if wanted == "power" and isinstance(device, Flash):
        device.power = 100  # in the middle of the image
    if operation == "open":
        Desk(device, source).open()
        return
    session = Session.load(folder_of(device.info().key))
    if operation == "commit":
        commit(session, device)
    elif operation == "undo":
        undo(session, device)
    elif operation == "revert":
        revert(session, ["a.txt", "lib"], connect=lambda _: nullcontext(device))
    elif operation == "discard":
        revert(session, connect=lambda _: nullcontext(device))
    elif operation == "recover":
        recover(session, device)


def answer(environment: dict[str, str], *request: str) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.environ.update(environment)
            code = 1
            try:
                run(*request)
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
