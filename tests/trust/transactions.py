"""Random sequences of transactions and edits, hurt at random steps, held to `worlds.py`.

`python transactions.py FIRST COUNT [LENGTH]`: sequences with the seeds from FIRST on, each with a
session of its own, on an image file or the tests' camera. Prints figures as JSON, and for each
fault its seed and the fewest steps that still show it. The firmware's reader has the last word on
what the targets hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import needs
from image_trees import firmware_view
from transaction_run import Fault, Run
from transaction_steps import Step, compile_foreign, sequence
from worlds import image_tree

#: Images that the firmware's reader looks at in one go.
BATCH = 40
LENGTH = 14


def attempt(steps: list[Step], base: Path, counts: Counter[str]) -> tuple[str, bytes]:
    """What is wrong with a sequence, and the image at its end."""
    folder = base / "place"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = Run(folder, counts)
    doing = ""
    try:
        for number, step in enumerate(steps):
            doing = f"step {number}, {step}"
            run.step(step)
        doing = "at the end"
        return "", run.finish()
    except Fault as fault:
        return f"{doing}: {fault}", b""
    finally:
        run.place.close()


def smaller(steps: list[Step], base: Path) -> list[Step]:
    """Fewer steps that are still a fault."""
    position = len(steps) - 1
    while position > 0:
        fewer = steps[:position] + steps[position + 1 :]
        if attempt(fewer, base, Counter())[0]:
            steps = fewer
        position -= 1
    return steps


def firmware_agrees(program: Path, images: list[bytes], base: Path) -> str:
    """What the firmware's reader sees otherwise than we do."""
    for image, found in zip(images, firmware_view(program, base, images), strict=True):
        expected = {p: None if d is None else [len(d), hashlib.sha256(d).hexdigest()]
                    for p, d in image_tree(image).items()}  # fmt: skip
        if expected != found:
            return f"the firmware sees {sorted(found)}"
    return ""


def main(first: int, count: int, length: int = LENGTH) -> int:
    program, why = needs.micropython()
    if program is None:
        raise SystemExit(f"no MicroPython: {why}")
    os.environ["ROMFSFS_MICROPYTHON"] = str(program)
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="romfsfs-transactions-",
                                 dir=memory if os.access(memory, os.W_OK) else None))  # fmt: skip
    os.environ["ROMFSFS_CACHE_DIR"] = str(base / "cache")
    compile_foreign(base)
    counts: Counter[str] = Counter()
    faults: dict[str, Any] = {}
    images: list[bytes] = []
    for seed in range(first, first + count):
        steps = sequence(seed, length)
        wrong, image = attempt(steps, base, counts)
        if wrong:
            steps = smaller(steps, base)
            wrong = attempt(steps, base, Counter())[0] or wrong
            faults[str(seed)] = [wrong, *map(json.dumps, steps)]
            print(seed, *faults[str(seed)], sep="\n   ", file=sys.stderr, flush=True)
        else:
            images.append(image)
        if len(images) >= BATCH or (images and seed == first + count - 1):
            wrong = firmware_agrees(program, images, base)
            if wrong:
                faults[f"up to {seed}"] = [wrong]
            images.clear()
    shutil.rmtree(base)
    print(json.dumps({"sequences": count, "faults": faults, **counts}, indent=1))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
