"""Trees and images to measure with. Made once a run, kept in its folder."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

from measure import CHECKOUT, MIB, Bench


def model(bench: Bench) -> bytes:
    """A small model that may be stored; what follows it in a file is not part of it."""
    made = bench.place / "model.tflite"
    if not made.exists():
        bench.run(sys.executable, CHECKOUT / "scripts/example_model.py", made)
    return made.read_bytes()


def models(bench: Bench, size: int) -> Path:
    """16 models of together about `size` bytes, of bytes that nothing can compress."""
    folder = bench.place / f"models-{size}"
    if not folder.exists():
        folder.mkdir()
        for number in range(16):
            with open(folder / f"model{number:02}.tflite", "wb") as file:
                file.write(model(bench))
                for _ in range(size // 16 // MIB):
                    file.write(os.urandom(MIB))
        os.sync()
    return folder


def small_files(bench: Bench, count: int = 20_000) -> Path:
    """Text files of about 50 bytes, 100 to a folder."""
    folder = bench.place / f"small-{count}"
    if not folder.exists():
        for number in range(count):
            inside = folder / f"d{number // 100:03}"
            if number % 100 == 0:
                inside.mkdir(parents=True)
            (inside / f"f{number:05}.txt").write_text(f"{number:050}")
        os.sync()
    return folder


def flat_files(bench: Bench, count: int) -> Path:
    """Empty files in one folder."""
    folder = bench.place / f"flat-{count}"
    if not folder.exists():
        folder.mkdir()
        for number in range(count):
            (folder / f"file{number:05}.txt").touch()
    return folder


def camera_image(bench: Bench) -> Path:
    """An image that nearly fills the AE3's 24 MiB: 20 models, 180 small files."""
    image = bench.place / "camera.img"
    if not image.exists():
        chance = random.Random(24)
        tree = bench.place / "camera"
        for number in range(20):
            folder = tree / f"models/{number:02}"
            folder.mkdir(parents=True)
            data = model(bench) + chance.randbytes(22 * MIB // 20)
            (folder / "model.tflite").write_bytes(data)
            for label in range(9):
                (folder / f"labels{label}.txt").write_bytes(chance.randbytes(200))
        bench.ours("build", tree, image, "--no-convert")
        shutil.rmtree(tree)
    return image


def built(bench: Bench, tree: Path) -> Path:
    """The image of a tree, unconverted."""
    image = tree.with_suffix(".img")
    if not image.exists():
        bench.ours("build", tree, image, "--no-convert")
    return image
