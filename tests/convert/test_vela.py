"""Models for the AE3: really compiled, and judged against the core they are for."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest
from convert_helpers import (
    FLOAT32,
    INT8,
    camera,
    convert,
    lookup,
    make_model,
    one_operator,
    open_bytes,
    stored_bytes,
    tflite,
)

from romfsfs.boards import VelaNpu, boards
from romfsfs.convert import Converters, FileOptions, State, vela
from romfsfs.convert.admission.models import mebibytes
from romfsfs.convert.flatbuffer import Model, Npu, read_model
from romfsfs.convert.types import Figures
from romfsfs.system.runner import Outcome

BOOL = 6


def operators(data: bytes):
    return read_model(lambda at, count: data[at : at + count], len(data))


@pytest.mark.parametrize("partition", [0, 1])
def test_model_is_compiled_for_each_core(tmp_path, cache, partition):
    converters = Converters(camera("OPENMV_AE3", partition), cache)
    assert lookup(converters, tmp_path, "m.tflite", tflite()).state is State.PENDING
    result = convert(converters, tmp_path, "m.tflite", tflite())
    assert (result.state, result.stored_path) == (State.READY, "m.tflite")
    assert not result.diagnostics
    assert operators(stored_bytes(result)).npu == 1


def test_cores_get_different_code_and_names_do_not_matter(tmp_path, cache):
    first, second = (Converters(camera("OPENMV_AE3", each), cache) for each in (0, 1))
    one = stored_bytes(convert(first, tmp_path, "m.tflite", tflite()))
    two = stored_bytes(convert(second, tmp_path, "m.tflite", tflite()))
    assert [operators(each).npus for each in (one, two)] == [{Npu("U55", 256)}, {Npu("U55", 128)}]
    for code in (one, two):  # stored as it is, whatever the admission check says of it
        assert lookup(second, tmp_path, "m.tflite", code).artifact is None
    again = lookup(first, tmp_path, "models/other name.LITE", tflite())
    assert again.state is State.READY
    assert stored_bytes(again) == one


@pytest.mark.parametrize("partition", [0, 1])
def test_real_models(tmp_path, cache, shared_data: Path | None, partition):
    models = sorted((shared_data / "models").glob("*.tflite")) if shared_data else []
    converters = Converters(camera("OPENMV_AE3", partition), cache)
    for path in models:
        result = convert(converters, tmp_path, path.name, path.read_bytes())
        assert result.state is State.READY, result.message
        compiled = stored_bytes(result)
        assert operators(compiled).npu == 1
        expected = {"force_int_quant.tflite": 2, "yolo_lc_192.tflite": 1}.get(path.name, 0)
        assert operators(compiled).cpu == expected
        assert ["cpu-fallback"] * bool(expected) == [each.code for each in result.diagnostics]
        unchanged = lookup(converters, tmp_path, path.name, compiled)
        assert (unchanged.state, unchanged.artifact) == (State.READY, None)


def test_converted_model_is_told_by_its_operators_and_not_by_a_text_in_it(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    assert b"ethos-u" in tflite()  # in the description
    assert lookup(converters, tmp_path, "m.tflite", tflite()).state is State.PENDING
    converted = tflite(custom_code="ethos-u")
    result = lookup(converters, tmp_path, "m.tflite", converted)
    assert (result.state, result.artifact, result.size) == (State.READY, None, len(converted))
    other = tflite(custom_code="ethos-u-like")
    assert lookup(converters, tmp_path, "m.tflite", other).state is State.PENDING


def test_more_sram_than_the_core_has(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3", heap=20 << 10), cache)
    result = convert(converters, tmp_path, "m.tflite", tflite(side=64))
    assert (result.state, result.artifact) == (State.FAILED, None)
    assert result.diagnostics[0].code == "sram"
    assert result.message == (
        "needs 0.03 of 0.02 MiB SRAM; try --optimise Size (optimise in romfs.toml), or use a "
        "smaller model or input"
    )
    assert "Total SRAM used" in result.diagnostics[0].detail
    assert lookup(converters, tmp_path, "m.tflite", tflite(side=64)) == result


def test_almost_all_of_the_sram(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3", heap=34_000), cache)
    result = convert(converters, tmp_path, "m.tflite", tflite(side=64))
    assert result.state is State.READY
    assert [each.code for each in result.diagnostics] == ["sram-tight"]


def test_model_that_stays_on_the_cpu(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    result = convert(converters, tmp_path, "m.tflite", tflite(dtype=FLOAT32))
    assert result.state is State.READY
    assert [each.code for each in result.diagnostics] == ["cpu-fallback"]
    assert result.message == (
        "nothing of it runs on the NPU: CONV_2D (Operation has tensor with unsupported DataType "
        "Float32); quantise the model to int8"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00" * 100, "no TFL3 identifier"),
        (tflite()[:60], "leads out of the file"),
    ],
)
def test_no_model_at_all(tmp_path, cache, data, reason):
    result = convert(Converters(camera("OPENMV_AE3"), cache), tmp_path, "m.tflite", data)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "model-invalid")
    assert reason in result.message
    plain = convert(Converters(camera("OPENMV4P"), cache), tmp_path, "m.tflite", data)
    assert (plain.state, plain.artifact) == (State.READY, None)


def test_what_vela_says_of_a_damaged_model():
    said = (
        "Traceback ...\nRuntimeError: Failed to load TfLite model. Buffer contents inconsistent\n"
    )
    problem = vela.explain(Outcome(1, said, False, 0.1))
    assert (problem.code, problem.message) == (
        "model-invalid",
        "Vela cannot read the model: RuntimeError: Failed to load TfLite model. Buffer contents "
        "inconsistent; copy the file again",
    )


def test_damaged_installation_is_told_and_not_remembered(tmp_path, cache, monkeypatch):
    broken = tmp_path / "packages" / "numpy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('failed to load libblas')")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(broken.parent))
        result = convert(Converters(camera("OPENMV_AE3"), cache), tmp_path, "m.tflite", tflite())
    assert result.message == "Vela failed with exit status 1: ImportError: failed to load libblas"
    later = Converters(camera("OPENMV_AE3"), cache)
    assert convert(later, tmp_path, "m.tflite", tflite()).state is State.READY


def test_vela_not_installed(tmp_path, cache, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    converters = Converters(camera("OPENMV_AE3"), cache)
    with open_bytes(tmp_path, tflite()) as (fd, digest):
        for ask in (converters.lookup, converters.convert):
            result = ask("m.tflite", fd, digest)
            assert (result.state, result.diagnostics[0].code) == (State.FAILED, "tool-missing")
            assert "pip install ethos-u-vela" in result.message
    monkeypatch.undo()
    assert convert(converters, tmp_path, "m.tflite", tflite()).state is State.READY


def test_an_upgrade_while_mounted_converts_again(tmp_path, cache, monkeypatch):
    packages = tmp_path / "packages"
    for version in ("5.2.0", "5.3.0"):
        for old in packages.glob("*"):
            shutil.rmtree(old)
        metadata = packages / f"ethos_u_vela-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: ethos-u-vela\nVersion: {version}\n")
        if version == "5.2.0":
            monkeypatch.syspath_prepend(packages)
            converters = Converters(camera("OPENMV_AE3"), cache)
        assert vela.installed_version() == version
        assert lookup(converters, tmp_path, "m.tflite", tflite()).state is State.PENDING
        assert convert(converters, tmp_path, "m.tflite", tflite()).state is State.READY


def test_command_line_and_configuration():
    npu = camera("OPENMV_AE3", 1).partition.npu
    chosen = FileOptions(optimise="Size", arguments=("--verbose-all",))
    argv = vela.vela_argv(npu, chosen, "model.tflite")
    assert argv[1:4] == ["-m", "ethosu.vela", "--verbose-all"]  # ours after it: the last wins
    assert " ".join(argv[4:]) == (
        "--system-config RTSS_HE_SRAM_MRAM --accelerator-config ethos-u55-128 --memory-mode "
        "Shared_Sram --optimise Size --config vela.ini --output-dir out model.tflite"
    )
    ini = vela.configuration().splitlines()
    at = ini.index("[System_Config.RTSS_HE_SRAM_MRAM]")
    assert ini[at + 1 : at + 3] == ["core_clock=160e6", "axi0_port=Sram"]
    parts = [part for board in boards().values() for part in board.partitions]
    for each in (part.npu for part in parts if isinstance(part.npu, VelaNpu)):
        assert f"[System_Config.{each.system_config}]" in ini
        assert f"[Memory_Mode.{each.memory_mode}]" in ini


def test_optimisation_is_part_of_what_is_cached(tmp_path, cache):
    convert(Converters(camera("OPENMV_AE3"), cache), tmp_path, "m.tflite", tflite())
    size = Converters(camera("OPENMV_AE3", optimise="Size"), cache)
    assert lookup(size, tmp_path, "m.tflite", tflite()).state is State.PENDING


def test_summary_without_the_figure(tmp_path):
    assert vela.figures(vela.summary(tmp_path), "", 1).sram is None
    (tmp_path / "m_summary_x.csv").write_text("experiment,sram_memory_used\ndefault,1.5\n")
    assert vela.figures(vela.summary(tmp_path), "", 1).sram == 1536
    (tmp_path / "m_summary_x.csv").write_text("experiment,other\ndefault,1.5\n")
    assert vela.figures(vela.summary(tmp_path), "", 1).sram is None


def test_sizes_that_round_to_the_same_get_more_decimals():
    assert mebibytes(int(5.1 * (1 << 20)), 4 << 20) == "5.1 of 4.0 MiB"
    assert mebibytes((4 << 20) + 20_000, 4 << 20) == "4.02 of 4.00 MiB"


HARD_SWISH = 117


def test_the_reason_stands_before_the_stack_trace(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    result = convert(converters, tmp_path, "m.tflite", one_operator(HARD_SWISH, FLOAT32))
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "model-unsupported")
    assert result.message.startswith("Vela: HARD_SWISH 't1' Does not have valid TFLite Semantics: ")
    assert "IFM has to be 8bit" in result.message
    assert "quantise the model to int8, or" in result.message
    assert lookup(converters, tmp_path, "m.tflite", one_operator(HARD_SWISH, FLOAT32)) == result


def test_operators_are_called_by_their_names_and_promised_nothing(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    tensors = [(INT8, [1, 4], 0)] * 3
    model = make_model([(19, [0], [1]), ("SignalWindow", [1], [2])], tensors, [0], [2])
    result = convert(converters, tmp_path, "m.tflite", model)
    (found,) = result.diagnostics
    assert (found.severity, found.message) == (
        "info",
        "1 operator runs on the CPU: SignalWindow (Unsupported opType)",
    )
    alone = convert(converters, tmp_path, "m.tflite", one_operator("SignalWindow"))
    (told,) = alone.diagnostics
    assert (told.severity, told.message) == (  # it is made for the CPU: nothing to be done about
        "info",
        "nothing of it runs on the NPU: SignalWindow (Unsupported opType)",
    )


def test_what_no_firmware_takes_is_not_given_to_vela(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    for model in (one_operator(19, BOOL), one_operator(19, version=2), one_operator(19)[:-60]):
        assert lookup(converters, tmp_path, "m.tflite", model).state is State.FAILED


def test_operators_with_one_reason_are_named_together():
    said = "".join(
        f"Warning (supported operators) operator: {name}, ofm: 'x'\nReason: {reason}\n"
        for name, reason in [("ADD", "Float32 (a;b;c)"), ("POW", "Unsupported opType"),
                             ("RELU", "Float32 (d)")]
    )  # fmt: skip
    model = Model(
        3, {"Mine": 1, "ethos-u": 2}, {0: 4, 19: 1, 78: 1, 1: 9}, frozenset(), (), (), 0, ()
    )
    (found,) = vela.cpu_fallback(said, model)
    assert found.message == (
        "16 operators run on the CPU: ADD, RELU (Float32), AVERAGE_POOL_2D, Mine, POW "
        "(Unsupported opType)"
    )


def test_what_vela_says_of_a_model_is_kept_with_it(tmp_path, cache):
    converters = Converters(camera("OPENMV_AE3"), cache)
    tensors = [(INT8, [1, 4], 0)] * 3
    model = make_model([(19, [0], [1]), ("SignalWindow", [1], [2])], tensors, [0], [2])
    result = convert(converters, tmp_path, "m.tflite", model)
    stored = stored_bytes(result)

    def read(at: int, count: int) -> bytes:
        return stored[at : at + count]

    later = Converters(camera("OPENMV_AE3"), cache)
    found = later.figures("models/m.tflite", read, len(stored), result.digest)
    assert (found.npu, found.operators, found.flash) == (1, 2, len(stored))
    assert 0 < found.sram < 1024
    assert 0 < found.seconds < 0.001
    assert found.text.startswith("1 of 2 operators on the NPU (50%), ")
    assert found.text.endswith(" ms per inference")
    # Of a model that nobody compiled here, the bytes tell what they can.
    other = later.figures("m.tflite", read, len(stored), "0" * 64)
    assert other == Figures(flash=len(stored))
    plain = one_operator(19)
    as_is = later.figures("m.tflite", lambda at, n: plain[at : at + n], len(plain), "1" * 64)
    assert as_is.text == f"1 operator, all on the CPU, {len(plain):,} B flash"
    assert later.figures("m.txt", read, len(stored), result.digest) is None
