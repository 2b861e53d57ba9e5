"""Whatever our reader accepts, the firmware's reader sees the same; on images of every make."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

from image_trees import firmware_view, image, number, record

from romfsfs.errors import ImageFormatError
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image


def soup(rng: random.Random, depth: int = 0) -> bytes:
    """Records as any writer might put them: padded, commented, pointing, from the future."""
    parts = []
    for index in range(rng.randrange(6)):
        name = f"{rng.choice(['a', 'é', 'name with space '])}{index}".encode()
        start = number(len(name), rng.choice([0, 0, 0, 2])) + name
        noise = rng.choice([b"", b"", record(1, rng.randbytes(3)), record(9, b"later", 4)])
        data = rng.choice(
            [
                record(2, rng.randbytes(rng.randrange(200)), rng.choice([0, 3, 20])),
                record(3, number(rng.randrange(8)) + number(rng.randrange(12), 3)),
                record(2, b"first") + record(2, b"second"),
            ]
        )
        kind = rng.randrange(9)
        if kind == 0:
            parts.append(record(1, rng.randbytes(rng.randrange(9)), rng.choice([0, 5])))
        elif kind == 1:
            parts.append(record(rng.choice([2, 3, 6, 200]), rng.randbytes(5)))
        elif kind <= 3 and depth < 4:
            inside = noise + soup(rng, depth + 1)
            parts.append(record(4, start + inside, rng.choice([0, 3, 12])))
        else:
            parts.append(record(5, start + noise + data, rng.choice([0, 7])))
    return b"".join(parts)


def test_the_firmware_agrees_on_everything_that_is_accepted(
    micropython: Path, tmp_path: Path
) -> None:
    rng = random.Random(4)
    accepted: list[bytes] = []
    expected: list[dict[str, list[object] | None]] = []
    damaged = 0
    while len(accepted) < 300:
        data = image(soup(rng), width=rng.choice([0, 3, 13])) + rng.choice([b"", b"\xff" * 9])
        if rng.random() < 0.5 and len(data) > 20:
            place = rng.randrange(4, len(data))
            data = data[:place] + rng.randbytes(1) + data[place + 1 :]
            damaged += 1
        try:
            parsed = read_image(data)
        except ImageFormatError:
            continue
        accepted.append(data)
        expected.append({})
        for path, node in walk(parsed):
            if isinstance(node, FileNode):
                content = data[node.extent.offset : node.extent.end]
                expected[-1][path] = [len(content), sha256(content).hexdigest()]
            else:
                expected[-1][path] = None
    assert damaged > 100
    assert sum(map(len, expected)) > 1000
    views = firmware_view(micropython, tmp_path, accepted)
    for data, view, wanted in zip(accepted, views, expected, strict=True):
        assert view == wanted, data.hex()
