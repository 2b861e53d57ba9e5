"""Every fuzz target for a moment, with the same inputs in every run; and all that was ever found.

Longer runs, guided by coverage: `scripts/fuzz`.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import targets
from seeds import mutated, seeds

REGRESSIONS = Path(__file__).with_name("regressions")
SECONDS = 1.0  # of a target at most
INPUTS = 400


@pytest.mark.parametrize("name", targets.TARGETS)
def test_any_bytes_end_quietly(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path))
    target = targets.TARGETS[name]
    known = seeds(name)
    for data in (b"", b"\xff" * 40, b"\0" * 40, *known):
        target(data)
    rng = random.Random(name)
    small = [data for data in known if len(data) < 100_000]
    end = time.monotonic() + SECONDS
    for _ in range(INPUTS):
        data = mutated(rng, rng.choice(small), rng.choice(small))
        try:
            target(data)
        except BaseException as error:
            error.args = (*error.args, f"input: {data!r}")
            raise
        if time.monotonic() > end:
            break


@pytest.mark.parametrize(
    "path", sorted(REGRESSIONS.glob("*/*")), ids=lambda path: f"{path.parent.name}: {path.name}"
)
def test_what_was_found_once(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path))
    started = time.process_time()
    targets.TARGETS[path.parent.name](path.read_bytes())
    assert time.process_time() - started < 30


def test_valid_inputs_are_accepted() -> None:
    """A target whose seeds are refused at the door would find nothing."""
    import fuzz_camera

    from romfsfs.convert import cascade_xml, haar
    from romfsfs.convert.flatbuffer import Npu, read_model
    from romfsfs.devices.serial_camera.repl import RawRepl
    from romfsfs.image.reader import read_image

    for data in seeds("image"):
        read_image(data)
    model = seeds("model")[0]
    found = read_model(lambda at, size: model[at : at + size], len(model))
    assert (found.npu, found.npus) == (1, {Npu("U55", 256)})
    for data in seeds("cascade")[:2]:
        assert cascade_xml.sniff(lambda at, size, d=data: d[at : at + size], len(data)) == "HAAR"
        haar.convert_cascade(data)
    with fuzz_camera.fuzz_port(seeds("repl")[0]) as port:
        client = RawRepl(port)
        assert client.run("print(1)") == "1\n"
    assert len(targets.dfu_util.parse_list(seeds("dfu_list")[0].decode()).settings) == 3
