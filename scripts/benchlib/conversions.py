"""What people wait for when they copy and save: section convert."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import Bench, Figure, Task, Usage
from mounted import empty_image
from mounts import ours
from trees import model

_PATIENCE_SECONDS = 300


def convert_section(bench: Bench) -> Iterator[Figure]:
    """Until the status says `ready` of what was copied into the mount, and of a file saved."""
    scripts = bench.place / "scripts"
    scripts.mkdir()
    for number in range(100):
        (scripts / f"module{number:02}.py").write_text(script(number))
    one = bench.place / "first.tflite"
    one.write_bytes(model(bench))

    def copied() -> None:
        bench.run("cp", "-r", scripts, bench.mountpoint / "lib")

    def first() -> None:
        bench.run("cp", one, bench.mountpoint / "first.tflite")

    def saved() -> None:
        (bench.mountpoint / "main.py").write_text(script(random.randrange(1 << 30)))

    def fifty() -> None:
        for number in range(50):
            data = one.read_bytes() + bytes([number])
            (bench.mountpoint / f"model{number:02}.tflite").write_bytes(data)

    yield from bench.under("100 scripts copied, until ready", until_ready(bench, copied, 100), 0.6)
    yield from bench.under("a first model copied, until ready", until_ready(bench, first, 1), 0.6)
    yield from bench.under("a script saved, until ready", until_ready(bench, saved, 1), 0.2)
    yield from bench.under("50 models copied, until ready", until_ready(bench, fifty, 50), rounds=3)


def script(number: int) -> str:
    lines = "\n".join(f"    total += count * {each}" for each in range(40))
    return f"def f{number}(count):\n    total = {number}\n{lines}\n    return total\n"


def until_ready(bench: Bench, do: Callable[[], None], count: int) -> Task:
    """A task: do that in an empty mount of a camera's image, with no conversion cached, until so
    many files are ready."""

    def task() -> Usage:
        bench.fresh_state()
        bench.fresh_cache()
        with ours(bench, empty_image(bench), "--board", "OPENMV_AE3") as mount:
            before, started = mount.cpu, time.perf_counter()
            do()
            wait_ready(bench.mountpoint / ".romfs/status.json", count, started)
            return Usage(time.perf_counter() - started, mount.cpu - before)

    return task


def wait_ready(status: Path, count: int, started: float) -> None:
    while time.perf_counter() - started < _PATIENCE_SECONDS:
        entries = json.loads(status.read_bytes())["entries"]
        files = [each for each in entries if each["stored_size"] is not None]
        if len(files) == count and all(each["state"] == "ready" for each in files):
            return
        time.sleep(0.02)
    raise RuntimeError("the conversions do not end")
