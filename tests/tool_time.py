"""The time of a tool that hangs, on however busy a machine."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from romfsfs.system import runner


def is_up_after(said: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of tools stands still until one has said this, and then so many seconds are over:
    they are enough to start it, whatever that takes."""
    now = [0.0]
    add = runner._Capture.add

    def heard(self: runner._Capture, data: bytes) -> None:
        add(self, data)
        if said in self.text():
            now[0] = seconds

    monkeypatch.setattr(runner._Capture, "add", heard)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
