"""A program that says which files a zoo's `index.csv` shows for a board. `index` runs it.

The patterns come with the models, from anybody. One that never ends must not stop all threads of
the mount (`re` holds the GIL), nor take all memory: so they run in this process, with limits on CPU
time and memory. It imports nothing of romfsfs; it reads and writes JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sys
from typing import Any

CPU_SECONDS = 1
_MEMORY_BYTES = 1 << 29


def shown(rules: list[tuple[int, str, str]], paths: list[str], board: str) -> dict[str, Any]:
    """{"shown": indexes of the paths to show for the board}, or {"line", "error"} of a bad rule.

    rules: (line, path pattern, board pattern).
    """
    compiled = []
    for line, path, boards in rules:
        try:
            visible = bool(boards) and re.search(boards, board, re.IGNORECASE) is not None
            compiled.append((re.compile(path), visible))
        except (re.error, OverflowError, RecursionError, MemoryError) as error:
            return {"line": line, "error": str(error) or type(error).__name__}
    return {"shown": [n for n, path in enumerate(paths) if _is_shown(path, compiled)]}


def _is_shown(path: str, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    for pattern, visible in rules:
        if pattern.search("/models/" + path) or pattern.search(path):
            return visible
    return True


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    json.dump(shown(*json.load(sys.stdin)), sys.stdout)
