"""Times of romfsfs and mpremote on the same simulated camera: 8 MiB, 4 KiB blocks, 45 ms an
erase, 1 MB/s. Takes ten minutes; not a test.

    python tests/devices/serial_camera/measure_camera.py MICROPYTHON
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.simulator import Simulator, preset
from romfsfs.devices.simulator.config import PartitionConfig
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode

MIB = 1 << 20


def timed(old: bytes, work: Callable[[str], object], micropython: str) -> tuple[float, str]:
    """Seconds of work on a camera that holds `old`, and what it did."""
    config = preset(
        "OPENMV_N6",
        partitions=(PartitionConfig(8 * MIB),),
        rate=1e6,
        erase_seconds=0.045,
        images={0: old} if old else {},
    )
    with Simulator(config, micropython=micropython) as simulator:
        started = time.monotonic()
        work(simulator.port)
        seconds = time.monotonic() - started
        statistics = simulator.statistics
        done = (
            f"{statistics.wire_in:>9} B in {statistics.wire_out:>9} B out "
            f"{statistics.erased_blocks:>5} erased"
        )
        return seconds, done


def write(image: bytes) -> Callable[[str], object]:
    def work(port: str) -> None:
        camera = SerialCamera.open(port)
        assert camera.write_image(io.BytesIO(image)).verified
        camera.reset()
        camera.close()

    return work


def read(image: bytes) -> Callable[[str], object]:
    def work(port: str) -> None:
        camera = SerialCamera.open(port)
        camera.read_image(io.BytesIO())
        camera.close()

    return work


def known(image: bytes) -> Callable[[str], object]:
    def work(port: str) -> None:
        camera = SerialCamera.open(port)
        assert camera.matches(io.BytesIO(image), len(image))
        camera.close()

    return work


def mpremote(image: bytes) -> Callable[[str], object]:
    def work(port: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "new.img")
            path.write_bytes(image)
            command = [sys.executable, "-m", "mpremote", "connect", port, "romfs", "deploy"]
            subprocess.run([*command, str(path)], check=True, capture_output=True)

    return work


def main() -> None:
    micropython = sys.argv[1]
    source = random.Random(1)
    files = {f"model{index}.tflite": source.randbytes(MIB - 3000) for index in range(7)}
    files["main.py"] = b"print(1)\n" * 113
    files["z.tflite"] = source.randbytes(900_000)
    old = encode(files, DEFAULT_RULES)
    new = encode({**files, "main.py": b"print(2)\n" * 113}, DEFAULT_RULES)
    other = encode({"all.bin": source.randbytes(8 * MIB - 4000)}, DEFAULT_RULES)
    for name, before, work in (
        ("edit of a 1 KiB script", old, write(new)),
        ("full write over another", old, write(other)),
        ("full write onto blank", b"", write(other)),
        ("read", old, read(old)),
        ("mount of a known image", old, known(old)),
        ("mpremote, any write", old, mpremote(new)),
    ):
        seconds, done = timed(before, work, micropython)
        print(f"{name:<25} {seconds:8.2f} s  {done}", flush=True)


if __name__ == "__main__":
    main()
