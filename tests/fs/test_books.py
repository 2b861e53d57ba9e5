"""Books that many threads keep are only touched by who holds their lock."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from romfsfs.fs.file_operations import Space
from romfsfs.fs.handles import Handle, Handles


def watched(kind: type, lock: threading.Lock, name: str) -> Any:
    """A dict that complains about who comes without the lock."""

    def asking(method: str) -> Callable[..., Any]:
        def ask(self: Any, *args: Any) -> Any:
            assert lock.locked(), f"{name} without the lock"
            return getattr(kind, method)(self, *args)

        return ask

    methods = ("__setitem__", "__delitem__", "values", "pop")
    return type("Watched", (kind,), {method: asking(method) for method in methods})()


def test_open_files(tmp_path: Path) -> None:
    handles = Handles()
    handles._open = watched(dict, handles._lock, "the open files")
    handles._writing = watched(Counter, handles._lock, "the writers")
    files = [(tmp_path / name).open("w+b") for name in ("a", "b")]
    try:
        for number, file in enumerate(files):
            assert not handles.add(Handle(file.fileno(), f"/{number}", True, None))
        assert handles.add(Handle(files[0].fileno(), "/0", False, None)), "it is being written"
        assert handles.writers() == ["/1"]
        handles.move({"/1": "/2"})
        handles.move({"/0": "/2", "/2": "/0"})
        assert handles.hide("/2", b"hidden")
        handles.reveal(b"hidden", "/3")
        for file in files:
            assert handles.remove(file.fileno())[0] is not None
        assert handles.writers() == []
    finally:
        for file in files:
            file.close()


class WatchedSpace(Space):
    watched = False

    def __setattr__(self, name: str, value: object) -> None:
        assert not self.watched or self._lock.locked(), f"{name} without the lock"
        object.__setattr__(self, name, value)


def test_room() -> None:
    space = WatchedSpace(SimpleNamespace(least=lambda: 0))  # type: ignore[arg-type]
    space.watched = True
    space.take(1, 100)
    space.give(2)
