"""What is made of what a camera says of a model, and the code that is sent to cameras."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.devices.base import OpenedModel, Tensor
from romfsfs.devices.serial_camera import snippets, trying
from romfsfs.errors import DeviceAnswer

FULL: dict[str, Any] = {
    "ram": 9000, "input_shape": ((1, 96, 96, 3), (2,)), "input_dtype": ("b", "float"),
    "output_shape": ((1, 4),), "output_dtype": ("B", "x"),
}  # fmt: skip
OPENED = OpenedModel(
    "m.tflite", "", "", 9000, (Tensor((1, 96, 96, 3), "b"), Tensor((2,), "f")),
    (Tensor((1, 4), "B"),),
)  # fmt: skip


class Camera:
    """Answers in turn; keeps what it was asked."""

    port = SimpleNamespace(name="ttyX")

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.calls: list[Any] = []

    def run(self, code: str, limit: float) -> str:
        self.calls.append((code, limit))
        return self.answers.pop(0)

    def soft_reset(self) -> None:
        self.calls.append("reset")


def twice(answer: Any, said: str = "") -> str:
    return f"{said}{answer!r}\n{answer!r}\n"


ASKED = (snippets.open_model("/rom/m.tflite"), 60.0)


@pytest.mark.parametrize(("answers", "model"), [([twice(FULL)], OPENED), ([twice(None)], None)])
def test_a_model_that_opens(answers: list[str], model: OpenedModel | None) -> None:
    camera = Camera(*answers)
    assert trying.open_model(camera, "m.tflite") == model  # type: ignore[arg-type]
    assert camera.calls == [ASKED]


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("ValueError", "bad", "bad"), ("RuntimeError", "a\x1bb", "a\\x1bb"),
        ("OSError", "2", "OSError: 2"), ("MemoryError", "", "MemoryError: "),
        ("ValueError", "x" * 2001, "x" * 2000),
    ],
)  # fmt: skip
def test_a_model_that_does_not_open(kind: str, text: str, error: str) -> None:
    camera = Camera(twice({"error": text, "type": kind}, "one\x07\n\ntwo\n"))
    found = trying.open_model(camera, "m.tflite")  # type: ignore[arg-type]
    assert found == OpenedModel("m.tflite", error, "one\\x07\n\ntwo", 0, (), ())
    assert (found.memory, found.inputs, found.outputs) == (0, (), ())


def test_what_is_long_is_cut() -> None:
    """The last that was said; the first 64 of the tensors, as far as each has a type."""
    many = FULL | {"ram": None, "input_shape": [(1,)] * 70, "input_dtype": "b" * 70,
                   "output_shape": [(1,)] * 3, "output_dtype": "bb"}  # fmt: skip
    found = trying.open_model(Camera(twice(many, "x" * 2000 + "y\n")), "m.tflite")  # type: ignore[arg-type]
    assert found is not None
    assert (found.memory, found.detail) == (0, "x" * 1999 + "y")
    assert found.inputs == (Tensor((1,), "b"),) * 64
    assert found.outputs == (Tensor((1,), "b"),) * 2


@pytest.mark.parametrize(
    "bad",
    ["", "x", f"{FULL!r}\n", f"{FULL!r}\n{FULL!r} \n".replace("9000", "9001", 1), "[\n[",
     twice(FULL | {"input_shape": 7}), twice({"error": "x"}), twice({}), twice(7)],
    ids=range(9),
)  # fmt: skip
def test_what_makes_no_sense_is_asked_for_once_more(bad: str) -> None:
    camera = Camera(bad, twice(FULL))
    assert trying.open_model(camera, "m.tflite") == OPENED  # type: ignore[arg-type]
    assert camera.calls == [ASKED, "reset", ASKED]
    camera = Camera("first", bad)
    with pytest.raises(DeviceAnswer) as caught:
        trying.open_model(camera, "m.tflite")  # type: ignore[arg-type]
    assert caught.value.line == (
        "the camera's answer makes no sense (ttyX); reset the camera and repeat the command"
    )
    assert caught.value.detail == bad[-500:]
    assert camera.calls == [ASKED, "reset"] * 2


@pytest.mark.parametrize("kind", ["memory", "block"])
@pytest.mark.parametrize(
    ("raw", "crc32", "poll", "cached", "mram"), list(itertools.product([True, False], repeat=5))
)
def test_the_code_of_the_loops(
    kind: str, raw: bool, crc32: bool, poll: bool, cached: bool, mram: bool
) -> None:
    """Nothing that this firmware lacks, and all that it needs."""
    memory = kind == "memory"
    write = snippets.write_loop(kind, 3, raw=raw, crc32=crc32, poll=poll, cached=cached, mram=mram)
    lines = {
        "import crc32": crc32, "crc32=None": not crc32, "p.register(sys.stdin,1)": poll,
        "p=None": True, "import a2b_base64": True, "def get():": True, "rd=sys.stdin.buffer": raw,
        "rd=sys.stdin.read": not raw, "dec=a2b_base64": not raw, "dec=lambda": raw,
        "mem32[0xe000ef70]": cached, "I=lambda o,n:0": not cached, "X(4,K,o,d)": memory,
        "P.writeblocks": not memory, "P.readblocks": not memory, "uctypes": memory, "K=3": True,
        "rom_ioctl(2,3)": True, "op==81": True, "disable_irq": mram,
    }  # fmt: skip
    assert {line: line in write for line in lines} == lines
    read = snippets.read_loop(kind, 3, raw=raw, crc32=crc32, poll=poll)
    lines = {
        "import crc32": crc32, "crc32(d,o)": crc32, "p.register(sys.stdin,1)": poll,
        "w=sys.stdout.buffer.write": raw, "w=sys.stdout.write": not raw, "b2a_base64(d)": not raw,
        "struct.pack('<I',": raw, "P.readblocks": not memory, "uctypes": memory, "p=None": True,
    }  # fmt: skip
    assert {line: line in read for line in lines} == lines
    sums = snippets.checksums(kind, 3, start=5, end=9, step=2, crc32=crc32)
    lines = {
        "import crc32": crc32, "c=0\n": crc32, "crc32(R(o,n),c)": crc32, "'%08x'%c)": crc32,
        "import sha256": not crc32, "c=sha256()": not crc32, "c.update(R(o,n))": not crc32,
        "c.digest()[:4]": not crc32, "o=5\n": True, "while o<9": True, "min(o+2,9)": True,
    }  # fmt: skip
    assert {line: line in sums for line in lines} == lines
    for code in (write, read, sums, snippets.digest(kind, 3, 0, 9), snippets.peek(kind, 3, (0, 9))):
        compile(code, "camera", "exec")
        assert code.startswith("def _rf():\n")
        assert code.endswith("_rf()\ndel _rf\n")
