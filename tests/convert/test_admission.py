"""Will what lands run there? Each kind of stored bytes against the boards, by what they hold."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from convert_helpers import FLOAT32, INT8, camera, make_model, one_operator

from romfsfs.boards import boards
from romfsfs.convert import Target, admit, script
from romfsfs.convert.admission.models import listed, operator_name, operators, suffix

BOOL, INT16 = 6, 7
RELU, POW, GELU, DEQUANTIZE = 19, 78, 150, 6
M4, H7, H7_PLUS, AE3, N6 = "OPENMV2", "OPENMV4", "OPENMV4P", "OPENMV_AE3", "OPENMV_N6"


def findings(path: str, data: bytes, target: Target) -> list[tuple[str, str, str]]:
    def read(at: int, count: int) -> bytes:
        return data[at : at + count]

    found = admit(path, read, len(data), target)
    return [(each.severity, each.code, each.message) for each in found]


def codes(path: str, data: bytes, board: str | None = H7_PLUS, partition: int = 0) -> list[str]:
    target = camera(board, partition) if board else Target()
    return [f"{severity} {code}" for severity, code, _ in findings(path, data, target)]


def message(path: str, data: bytes, board: str, partition: int = 0) -> str:
    (found,) = findings(path, data, camera(board, partition))
    return found[2]


def compiled(product: int, macs: int) -> bytes:
    """A model for an Ethos-U, as Vela 5 writes its command stream's first action."""
    word = product << 28 | macs.bit_length() - 1
    commands = struct.pack("<4sIII", b"COP1", 0x10001, word, 0)
    tensors = [(INT8, [16], 1), (INT8, [1, 4], 0), (INT8, [1, 4], 0)]
    return make_model([("ethos-u", [0, 1], [2])], tensors, [1], [2], buffers=(commands,))


@pytest.mark.parametrize(
    ("board", "partition", "product", "macs", "fits"),
    [
        (AE3, 0, 0, 256, True),
        (AE3, 1, 0, 128, True),
        (AE3, 0, 0, 128, False),
        (AE3, 1, 0, 256, False),
        (AE3, 0, 1, 256, False),
        (AE3, 0, 2, 256, False),
        (H7_PLUS, 0, 0, 256, False),
        (N6, 0, 0, 256, False),
    ],
)
def test_models_for_an_ethos_u_run_on_that_one_alone(board, partition, product, macs, fits):
    found = codes("m.tflite", compiled(product, macs), board, partition)
    assert found == ([] if fits else ["error npu-mismatch"])


def test_both_npus_are_named():
    assert message("m.tflite", compiled(2, 512), AE3) == (
        "compiled for the Ethos-U85 of 512 MACs, but this core has an Ethos-U55 of 256 MACs; copy "
        "the original model"
    )
    assert message("m.tflite", compiled(0, 128), H7) == (
        "compiled for the Ethos-U55 of 128 MACs, but OPENMV4 has no NPU; copy the original model"
    )


def test_networks_for_the_neural_art_run_on_the_n6_alone():
    for name in boards():
        assert codes("m.tflite", b"NBIN" + bytes(60), name) == (
            [] if name == N6 else ["error npu-mismatch"]
        )
    assert codes("net.dat", b"NBIN" + bytes(60), AE3) == ["error npu-mismatch"]  # by its bytes
    assert codes("m.tflite", b"NBIN" + bytes(60), None) == []


def test_the_n6_runs_what_st_edge_ai_made_and_nothing_else():
    assert codes("m.tflite", one_operator(RELU), N6) == ["error model-unsupported"]
    assert codes("m.onnx", b"\x08\x07 onnx", N6) == ["error model-unsupported"]
    assert codes("m.onnx", b"\x08\x07 onnx", H7) == ["warning model-unsupported"]


@pytest.mark.parametrize("board", [M4, H7_PLUS, AE3])
def test_operators_that_the_firmware_has_or_lacks(board):
    for kind in (RELU, "SignalWindow", "CIRCULAR_BUFFER"):
        assert codes("m.tflite", one_operator(kind), board) == []
    for kind in (POW, GELU, "TFLite_Detection_PostProcess", "FlexErf", "", 250):
        assert codes("m.tflite", one_operator(kind), board) == ["warning operators"]


def test_missing_operators_are_named_and_counted():
    tensors = [(INT8, [1, 4], 0)] * 5
    steps = [(POW, [0], [1]), ("FlexErf", [1], [2]), (POW, [2], [3]), (RELU, [3], [4])]
    assert message("m.tflite", make_model(steps, tensors, [0], [4]), H7) == (
        "needs operators that firmware 2026-07 lacks: FlexErf (1x), POW (2x); export the model "
        "without them"
    )


@pytest.mark.parametrize("board", [H7_PLUS, AE3])
def test_types_and_schema_that_no_firmware_takes(board):
    assert codes("m.tflite", one_operator(RELU, BOOL), board) == ["error model-unsupported"] * 2
    assert codes("m.tflite", one_operator(RELU, version=2), board) == ["error model-unsupported"]
    assert codes("m.tflite", one_operator(RELU, INT16), board) == []
    assert codes("m.tflite", one_operator(RELU, FLOAT32), board) == []
    both = codes("m.tflite", one_operator(POW, BOOL), board)
    assert both == ["error model-unsupported", "error model-unsupported", "warning operators"]


def test_memory_is_a_lower_bound_of_the_largest_operator():
    """In and out of 1024 x 1024 int8 are 2 MiB: of the 1 MiB of an H7, the 4 and 2 of the AE3."""
    model = one_operator(RELU, side=1024)
    assert codes("m.tflite", model, H7) == ["error sram"]
    assert codes("m.tflite", model, AE3, 0) == []
    assert codes("m.tflite", one_operator(RELU, side=1020), AE3, 1) == []
    assert codes("m.tflite", model, AE3, 1) == ["error sram"]  # all of it: nothing is left
    constant = [(INT8, [1024, 1024], 1), (INT8, [4], 0), (INT8, [4], 0)]
    weights = make_model([(RELU, [0, 1], [2])], constant, [1], [2], buffers=(bytes(1 << 20),))
    assert codes("m.tflite", weights, H7) == []  # constants stay in flash
    in_place = one_operator(22, side=1000)  # RESHAPE
    assert codes("m.tflite", in_place, H7) == []
    assert message("m.tflite", model, H7).startswith("needs 2.0 of 1.0 MiB RAM at least")


def test_of_a_board_whose_memory_is_not_known_nothing_is_said():
    own = Target(replace(camera(H7).board, arch_string="OWN"), camera(H7).partition)
    assert findings("m.tflite", one_operator(RELU, side=1024), own) == []


def test_indexes_that_lead_nowhere_are_found_before_a_compiler_follows_them():
    tensors = [(INT8, [1, 4], 0), (INT8, [1, 4], 0)]
    broken = [
        make_model([(RELU, [0], [7])], tensors, [0], [1]),
        make_model([(RELU, [0], [2])], tensors, [0], [1]),
        make_model([(RELU, [-2], [1])], tensors, [0], [1]),
        make_model([(RELU, [0], [1])], tensors, [0], [2]),
        make_model([(RELU, [0], [1])], [(INT8, [1, 4], 9), tensors[1]], [0], [1]),
        make_model([(RELU, [0], [1])], [tensors[0], (INT8, [1, 4], 9)], [0], [1]),
    ]
    for model in broken:
        assert codes("m.tflite", model) == ["error model-invalid"]
    optional = make_model([(RELU, [0, -1], [1])], tensors, [0], [1])
    assert codes("m.tflite", optional) == []


@pytest.mark.parametrize(
    ("path", "data", "what"),
    [
        ("m.tflite", b"", "is empty"),
        (
            "m.tflite",
            b"version https://git-lfs.github.com/spec/v1\noid x\n",
            "is a Git LFS pointer",
        ),
        ("m.tflite", b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        ("m.onnx", b"<html><body>", "is a web page"),
        ("m.lite", gzip.compress(b"x", mtime=0), "is compressed with gzip"),
        ("m.tflite", b"\x89HDF\r\n\x1a\n" + bytes(9), "is a Keras model (HDF5)"),
        ("m.tflite", b"PK\x03\x04" + bytes(9), "is a zip archive"),
        ("face.xml", b"<!doctype HTML>", "is a web page"),
        ("main.py", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("board", [*boards(), None])
def test_files_that_are_not_what_they_are_called(path, data, what, board):
    found = findings(path, data, camera(board) if board else Target())[-1]
    assert found[:2] == ("error", "not-what-it-is-called")
    assert found[2].startswith(what)
    assert ";" in found[2]  # and the way out


def test_names_that_are_no_promise():
    for path, data in (
        ("lib/pkg/__init__.py", b""),
        ("page.html", b"<!DOCTYPE html>"),
        ("a.zip", b"PK\x03\x04"),
        ("notes.txt", b"version https://git-lfs.github.com/spec/v1"),
        ("data.bin", b""),
        ("notes.TXT", b"NBIN" + bytes(9)),
    ):
        assert codes(path, data) == []


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"M\x06\x00\x1f", []),
        (b"M\x06\x1f\x1f", []),  # ARMv7E-M with single precision runs on a core with double
        (b"M\x05\x02\x1f", ["warning mpy-version"]),
        (b"M\x06\x21\x1f", ["warning mpy-version", "is bytecode 6.1"]),
        (b"M\x06\x2b\x1f", ["error mpy-version", "holds native code for xtensawin"]),
        (b"M\x06\x3f\x1f", ["error mpy-version", "holds native code for number 15"]),
        (b"x = 1\n", ["error mpy-version", "is not a compiled script"]),
        (b"", ["error mpy-version"]),
    ],
)
def test_ready_made_bytecode(head, found):
    assert codes("lib/app.mpy", head) == found[:1]
    for text in found[1:]:
        assert message("lib/app.mpy", head, H7_PLUS).startswith(text)


def test_the_cameras_own_word_on_bytecode_is_no_guess():
    board = camera(H7_PLUS)
    old = Target(board.board, board.partition, mpy_version=(6, 1))
    assert findings("a.mpy", b"M\x06\x1d\x1f", old) == []
    ((severity, _, text),) = findings("a.mpy", b"M\x06\x1f\x1f", old)
    assert (severity, text) == (
        "error",
        "is bytecode 6.3, the camera loads 6.1; copy the .py instead of the .mpy",
    )
    single = Target(board.board, board.partition, march="armv7emsp")
    assert findings("a.mpy", b"M\x06\x23\x1f", single)[0][0] == "error"  # code for double


def test_names_that_mean_something_to_the_firmware():
    assert codes("main.py", b"x = 1\n") == ["warning not-started"]
    assert codes("app/main.py", b"x = 1\n") == []
    code = b"M\x06\x00\x1f rest"
    for path in ("os.mpy", "lib/os.mpy", "os/__init__.mpy", "lib/struct/__init__.mpy"):
        assert codes(path, code) == ["warning hides-module"], path
    for path in ("app/os.mpy", "oslo.mpy", "lib/app.mpy", "os.txt", "gc.mpy"):
        assert codes(path, code) == [], path
    assert codes("lib/os/__init__.mpy", code + b"uos") == []  # extends the built-in one


def test_what_the_factory_and_the_zoo_hold_raises_nothing(shared_data: Path | None):
    for path in sorted((shared_data / "models").glob("*.tflite")) if shared_data else []:
        for board in (H7_PLUS, AE3):
            assert codes(path.name, path.read_bytes(), board) == []


REMEDY = "copy the original model"
NO_ONNX = "runs .tflite models, not ONNX; export it as .tflite"
COMPILE = "OPENMV_N6 runs only models compiled by ST Edge AI; let romfsfs convert it"


@pytest.mark.parametrize(
    ("path", "data", "board", "found"),
    [
        ("m.tflite", b"NBIN....", None, []), ("m.tflite", b"NBIN....", N6, []),
        ("m.tflite", b"NBIN....", H7, ["error npu-mismatch compiled for the N6's Neural-ART, "
         f"which OPENMV4 does not have; {REMEDY}"]),
        ("m.onnx", b"onnx", None, []),
        ("m.onnx", b"onnx", N6, [f"error model-unsupported {COMPILE}"]),
        ("m.onnx", b"onnx", H7, [f"warning model-unsupported OPENMV4 {NO_ONNX}"]),
        ("m.ONNX", b"onnx", AE3, [f"warning model-unsupported OPENMV_AE3 {NO_ONNX}"]),
        ("m.onnx", one_operator(RELU), H7, []),
        ("m.onnx", one_operator(RELU), N6, [f"error model-unsupported {COMPILE}"]),
        ("m.dat", one_operator(RELU, version=2), None, []),
        ("m.dat", one_operator(RELU, version=2), H7, ["error model-unsupported its schema is "
         "version 2, the firmware reads 3; convert the original model anew with TensorFlow 2"]),
        ("m.dat", b"nothing", H7, []),
        ("m.lite", b"nothing", None, ["error model-invalid not a usable model, no TFL3 identifier "
         "at offset 0x4; copy the file again"]),
        ("m.tflite", compiled(1, 256), N6, ["error npu-mismatch compiled for the Ethos-U65 of 256 "
         f"MACs, but the N6 has a Neural-ART; {REMEDY}"]),
        ("m.tflite", one_operator("ethos-u"), N6, ["error npu-mismatch compiled for the Ethos-U, "
         f"but the N6 has a Neural-ART; {REMEDY}"]),
        ("m.tflite", one_operator("ethos-u"), AE3, []),
        ("m.tflite", compiled(1, 256), None, []),
        ("m.tflite", one_operator(207), H7, ["warning operators needs operators that firmware "
         "2026-07 lacks: {207} (1x); export the model without them"]),
        ("m.tflite", one_operator(RELU, BOOL), H7, [
            f"error model-unsupported an {kind} is bool, ml.Model takes int8, uint8, int16, uint16 "
            "and float32; export the model with those" for kind in ("input", "output")]),
        ("m.tflite", one_operator(RELU, side=1024), H7, ["error sram needs 2.0 of 1.0 MiB RAM at "
         "least; use a smaller model or input"]),
        ("m.tflite", one_operator(22, side=1024), H7, ["error sram needs 1.000 of 1.000 MiB RAM at "
         "least; use a smaller model or input"]),
        ("m.tflite", one_operator(RELU, side=1024), H7_PLUS, []),
        ("m.tflite", one_operator(22, side=2048), AE3, ["error sram needs 4.000 of 4.000 MiB SRAM "
         "at least; use a smaller model or input"]),
        ("m.tflite", make_model([("", [0], [1])], [(INT8, [4], 0)] * 2, [0], [1]), H7, [
         "warning operators needs operators that firmware 2026-07 lacks: a custom operator without "
         "a name (1x); export the model without them"]),
        ("m.tflite", make_model([(RELU, [0], [1])], [(4, [4], 0), (BOOL, [4], 0), (INT8, [4], 0)],
         [0, 1, 2], [2]), H7, ["error model-unsupported an input is bool and int64, ml.Model takes "
         "int8, uint8, int16, uint16 and float32; export the model with those"]),
        ("m.tflite", b"", None, ["error not-what-it-is-called is empty, not .tflite; copy the file "
         "again"]),
        ("m.tar.lite", b"\x1f\x8b..", None, ["error not-what-it-is-called is compressed with gzip, "
         "not .lite; unpack it: gunzip"]),
        ("a.py", b"\x1f\x8b..", None, ["error not-what-it-is-called is compressed with gzip, not "
         ".py; unpack it: gunzip"]),
        ("a.xml", b"PK\x03\x04", None, []), ("a.b/tflite", b"", None, []),
        ("m.onnx", b"\x89HDF\r\n\x1a\n", None, ["error not-what-it-is-called is a Keras model "
         "(HDF5), not .onnx; export it as .tflite"]),
        ("m.onnx", b"PK\x03\x04", None, ["error not-what-it-is-called is a zip archive (a Keras or "
         "PyTorch model, or a download), not .onnx; unpack it, or export it as .tflite"]),
        ("a.xml", b" " * 498 + b"<!doctype html>", None, ["error not-what-it-is-called is a web "
         "page, not .xml; download the raw file"]),
        ("a.xml", b" " * 499 + b"<!doctype html>", None, []),
    ],
)  # fmt: skip
def test_what_is_said_of_a_file_in_whole(
    path: str, data: bytes, board: str | None, found: list[str]
) -> None:
    names = operators().names
    wanted = [each.replace("{207}", (*names, "number 207")[207]) for each in found]
    target = camera(board) if board else Target()
    assert [" ".join(each) for each in findings(path, data, target)] == wanted


def test_operators_by_number_and_in_lists() -> None:
    names = operators().names
    last = len(names) - 1
    assert [operator_name(number) for number in (0, last, last + 1, last + 2)] == [
        "ADD", names[-1], f"number {last + 1}", f"number {last + 2}",
    ]  # fmt: skip
    assert [listed(list("abcdefg"[:count])) for count in (0, 1, 5, 6, 7)] == [
        "", "a", "a, b, c, d, e", "a, b, c, d, e and 1 more", "a, b, c, d, e and 2 more",
    ]  # fmt: skip
    assert [suffix(path) for path in ("a/b.C", "a.b/c", "a.b.LITE", "", ".x")] == [
        ".c", "", ".lite", "", ".x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "target", "found"),
    [
        (b"M\6\0\x1f", Target(), ()), (b"M\6\x1f\x1f", Target(), ()),
        (b"M\6\x1f\x1f", Target(march="armv6m"), ("error", "holds native code for armv7emsp, the "
         "camera runs armv6m; copy the .py instead of the .mpy")),
        (b"M\5\0\x1f", Target(), ("warning", "is bytecode 5, current firmware loads 6.3; copy the "
         ".py instead of the .mpy")),
        (b"M\5\0\x1f", Target(mpy_version=(6, 1)), ("error", "is bytecode 5, the camera loads 6.1; "
         "copy the .py instead of the .mpy")),
        (b"M\6\0", Target(), ("error", "is not a compiled script; copy the .py, or compile it with "
         "mpy-cross")),
    ],
)  # fmt: skip
def test_what_is_said_of_bytecode_in_whole(
    head: bytes, target: Target, found: tuple[str, str] | tuple[()]
) -> None:
    wanted = [(found[0], "mpy-version", found[1])] if found else []
    assert findings("lib/a.mpy", head, target) == wanted


def test_of_bytecode_nothing_is_guessed_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "_installed", lambda: None)
    assert findings("a.mpy", b"M\5\0\x1f", Target()) == []
    assert len(findings("a.mpy", b"M\5\0\x1f", Target(mpy_version=(6, 3)))) == 1
