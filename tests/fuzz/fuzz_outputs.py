"""Fuzz targets for what tools write and say, and what servers answer."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from fuzz_images import SCRATCH

from romfsfs.convert import Diagnostic, FileOptions, script, stedgeai, types, vela
from romfsfs.convert.flatbuffer import Model
from romfsfs.convert.options import OptionError
from romfsfs.devices.bootloader import dfu_util
from romfsfs.errors import printable
from romfsfs.system import runner


def summary(data: bytes) -> None:
    """Vela's table of what the model needs."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        Path(name, "model_summary_x.csv").write_bytes(data)
        need = vela.figures(vela.summary(Path(name)), data.decode("latin-1"), 1).sram
    assert need is None or need >= 0


def tool_output(data: bytes) -> None:
    """What a tool said, made into one line for the user."""
    capture = runner._Capture()
    for start in range(0, len(data), 1000):
        capture.add(data[start : start + 1000])
    text = capture.text()
    assert len(text) <= runner.HEAD_BYTES + runner.TAIL_BYTES + 100
    source, status = data[:300], data[0] % 7 - 3 if data else 0
    outcome = runner.Outcome(status, text, status < 0, 1.0)
    told: list[Diagnostic] = [
        script.explain("lib/app.py", source, outcome, portable=status == 1),
        vela.explain(outcome),
        stedgeai.explain(outcome),
        types.failure("Tool", outcome),
        types.time_out("Tool", outcome, 3.0),
        *vela.cpu_fallback(text, Model(3, {}, {3: 1}, frozenset(), (), (), 0)),
    ]
    for each in told:
        assert each.message
        assert len(each.message.splitlines()) == 1, each.message
        assert printable(each.message).isprintable()
    dfu_util.percentage(text)


def settings(data: bytes) -> None:
    """The user's profile and memory pool for ST Edge AI, which may come with a model."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        profile, pool = Path(name, "profile.json"), Path(name, "pool.mpool")
        profile.write_bytes(data)
        pool.write_bytes(data[::-1])
        for options in (
            FileOptions(profile=f"default@{profile}"),
            FileOptions(mpool=str(pool)),
        ):
            with contextlib.suppress(OptionError):
                made = stedgeai.make_settings("default", options)
                assert len(made.profile) + len(made.pool) < 20 * len(data) + (64 << 10)
