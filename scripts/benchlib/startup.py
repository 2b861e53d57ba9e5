"""How long a command takes that has nothing to do: section startup."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from measure import Bench, Figure, Usage


def startup_section(bench: Bench) -> Iterator[Figure]:
    """`--version` and `ls` of a small image: at most 3 x `python -c pass`."""
    tree = bench.place / "tiny"
    tree.mkdir()
    (tree / "main.py").write_text("print('hello')\n")
    (tree / "labels.txt").write_text("yes\nno\n")
    image = bench.place / "tiny.img"
    bench.ours("build", tree, image)

    def nothing() -> Usage:
        return bench.run(sys.executable, "-c", "pass")

    for name, words in (("--version", ("--version",)), ("ls, small image", ("ls", image))):
        yield from bench.compared(
            f"romfsfs {name}", lambda words=words: bench.ours(*words),  # type: ignore[misc]
            {"python -c pass": (nothing, 3.0)}, 4 * bench.rounds,
        )  # fmt: skip
