"""Will what lands run there? The one check of stored bytes, for a board and its partition.

    admit         all findings about one file, whatever way it came to be stored
    impostors     files that are not what their name says
    models        TFLite, Ethos-U and Neural-ART models against the board's NPU, memory, operators
    scripts       bytecode against what the camera loads, and the text of what stays source
    names         names that mean something to the firmware

It looks at the bytes as they lie in the image, however they came there. Errors are what cannot
work on that board, warnings what may not; of what was not looked at, nothing is said. It reads what
it needs and runs nothing, so every look at a tree can afford it.
"""

from __future__ import annotations

from romfsfs.convert.admission.impostors import impostor
from romfsfs.convert.admission.models import is_model, model_findings
from romfsfs.convert.admission.names import name_findings
from romfsfs.convert.admission.scripts import bytecode_findings, source_findings
from romfsfs.convert.types import Diagnostic, Reader, Target

__all__ = ["admit", "concerns"]

#: What no camera runs, whatever is in it: not even opened, for there may be thousands.
_PLAIN = (".txt", ".md", ".json", ".csv", ".html", ".css", ".js", ".jpg", ".jpeg", ".png", ".bmp",
          ".gif", ".wav")  # fmt: skip


def concerns(path: str) -> bool:
    """By name alone: may there be anything to say of what is stored as `path`?"""
    return not path.lower().endswith(_PLAIN)


def admit(path: str, read: Reader, size: int, target: Target) -> tuple[Diagnostic, ...]:
    """Problems of the file that is stored as `path`, `size` bytes of it in `read`.

    Any thread. OSError of `read`."""
    if not concerns(path):
        return ()
    found = name_findings(path, read, size, target)
    wrong = impostor(path, read)
    if wrong is not None:
        return (*found, wrong)
    head = read(0, 8)
    if path.endswith(".mpy"):
        found += bytecode_findings(head, target)
    elif path.endswith(".py"):
        found += source_findings(path, read, size)
    elif is_model(path, head):
        found += model_findings(path, read, size, target)
    return found
