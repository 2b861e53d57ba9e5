"""What the daemon of a mount tells the process that started it, through a pipe."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import time
from typing import Any

from romfsfs.errors import RomfsError

_PROGRESS_SECONDS = 0.05


class Sender:
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


def rebuilt(fields: dict[str, Any]) -> RomfsError:
    """The daemon's error in this process: same class (and so exit code), same words. Only the
    daemon may have imported the module that defines it."""
    module, name = fields.pop("type")
    kind = getattr(importlib.import_module(module), name)
    error: RomfsError = kind.__new__(kind)
    RomfsError.__init__(error, **fields)
    return error
