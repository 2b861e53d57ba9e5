"""What MicroPython lists of partitions, as its firmware mounts them at `/rom`."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from romfsfs.errors import ImageFormatError
from romfsfs.image.reader import image_size

_LISTING = """
import sys, os, vfs, json, hashlib, binascii
data = bytearray(os.stat(sys.argv[1])[6])
with open(sys.argv[1], 'rb') as file:
    file.readinto(data)
try:
    vfs.mount(vfs.VfsRom(memoryview(data)), '/r')
except OSError:
    print('null')
    sys.exit()
found = {}
for name in os.listdir('/r'):
    with open('/r/' + name, 'rb') as file:
        found[name] = binascii.hexlify(hashlib.sha256(file.read()).digest()).decode()
print(json.dumps(found))
"""


def listed(
    micropython: Path, folder: Path, partitions: Sequence[bytes]
) -> list[Mapping[str, str] | None]:
    """For each partition, its files with the digests of their contents; None: no /rom. "damaged":
    MicroPython fails on it, or even crashes, as the 32-bit one does on half an image."""
    found: list[Mapping[str, str] | None] = []
    path = folder / "partition"
    for content in partitions:
        with contextlib.suppress(ImageFormatError):
            content = content[: max(image_size(content[:16]), 4096)]  # what is read of it
        path.write_bytes(content)
        done = subprocess.run(
            [micropython, "-X", "heapsize=80M", "-c", _LISTING, path],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        found.append({"damaged": done.stderr} if done.returncode else json.loads(done.stdout))
    return found
