"""Models for the N6, with a fake of ST's proprietary tool that keeps to its interface."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import camera, convert, lookup, open_bytes, stored_bytes, tflite
from tool_time import is_up_after

from romfsfs.convert import Conversion, Converters, State, stedgeai
from romfsfs.convert.options import OptionError
from romfsfs.convert.types import Figures
from romfsfs.system.runner import Outcome

ONNX = b"\x08\x07\x12\x04fake"


class Install:
    """An install of the fake tool."""

    def __init__(self, root: Path, inside: str = "Utilities/linux") -> None:
        self.root = root
        self.folder = root / inside
        self.folder.mkdir(parents=True)
        self.tool = self.folder / "stedgeai"
        source = Path(__file__).with_name("fake_stedgeai.py").read_text()
        self.tool.write_text(f"#!{sys.executable}\n{source}")
        self.tool.chmod(0o755)
        self.plan()

    def plan(self, **plan: str) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture(autouse=True)
def no_install(monkeypatch, tmp_path):
    """Only what a test installs is found, whatever this machine has."""
    monkeypatch.delenv("STEDGEAI_CORE_DIR", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(stedgeai, "_INSTALLS", (str(tmp_path / "openmvide*/share/stedgeai"),))


@pytest.fixture
def install(tmp_path) -> Install:
    return Install(tmp_path / "STEdgeAI" / "3.0")


@pytest.fixture
def n6(install, cache) -> Converters:
    return Converters(camera("OPENMV_N6", stedgeai=str(install.root)), cache)


def only_code(result: Conversion) -> str:
    (diagnostic,) = result.diagnostics
    return diagnostic.code


def test_command_line_and_working_files(tmp_path, install, n6, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    result = convert(n6, tmp_path, "models/face.tflite", tflite())
    assert (result.state, result.stored_path) == (State.READY, "models/face.tflite")
    assert stored_bytes(result) == b"NBIN" + tflite()
    (call,) = install.calls()
    assert " ".join(call["argv"]) == (
        "generate --model model.tflite --relocatable --target stm32n6 "
        "--st-neural-art default@neuralart.json"
    )
    assert call["files"] == ["model.tflite", "neuralart.json", "stm32n6.mpool"]
    assert call["mode"] == "0o700"
    assert call["profile"]["memory_pool"] == "stm32n6.mpool"
    assert call["profile"]["options"].endswith("--enable-epoch-controller --optimization 3")
    assert call["pool"]["params"]["param"][0]["value"] == "1024"
    assert [each["fname"] for each in call["pool"]["memory"]["mempools"]][-1] == "xSPI2"
    environment = call["environment"]
    assert environment["STEDGEAI_CORE_DIR"] == str(install.root)
    assert environment["PYTHONIOENCODING"] == "utf-8"
    assert environment["PATH"].startswith(str(install.folder))
    assert "GITHUB_TOKEN" not in environment
    assert lookup(n6, tmp_path, "other.tflite", tflite()).artifact == result.artifact
    assert len(install.calls()) == 1


@pytest.mark.parametrize(
    "folder", ["st_ai_output", "build", "workspace/network_npu_reloc_build", "next/version"]
)
def test_result_is_found_where_any_version_puts_it(tmp_path, install, n6, folder):
    install.plan(folder=folder)
    assert stored_bytes(convert(n6, tmp_path, "m.lite", tflite())).startswith(b"NBIN")
    assert install.calls()[0]["argv"][2] == "model.tflite"


def test_onnx_too_but_not_what_is_converted_already(tmp_path, install, n6):
    assert stored_bytes(convert(n6, tmp_path, "m.onnx", ONNX)) == b"NBIN" + ONNX
    assert install.calls()[0]["argv"][2] == "model.onnx"
    for compiled in (b"NBIN\0\0\0\0", tflite(custom_code="ethos-u")):
        done = lookup(n6, tmp_path, "m.tflite", compiled)
        assert (done.state, done.artifact) == (State.READY, None)
    broken = lookup(n6, tmp_path, "m.tflite", b"oops")
    assert (broken.state, only_code(broken)) == (State.FAILED, "model-invalid")


def test_complaint_reaches_the_user(tmp_path, install, n6):
    install.plan(act="fail")
    result = convert(n6, tmp_path, "m.onnx", ONNX)
    assert (result.state, only_code(result)) == (State.FAILED, "tool-failed")
    assert result.message == (
        "ST Edge AI cannot convert it: E010(InvalidModelError): Couldn't load TFLite model"
    )
    assert "elapsed time" in result.diagnostics[0].detail
    convert(n6, tmp_path, "m.onnx", ONNX)
    assert len(install.calls()) == 1  # it would say the same again


def test_complaint_about_this_machine_is_not_kept(tmp_path, install, n6):
    install.plan(act="no-compiler")
    result = convert(n6, tmp_path, "m.onnx", ONNX)
    assert result.message == (
        "ST Edge AI cannot convert it: make: *** [arm-none-eabi-gcc: not found] Error 127"
    )
    assert lookup(n6, tmp_path, "m.onnx", ONNX) == result
    install.plan()
    assert convert(n6, tmp_path, "m.onnx", ONNX).state is State.READY


def test_two_names_of_a_model_that_fails(tmp_path, install, n6):
    """Neither makes the other's failure forgotten, or both were tried again and again."""
    install.plan(act="no-compiler")
    results = {name: convert(n6, tmp_path, name, ONNX) for name in ("a.onnx", "b.onnx")}
    for name, result in results.items():
        assert result.stored_path == name
        assert lookup(n6, tmp_path, name, ONNX) == result


def test_prompt_gets_no_answer_and_does_not_hang(tmp_path, install, n6):
    install.plan(act="prompt")
    result = convert(n6, tmp_path, "m.onnx", ONNX)
    assert (result.state, only_code(result)) == (State.FAILED, "tool-failed")
    assert "EOFError" in result.message


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"act": "nothing"}, "ST Edge AI made no file: ST Edge AI Core v3.0.0-00000 fake"),
        ({"content": "ELF?"}, "ST Edge AI's network_rel.bin is no network for the Neural-ART"),
    ],
)
def test_success_without_a_usable_result(tmp_path, install, n6, plan, message):
    install.plan(**plan)
    result = convert(n6, tmp_path, "m.onnx", ONNX)
    assert (result.state, only_code(result)) == (State.FAILED, "tool-failed")
    assert result.message.startswith(message)
    install.plan()
    assert convert(n6, tmp_path, "m.onnx", ONNX).state is State.READY


def test_hanging_tool_is_stopped_and_its_last_output_told(tmp_path, install, cache, monkeypatch):
    install.plan(act="hang")
    is_up_after("epoch 3 of 9", 1.0, monkeypatch)
    target = camera("OPENMV_N6", stedgeai=str(install.tool), timeout_seconds=1.0)
    converters = Converters(target, cache)
    started = time.monotonic()
    result = convert(converters, tmp_path, "m.onnx", ONNX)
    assert time.monotonic() - started < 30
    assert (result.state, only_code(result)) == (State.FAILED, "time-out")
    assert result.message == (
        "ST Edge AI did not finish in 1 s and was stopped; its last output: compiling epoch 3 of 9"
    )
    assert lookup(converters, tmp_path, "m.onnx", ONNX) == result  # remembered, ...
    fresh = Converters(target, cache)
    assert lookup(fresh, tmp_path, "m.onnx", ONNX).state is State.PENDING  # ... but not cached
    install.plan()
    assert convert(converters, tmp_path, "m.onnx", ONNX).state is State.READY  # and tried again


def test_tool_missing_says_where_to_get_it_and_is_never_cached(tmp_path, cache, monkeypatch):
    converters = Converters(camera("OPENMV_N6"), cache)
    with open_bytes(tmp_path, ONNX) as (fd, digest):
        for ask in (converters.lookup, converters.convert):
            result = ask("m.onnx", fd, digest)
            assert (result.state, only_code(result)) == (State.FAILED, "tool-missing")
            assert stedgeai.WHERE_TO_GET in result.message
            assert "STEDGEAI_CORE_DIR" in result.message
    install = Install(tmp_path / "later")
    monkeypatch.setenv("STEDGEAI_CORE_DIR", str(install.root))
    assert lookup(converters, tmp_path, "m.onnx", ONNX).state is State.PENDING


def test_a_tool_that_is_removed_just_then_is_not_a_model_that_cannot_be_read(
    tmp_path, cache, monkeypatch
):
    gone = tmp_path / "gone" / "stedgeai"
    monkeypatch.setattr(stedgeai, "find_tool", lambda option: gone)
    result = lookup(Converters(camera("OPENMV_N6"), cache), tmp_path, "m.onnx", ONNX)
    assert (result.state, only_code(result)) == (State.FAILED, "tool-missing")
    assert result.message == (
        f"ST Edge AI cannot be used: No such file or directory ({gone}); retry"
    )


def test_order_of_the_search(tmp_path, monkeypatch):
    ide = Install(tmp_path / "openmvide-4.8" / "share" / "stedgeai")
    assert stedgeai.find_tool(None) == ide.tool
    on_path = Install(tmp_path / "path", inside="bin")
    monkeypatch.setenv("PATH", str(on_path.folder))
    assert stedgeai.find_tool(None) == on_path.tool
    core = Install(tmp_path / "core", inside="3.0/Utilities/linux")
    monkeypatch.setenv("STEDGEAI_CORE_DIR", str(core.root))
    assert stedgeai.find_tool(None) == core.tool
    option = Install(tmp_path / "option")
    assert stedgeai.find_tool(str(option.root)) == option.tool
    assert stedgeai.find_tool(str(option.tool)) == option.tool
    with pytest.raises(stedgeai.ToolMissing, match="where --stedgeai says"):
        stedgeai.find_tool(str(tmp_path / "nowhere"))


def test_installs_that_may_not_be_entered_are_none(tmp_path, install, cache, monkeypatch):
    """Another user's; the session of an N6 must work all the same."""
    closed = tmp_path / "openmvide-4.9" / "share" / "stedgeai" / "3.0"

    def refuse(call: Any) -> Any:
        def look(path: Any, *args: Any, **options: Any) -> Any:
            if Path(str(path)).is_relative_to(closed / "x") or Path(str(path)).parent == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args, **options)

        return look

    closed.mkdir(parents=True)
    monkeypatch.setattr(os, "stat", refuse(os.stat))
    monkeypatch.setenv("STEDGEAI_CORE_DIR", str(closed / "x"))
    converters = Converters(camera("OPENMV_N6"), cache)
    for environment in ({}, {"STEDGEAI_CORE_DIR": "x" * 5000}, {"STEDGEAI_CORE_DIR": ""}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        result = lookup(converters, tmp_path, "m.onnx", ONNX)
        assert (result.state, only_code(result)) == (State.FAILED, "tool-missing")


def test_nobody_has_a_home(tmp_path, cache, monkeypatch):
    """In a container with a user of any number."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(stedgeai, "_INSTALLS", ("~/openmvide*/share/stedgeai",))
    for option in (None, "~/stedgeai", "~nobody-of-this-name/stedgeai"):
        converters = Converters(camera("OPENMV_N6", stedgeai=option), cache)
        result = lookup(converters, tmp_path, "m.onnx", ONNX)
        assert (result.state, only_code(result)) == (State.FAILED, "tool-missing")


def test_another_install_behind_the_same_tool_converts_again(tmp_path, cache, monkeypatch):
    """STEDGEAI_CORE_DIR says where the tool takes its compilers from."""
    tool = Install(tmp_path / "path", inside="bin")
    monkeypatch.setenv("PATH", f"{tool.folder}:/usr/bin:/bin")
    converters = Converters(camera("OPENMV_N6"), cache)
    monkeypatch.chdir(tmp_path)
    for core in ("old", "new"):
        monkeypatch.setenv("STEDGEAI_CORE_DIR", core if core == "old" else str(tmp_path / core))
        assert lookup(converters, tmp_path, "m.onnx", ONNX).state is State.PENDING
        assert convert(converters, tmp_path, "m.onnx", ONNX).state is State.READY
        assert tool.calls()[-1]["environment"]["STEDGEAI_CORE_DIR"] == str(tmp_path / core)


def test_the_install_that_was_chosen_is_not_mixed_with_another(tmp_path, install, n6, monkeypatch):
    monkeypatch.setenv("STEDGEAI_CORE_DIR", str(tmp_path / "other"))
    assert convert(n6, tmp_path, "m.onnx", ONNX).state is State.READY
    assert install.calls()[-1]["environment"]["STEDGEAI_CORE_DIR"] == str(install.root)


def test_replaced_tool_converts_again(tmp_path, install, n6):
    convert(n6, tmp_path, "m.onnx", ONNX)
    install.tool.write_text(install.tool.read_text() + "# version 2\n")
    assert lookup(n6, tmp_path, "m.onnx", ONNX).state is State.PENDING


def test_profile_and_pool_of_the_users(tmp_path, install, cache):
    folder = tmp_path / "mine"
    folder.mkdir()
    pool = {"memory": {"mempools": []}, "mine": 1}
    (folder / "my.mpool").write_text(json.dumps(pool))
    profiles = {"big": {"memory_pool": "my.mpool", "options": "--Omax % --x"}}
    (folder / "my.json").write_text(json.dumps({"Globals": {}, "Profiles": profiles}))
    target = camera(
        "OPENMV_N6",
        stedgeai=str(install.root),
        profile=f"big@{folder / 'my.json'}",
        optimise=1,
    )
    assert convert(Converters(target, cache), tmp_path, "m.onnx", ONNX).state is State.READY
    (call,) = install.calls()
    assert call["argv"][-1] == "big@neuralart.json"
    assert call["profile"]["options"] == "--Omax --optimization 1 --x"
    assert call["pool"] == pool
    (folder / "my.mpool").write_text(json.dumps({**pool, "mine": 2}))
    converters = Converters(target, cache)
    assert lookup(converters, tmp_path, "m.onnx", ONNX).state is State.PENDING
    (folder / "my.json").write_text("{")
    broken = lookup(converters, tmp_path, "m.onnx", ONNX)
    assert (broken.state, only_code(broken)) == (State.FAILED, "options")
    own_pool = camera("OPENMV_N6", stedgeai=str(install.root), mpool=str(folder / "my.mpool"))
    convert(Converters(own_pool, cache), tmp_path, "m.onnx", ONNX)
    assert install.calls()[-1]["pool"]["mine"] == 2


def test_what_the_tool_says_of_a_network():
    said = (
        "activations (rw) : 884,736 B (864.00 KiB) (1 segment)\n"
        "Total number of epochs: 76 of which 5 implemented in software\n"
    )
    found = stedgeai.figures(said, 1_000_000)
    assert found == Figures(71, 76, 884_736, 1_000_000)
    assert found.text == ("71 of 76 operators on the NPU (93%), 884,736 B SRAM, 1,000,000 B flash")
    assert stedgeai.figures("nothing of the kind", 7) == Figures(flash=7)


@pytest.mark.parametrize(("depth", "found"), [(0, True), (6, True), (7, False)])
def test_how_far_below_a_result_is_looked_for(tmp_path, depth, found):
    """A tool may leave a tree of any depth."""
    folder = tmp_path.joinpath(*"abcdefg"[:depth])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network_rel.bin").write_bytes(b"x")
    assert stedgeai.find_result(tmp_path) == (folder / "network_rel.bin" if found else None)


def test_the_newest_of_several_versions(tmp_path):
    installs = [Install(tmp_path / "all" / name) for name in ("2.2", "3.1", "3.0")]
    (tmp_path / "all" / "readme.txt").write_text("newer than all by its name")
    assert stedgeai.find_tool(str(tmp_path / "all")) == installs[1].tool
    installs[1].tool.chmod(0o644)
    assert stedgeai.find_tool(str(tmp_path / "all")) == installs[2].tool
    with pytest.raises(stedgeai.ToolMissing):
        stedgeai.find_tool(str(installs[1].tool))


def test_where_the_tool_takes_its_parts_from(monkeypatch):
    inside, alone = Path("/st/3.0/Utilities/linux/stedgeai"), Path("/usr/bin/stedgeai")
    assert stedgeai.core_folder(inside, None) == stedgeai.core_folder(inside, "x") == "/st/3.0"
    assert stedgeai.core_folder(alone, None) == stedgeai.core_folder(alone, "x") == "/usr/bin"
    monkeypatch.setenv("STEDGEAI_CORE_DIR", "/core")
    assert stedgeai.core_folder(inside, "x") == "/st/3.0"
    assert stedgeai.core_folder(inside, None) == "/core"
    assert stedgeai.core_folder(alone, "x") == stedgeai.core_folder(alone, None) == "/core"


def test_what_the_user_gives_the_tool_comes_before_what_must_be():
    argv = stedgeai.generate_argv(Path("/st"), "model.onnx", "stm32n6", "big", ["-v", "2"])
    assert argv == [
        "/st", "generate", "-v", "2", "--model", "model.onnx", "--relocatable",
        "--target", "stm32n6", "--st-neural-art", "big@neuralart.json",
    ]  # fmt: skip


PROFILES = {"a": {"options": "--x %"}, "b": 3}


@pytest.mark.parametrize(
    ("content", "profile", "said"),
    [
        (json.dumps({"Profiles": PROFILES}), "c", "{path} has no profile c; it has a, b"),
        (json.dumps({"Profiles": PROFILES}), "b", "{path} has no profile b; it has a, b"),
        (json.dumps({"Profiles": 3}), "a", "{path} has no profile a; it has none"),
        ("[]", "a", "{path} has no profile a; it has none"),
        ("{", "a", "{path} is not JSON: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1)"),
        (None, "a", "{path} cannot be read: [Errno 2] No such file or directory: '{path}'"),
        (" " * ((1 << 20) + 1), "a", "{path} is too large for a settings file"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(tmp_path, content, profile, said):
    path = tmp_path / "my.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OptionError) as caught:
        stedgeai.make_settings("a", stedgeai.FileOptions(profile=f"{profile}@{path}"))
    assert str(caught.value) == said.format(path=path)
    with pytest.raises(OptionError) as caught:
        stedgeai.make_settings("default", stedgeai.FileOptions(profile="big"))
    assert str(caught.value) == ("there is no profile big, only default; or give NAME@FILE")


def test_a_profile_of_the_users_by_its_file_alone(tmp_path):
    """Called as ours; the largest file that is read; pools: the option's, its own, ours."""
    path = tmp_path / "my.json"
    text = json.dumps({"Profiles": {"default": {"options": "-a % -b", "memory_pool": "own"}}})
    path.write_text(text.ljust(1 << 20))
    (tmp_path / "own").write_text("its own")
    (tmp_path / "chosen").write_text("chosen")
    options = stedgeai.FileOptions(profile=str(path), optimise=0)
    made = stedgeai.make_settings("default", options)
    assert (made.name, made.pool) == ("default", "its own")
    assert json.loads(made.profile)["Profiles"]["default"] == {
        "options": "-a --optimization 0 -b", "memory_pool": "stm32n6.mpool",
    }  # fmt: skip
    chosen = options._replace(mpool=str(tmp_path / "chosen"))
    assert stedgeai.make_settings("default", chosen).pool == "chosen"
    ours = stedgeai.make_settings("default", stedgeai.FileOptions())
    assert json.loads(ours.pool)["memory"]["mempools"][-1]["fname"] == "xSPI2"


def test_the_likeliest_result_and_then_the_least_deep(tmp_path):
    places = ["a/b/network_rel.bin", "z/network_rel.bin", "build/network_rel.bin",
              "st_ai_output/network_rel.bin"]  # fmt: skip
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_bytes(b"NBIN")
        assert stedgeai.find_result(tmp_path) == path


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (1, "error: one\nE123 two\nerrors\n", "ST Edge AI cannot convert it: E123 two"),
        (1, "all well\n", "ST Edge AI failed with exit status 1: all well"),
        (0, "error: one\n", "ST Edge AI made no file: error: one"),
        (-9, "error: one\n", "ST Edge AI was killed by SIGKILL: error: one"),
    ],
)
def test_why_there_is_no_result(status, output, said):
    found = stedgeai.explain(Outcome(status, output, False, 1.0))
    assert found == ("error", "tool-failed", said, output)


def test_figures_are_of_what_is_said():
    said = "  activations (rw): 12 B\nepochs: 3 of which 5 implemented in software\n"
    assert stedgeai.figures(said, 7) == Figures(0, 3, 12, 7)
