"""A camera opens the models that it holds: what it says, and that nothing else runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from convert.convert_helpers import make_model

from romfsfs.boards import get_board
from romfsfs.devices.base import OpenedModel, Tensor
from romfsfs.devices.serial_camera import snippets, trying
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.errors import DeviceAnswer, DeviceLost
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

Simulate = Callable[..., Simulator]
FLOAT32, INT16, INT8, BOOL = 0, 7, 9, 6
ADD, TOPK = 0, 48


def model(kind: int | str = ADD, dtype: int = INT8, side: int = 4, version: int = 3) -> bytes:
    shape = [1, side, side]
    tensors = [(dtype, shape, 0), (dtype, shape, 0)]
    return make_model([(kind, [0], [1])], tensors, [0], [1], version=version)


def opened(simulate: Simulate, board: str, files: dict[str, bytes], **changes: Any) -> list[Any]:
    """What a camera that holds these files says of each."""
    image = encode(files, get_board(board).partition().alignment)
    with simulate(board, images={0: image}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        try:
            return [camera.open_model(path) for path in files]
        finally:
            camera.close()


def test_a_model_that_opens_tells_its_memory_and_its_ends(simulate: Simulate) -> None:
    (said,) = opened(simulate, "OPENMV4P", {"models/a.tflite": model(dtype=INT16)})
    ends = (Tensor((1, 4, 4), "h"),)
    assert said == OpenedModel("models/a.tflite", "", "", 64 + 512, ends, ends)
    assert json.loads(json.dumps(asdict(said)))["inputs"] == [{"shape": [1, 4, 4], "dtype": "h"}]


def test_what_tensorflow_lite_micro_refuses(simulate: Simulate) -> None:
    files = {
        "schema.tflite": model(version=2),
        "topk.tflite": model(TOPK),
        "detect.tflite": model("TFLite_Detection_PostProcess"),
        "signal.tflite": model("SignalWindow"),
        "npu.tflite": model("ethos-u"),
        "bool.tflite": model(dtype=BOOL),
        "big.tflite": model(dtype=FLOAT32, side=2048),
        "after.tflite": model(),
    }
    found = {each.path: each for each in opened(simulate, "OPENMV4P", files)}
    errors = {path.partition(".")[0]: each.error for path, each in found.items()}
    assert errors == {
        "schema": "Unsupported model schema",
        "topk": "Failed to allocate tensors",
        "detect": "Failed to allocate tensors",
        "signal": "",
        "npu": "Failed to allocate tensors",
        "bool": "Unsupported input data type 6",
        "big": "MemoryError: memory allocation failed, allocating 33554944 bytes",
        "after": "",  # what came before it has left no trace
    }
    assert "builtin opcode 'TOPK_V2'" in found["topk.tflite"].detail
    assert "TFLite_Detection_PostProcess" in found["detect.tflite"].detail


def test_boards_differ(simulate: Simulate) -> None:
    (on_ae3,) = opened(simulate, "OPENMV_AE3", {"npu.tflite": model("ethos-u")})
    assert on_ae3.error == ""
    files = {"a.tflite": model(), "b.tflite": b"NBIN" + bytes(64)}
    not_compiled, compiled = opened(simulate, "OPENMV_N6", files)
    assert (not_compiled.error, compiled.error) == ("Failed to load network", "")
    assert opened(simulate, "OPENMV2", {"a.tflite": model()}) == [None]  # it runs no models


def test_nothing_of_the_users_is_imported_and_missing_files_are_said(simulate: Simulate) -> None:
    loud = b"print('imported')\n"
    files = {"a.tflite": model(), "a.txt": b"label\n", "ml.py": loud, "uml.py": loud}
    image = encode(files, get_board("OPENMV4P").partition().alignment)
    hiding = {"ml.py": loud, "uml.py": loud, "gc.py": loud}
    with simulate("OPENMV4P", images={0: image}, flash_files=hiding) as simulator:
        camera = SerialCamera.open(simulator.port)
        try:
            said = camera.open_model("a.tflite")
            assert (said.error, said.detail) == ("", "")
            assert camera.open_model("b.tflite").error == "OSError: [Errno 2] ENOENT"
        finally:
            camera.close()


def test_a_model_that_takes_the_camera_down(simulate: Simulate, monkeypatch) -> None:
    """C code follows its offsets blindly."""
    monkeypatch.setattr(trying, "OPEN_LIMIT", 1.0)
    monkeypatch.setattr("romfsfs.devices.serial_camera.repl.ENTER_LIMIT", 1.0)
    with pytest.raises(DeviceLost):
        opened(simulate, "OPENMV4P", {"a.tflite": b"\xff\xff\xff\x7fTFL3" + bytes(16)})


class FakeRepl:
    """Answers what it was told to."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.resets = 0
        self.port = type("Port", (), {"name": "ttyX"})()

    def run(self, code: str, limit: float) -> str:
        return self.answers.pop(0)

    def soft_reset(self) -> None:
        self.resets += 1


def test_a_garbled_answer_is_asked_for_again_and_not_believed() -> None:
    good = "{'error':'x','type':'ValueError'}"
    repl = FakeRepl(f"{good}\n{good[:-1]}\n", f"said\x1b[2J\n{good}\n{good}\n")
    said = trying.open_model(repl, "a.tflite")
    assert said == OpenedModel("a.tflite", "x", "said\\x1b[2J")
    assert repl.resets == 1
    for nonsense in ("", "x", "[\n[", "1\n1", "{}\n{}", "{'ram':[]}\n{'ram':[]}"):
        with pytest.raises(DeviceAnswer):
            trying.open_model(FakeRepl(nonsense, nonsense), "a.tflite")


def test_firmware_that_tells_nothing_of_a_model_that_opens() -> None:
    nothing = dict.fromkeys(["ram", "input_shape", "input_dtype", "output_shape", "output_dtype"])
    said = trying.open_model(FakeRepl(f"{nothing}\n{nothing}\n"), "a.tflite")
    assert said == OpenedModel("a.tflite", "", "", 0, (), ())


@pytest.mark.parametrize("arguments", ["path,postprocess", "path,*,load_to_fb=False"])
def test_present_and_older_firmware(micropython: Path, arguments: str) -> None:
    """A second argument came with the present one, which cannot do without it."""
    firmware = f"class Model:\n def __init__(self,{arguments}):\n  self.ram=7\n"
    code = f"import sys\n{firmware}class uml:\n pass\numl.Model=Model\nsys.modules['uml']=uml\n"
    done = subprocess.run(
        [micropython, "-c", code + snippets.open_model("/rom/a.tflite")],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    once, again = done.stdout.splitlines()
    assert once == again
    assert "'ram': 7" in once
