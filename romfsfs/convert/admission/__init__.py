"""The check whether stored files run on the target: a board and its partition.

    admit         all findings about one stored file
    impostors     files that are not what their name says
    models        TFLite, Ethos-U and Neural-ART models against the board's NPU, memory, operators
    scripts       bytecode against what the camera loads, and the text of scripts stored as source
    names         names that mean something to the firmware

It looks at the bytes as they are stored, whether converted or not. An error is what cannot work on
that board, a warning what may not; nothing is claimed that was not checked. It reads only what it
needs and runs no tool, so it is cheap enough for every `status`.
"""

from __future__ import annotations

from romfsfs.convert.admission.impostors import impostor
from romfsfs.convert.admission.models import is_model, model_findings
from romfsfs.convert.admission.names import name_findings
from romfsfs.convert.admission.scripts import bytecode_findings, source_findings
from romfsfs.convert.types import Diagnostic, Reader, Target

__all__ = ["admit", "concerns"]

#: Files that no camera runs. They are not even opened, because there may be thousands.
_PLAIN = (".txt", ".md", ".json", ".csv", ".html", ".css", ".js", ".jpg", ".jpeg", ".png", ".bmp",
          ".gif", ".wav")  # fmt: skip


def concerns(path: str) -> bool:
    """Whether there may be findings about a file stored as `path`, by its name alone."""
    return not path.lower().endswith(_PLAIN)


def admit(path: str, read: Reader, size: int, target: Target) -> tuple[Diagnostic, ...]:
    """All findings about the file stored as `path`, whose `size` bytes `read` reads.

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
