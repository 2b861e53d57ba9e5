"""How long a command takes that has nothing to do: section startup."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from measure import ROMFSFS, Bench, Figure, at_most


def startup_section(bench: Bench) -> Iterator[Figure]:
    """`--version` and `ls` of a small image: at most 3 x `python -c pass`."""
    tree = bench.place / "tiny"
    tree.mkdir()
    (tree / "main.py").write_text("print('hello')\n")
    (tree / "labels.txt").write_text("yes\nno\n")
    image = bench.place / "tiny.img"
    bench.run(ROMFSFS, "build", tree, image)
    nothing, asked, listed = bench.interleaved(
        [
            lambda: bench.run(sys.executable, "-c", "pass"),
            lambda: bench.run(ROMFSFS, "--version"),
            lambda: bench.run(ROMFSFS, "ls", image),
        ],
        4 * bench.rounds,
    )
    yield at_most("romfsfs --version", asked, "python -c pass", nothing, 3.0)
    yield at_most("romfsfs ls, small image", listed, "python -c pass", nothing, 3.0)
