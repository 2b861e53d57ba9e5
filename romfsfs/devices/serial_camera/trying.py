"""What a camera answers when it opens a model (`snippets.open_model`); its text is not trusted."""

from __future__ import annotations

import ast
from typing import Any

from romfsfs.devices.base import OpenedModel, Tensor
from romfsfs.devices.serial_camera import identity, snippets
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.errors import printable

#: seconds of silence: a model of some MiB is read in place, and its memory is planned once
OPEN_LIMIT = 60.0
#: characters; longer texts of a camera are cut
_MOST_SAID = 2000
_MOST_TENSORS = 64
_NO_ANSWER = (
    IndexError, ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError,
)  # fmt: skip


def open_model(repl: RawRepl, path: str) -> OpenedModel | None:
    """Have the camera open a model of `/rom`; None: its firmware runs no models. DeviceError."""
    code = snippets.open_model(f"/rom/{path}")
    for _ in (1, 2):
        text = repl.run(code, OPEN_LIMIT)
        lines = text.strip().splitlines()
        try:
            if lines[-1] != lines[-2]:
                raise ValueError("garbled")
            answer = ast.literal_eval(lines[-1])
            said = "\n".join(printable(line) for line in lines[:-2])[-_MOST_SAID:]
            return None if answer is None else _model(path, answer, said)
        except _NO_ANSWER:
            repl.soft_reset()  # ends timers and threads that print
    raise identity.wrong_answer(repl.port.name, text)


def _model(path: str, answer: dict[str, Any], said: str) -> OpenedModel:
    if "error" in answer:
        kind, error = str(answer["type"]), printable(str(answer["error"]))[:_MOST_SAID]
        return OpenedModel(path, error if kind in ("ValueError", "RuntimeError") else
                           f"{kind}: {error}", said)  # fmt: skip
    return OpenedModel(
        path, "", said, int(answer["ram"] or 0), _tensors(answer, "input"),
        _tensors(answer, "output"),
    )  # fmt: skip


def _tensors(answer: dict[str, Any], end: str) -> tuple[Tensor, ...]:
    shapes, types = answer[f"{end}_shape"] or (), answer[f"{end}_dtype"] or ()
    return tuple(
        Tensor(tuple(map(int, shape)), str(dtype)[:1])
        for shape, dtype in zip(shapes[:_MOST_TENSORS], types, strict=False)
    )
