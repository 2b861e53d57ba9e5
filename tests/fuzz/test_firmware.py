"""Damaged real images that our reader accepts: the firmware's reader sees the same files."""

from __future__ import annotations

import random
import sys
from hashlib import sha256
from pathlib import Path

from seeds import mutated, seeds

from romfsfs.errors import ImageFormatError
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image

sys.path.append(str(Path(__file__).parents[1] / "image"))
from image_trees import firmware_view

ACCEPTED = 250


def seen_by_us(data: bytes) -> dict[str, list[object] | None]:
    found: dict[str, list[object] | None] = {}
    for path, node in walk(read_image(data)):
        if isinstance(node, FileNode):
            content = data[node.extent.offset : node.extent.end]
            found[path] = [len(content), sha256(content).hexdigest()]
        else:
            found[path] = None
    return found


def test_the_firmware_agrees_on_damaged_images(micropython: Path, tmp_path: Path) -> None:
    rng = random.Random(12)
    known = [data for data in seeds("image") if len(data) < 20_000]
    images: list[bytes] = []
    views = []
    while len(images) < ACCEPTED:
        data = mutated(rng, rng.choice(known), rng.choice(known))
        try:
            view = seen_by_us(data)
        except ImageFormatError:
            continue
        if data not in images and data not in known:
            images.append(data)
            views.append(view)
    for data, ours, theirs in zip(
        images, views, firmware_view(micropython, tmp_path, images), strict=True
    ):
        assert ours == theirs, data.hex()
