"""Models for the N6: `.tflite`, `.lite` and `.onnx` through ST Edge AI, for the Neural-ART.

ST's tool is proprietary and installed by the user. It is run in a folder with a neuralart JSON
(compiler options of a profile) and the memory pool file that this names. The folder of its result,
`network_rel.bin`, differs between versions, so it is searched for. See docs/converters.md; our
profile is in `neural_art.json`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from romfsfs.convert.admission.models import NEURAL_ART_MAGIC, look_into, suffix
from romfsfs.convert.options import FileOptions, OptionError, described, file_digest, profile_file
from romfsfs.convert.types import (
    Decision,
    Diagnostic,
    Figures,
    Job,
    Product,
    Reader,
    State,
    Target,
    error,
    failure,
    refused,
    time_out,
    unchanged,
)
from romfsfs.errors import ToolMissing
from romfsfs.system.programs import find_on_path, installed, search_path
from romfsfs.system.runner import GIB, Limits, Outcome, environment, made_file, run_tool

if TYPE_CHECKING:
    from romfsfs.boards import NeuralArtNpu

WHERE_TO_GET = "https://www.st.com/en/development-tools/stedgeai-core.html"
_SUFFIXES = (".tflite", ".lite", ".onnx")
_PROFILE = "neuralart.json"
_POOL = "stm32n6.mpool"
_RESULT = "network_rel.bin"
#: Where versions of the tool put the result, newest first; then all folders are searched.
_RESULT_FOLDERS = ("st_ai_output", "build", "workspace/network_npu_reloc_build")
#: How many folders deep the result is searched for.
_RESULT_DEPTH = 6
_PLATFORMS = ("linux", "mac", "macarm", "windows")
_NAMES = ("stedgeai", "stedgeai.exe")
#: Folders below which OpenMV's IDE and SDK, and ST's own installers, put the tool.
_INSTALLS = (
    "~/openmvide*/share/qtcreator/stedgeai",
    "/opt/openmvide*/share/qtcreator/stedgeai",
    "/Applications/OpenMV IDE.app/Contents/Resources/stedgeai",
    "~/openmv-sdk*/stedgeai",
    "~/.openmv*/sdk*/stedgeai",
    "/opt/ST/STEdgeAI",
    "~/ST/STEdgeAI",
    "~/STM32Cube/Repository/Packs/STMicroelectronics/X-CUBE-AI",
)
_COMPLAINT = re.compile(r"^.*(?:\bE\d{3}\b|\berror\b).*$", re.M | re.I)
#: What the tool may print about its result.
_EPOCHS = re.compile(r"epochs: (\d{1,9}) of which (\d{1,9}) implemented in software")
_ACTIVATIONS = re.compile(r"^ *activations \(rw\) *: *([\d,]{1,15}) B\b", re.M)
#: The tool's name for an error that is the model's fault.
_INVALID_MODEL = "InvalidModelError"
_MAX_SETTINGS_BYTES = 1 << 20


class Settings(NamedTuple):
    """The tool's input besides the model. name: of the profile.

    profile: the text of a neuralart JSON that refers to `_POOL`. pool: that of the memory pools."""

    name: str
    profile: str
    pool: str


class NeuralArtConverter:
    """Compiles models for the N6's NPU with ST's tool."""

    name = "stedgeai"
    version = 1
    source_name = "model"

    def __init__(self, target: Target, npu: NeuralArtNpu) -> None:
        self._options = target.options
        self._npu = npu

    def concerns(self, path: str) -> bool:
        return suffix(path) in _SUFFIXES

    def made_for(self, path: str) -> str:
        chosen = self._options.for_path(path)
        profile = chosen.profile or ""
        file = profile_file(profile)
        return described({
            "npu": self._npu.target,
            "optimise": str(chosen.level),
            "profile": f"{profile} {file_digest(file)}" if file else profile,
            "mpool": f"{chosen.mpool} {file_digest(chosen.mpool)}" if chosen.mpool else "",
            "arguments": shlex.join(chosen.arguments or ()),
        })  # fmt: skip

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        if read(0, len(NEURAL_ART_MAGIC)) == NEURAL_ART_MAGIC:
            return unchanged(path)
        if suffix(path) != ".onnx":
            model = look_into(read, size)
            if isinstance(model, Diagnostic):
                return refused(path, model)
            if model.npu:  # compiled for another camera's NPU: no compiler takes it
                return unchanged(path)
        tool = find_tool(self._options.stedgeai)
        chosen = self._options.for_path(path)
        settings = make_settings(self._npu.profile, chosen)
        core = core_folder(tool, self._options.stedgeai)
        more = (*settings, *(chosen.arguments or ()))
        parameters = (_identity(tool), core, self._npu.target, _kind(path), *more)
        return Decision(State.PENDING, path, parameters)

    def convert(self, job: Job) -> Product:
        tool = find_tool(self._options.stedgeai)
        chosen = self._options.for_path(job.path)
        settings = make_settings(self._npu.profile, chosen)
        # The tool recognises formats by their suffix, and does not know `.lite`.
        model = job.source.rename(job.folder / f"model{_kind(job.path)}")
        (job.folder / _PROFILE).write_text(settings.profile, "utf-8")
        (job.folder / _POOL).write_text(settings.pool, "utf-8")
        limits = Limits(self._options.timeout_seconds, memory_bytes=32 * GIB, file_bytes=4 * GIB)
        arguments = chosen.arguments or ()
        argv = generate_argv(tool, model.name, self._npu.target, settings.name, arguments)
        env = environment(
            job.folder, STEDGEAI_CORE_DIR=core_folder(tool, self._options.stedgeai),
            PATH=os.pathsep.join((str(tool.parent), search_path())),
        )  # fmt: skip
        outcome = run_tool(argv, folder=job.folder, env=env, limits=limits, cancel=job.cancel)
        if outcome.timed_out:
            problem = time_out("ST Edge AI", outcome, limits.seconds)
            return Product(None, (problem,), cacheable=False)
        result = find_result(job.folder) if outcome.status == 0 else None
        if result is None:
            # Only a model's fault is cached: this machine (no cross-compiler, memory) can change.
            said = outcome.status > 0 and _INVALID_MODEL in outcome.output
            return Product(None, (explain(outcome),), cacheable=said)
        with result.open("rb") as file:
            if file.read(len(NEURAL_ART_MAGIC)) != NEURAL_ART_MAGIC:
                message = f"ST Edge AI's {_RESULT} is no network for the Neural-ART; update it"
                problem = error("tool-failed", message, outcome.output)
                return Product(None, (problem,), cacheable=False)
        return Product(result, figures=figures(outcome.output, result.stat().st_size))


def figures(output: str, size: int) -> Figures:
    """The figures of a network of `size` bytes, from the tool's output.

    It prints epochs in software, all epochs, and activations. It estimates no time."""
    epochs, activations = _EPOCHS.search(output), _ACTIVATIONS.search(output)
    total = int(epochs[1]) if epochs else None
    npu = max(total - int(epochs[2]), 0) if epochs and total is not None else None
    sram = int(activations[1].replace(",", "")) if activations else None
    return Figures(npu, total, sram, size)


def generate_argv(
    tool: Path, model: str, target: str, profile: str, arguments: Sequence[str] = ()
) -> list[str]:
    """The command line, for a folder that holds the model, the profile and the pool.

    The user's arguments come first, because the tool takes the last of an option given twice."""
    ours = ["--model", model, "--relocatable", "--target", target]
    settings = f"{profile}@{_PROFILE}"
    return [str(tool), "generate", *arguments, *ours, "--st-neural-art", settings]


def core_folder(tool: Path, option: str | None) -> str:
    """The installation that the tool loads its parts from, for its `STEDGEAI_CORE_DIR`.

    That is the one it is in, if `option` chose it and it is below `Utilities`; else the user's
    `STEDGEAI_CORE_DIR`; without that the one it is in."""
    inside = tool.parent.parent.name == "Utilities"
    install = str(tool.parents[2] if inside else tool.parent)
    if option and inside:
        return install
    named = os.environ.get("STEDGEAI_CORE_DIR")
    return os.path.abspath(named) if named else install  # the tool runs in another folder


def find_tool(option: str | None) -> Path:
    """The stedgeai program: by `option`, else STEDGEAI_CORE_DIR, PATH, OpenMV or ST installs.

    ToolMissing says where to get it. It is also raised if `option` names nothing usable, rather
    than use another version than the user asked for."""
    if option:
        found = _in_install(Path(os.path.expanduser(option)))
        if found is None:
            next_step = "give the program, or the folder it is installed in"
            what = "ST Edge AI is not where --stedgeai says"
            raise ToolMissing(what, where=option, next_step=next_step)
        return found
    core = os.environ.get("STEDGEAI_CORE_DIR")
    found = _in_install(Path(core)) if core else None
    if found is None:
        on_path = find_on_path("stedgeai")
        found = Path(on_path).absolute() if on_path else _search_installs()
    if found is None:
        raise ToolMissing(
            "ST Edge AI, the compiler for the N6's NPU, is not installed",
            next_step=f"get it from {WHERE_TO_GET} and set STEDGEAI_CORE_DIR to its folder, or "
            "name that with --stedgeai",
        )
    return found


def _search_installs() -> Path | None:
    folders = (folder for pattern in _INSTALLS for folder in installed(pattern))
    return next(filter(None, map(_in_install, folders)), None)


def _in_install(place: Path) -> Path | None:
    """The program at `place`, or in an installation or a folder of versions there; None: neither.

    An installation that may not be entered, because it is another user's, counts as none."""
    if os.path.isfile(place):
        return place.absolute() if os.access(place, os.X_OK) else None
    try:
        versions = sorted((each for each in place.iterdir() if os.path.isdir(each)), reverse=True)
    except (OSError, ValueError):  # ValueError: a NUL in its name
        return None
    for root in (place, *versions):
        for folder in (root, *(root / "Utilities" / each for each in _PLATFORMS)):
            for name in _NAMES:
                path = folder / name
                if os.path.isfile(path) and os.access(path, os.X_OK):
                    return path.absolute()
    return None


def _identity(tool: Path) -> str:
    """A text that changes if the tool is replaced. Asking for its version would take seconds.

    ToolMissing if the tool went meanwhile."""
    try:
        status = tool.stat()
    except OSError as caught:
        what = f"ST Edge AI cannot be used: {caught.strerror}"
        raise ToolMissing(what, where=str(tool), next_step="retry") from None
    return f"{os.path.realpath(tool)} {status.st_size} {status.st_mtime_ns}"


def make_settings(ours: str, chosen: FileOptions) -> Settings:
    """The files for the tool: our profile and pools, or the user's. OptionError for a bad file.

    ours: the name of our profile. `%` in the compiler options becomes `--optimization N`, as in
    the IDE. A user's profile may name its own pool file, relative to itself; the option `mpool`
    overrides it."""
    pool = _ours(_POOL)
    profile = chosen.profile or ours
    file = profile_file(profile)
    if file:
        profile = profile[: -len(file)].rstrip("@") or ours
        where = Path(file)
        document = _load(where)
        entry = _entry(document, profile, where)
        named = entry.get("memory_pool")
        if isinstance(named, str) and not chosen.mpool:
            pool = _read(where.parent / named)
    elif profile != ours:
        raise OptionError(f"there is no profile {profile}, only {ours}; or give NAME@FILE")
    else:
        entry = json.loads(_ours("neural_art.json"))
        document = {"Globals": {}, "Profiles": {profile: entry}}
    if chosen.mpool:
        pool = _read(Path(chosen.mpool))
    entry["memory_pool"] = _POOL
    if isinstance(entry.get("options"), str):
        entry["options"] = entry["options"].replace("%", f"--optimization {chosen.level}")
    return Settings(profile, json.dumps(document, indent=1), pool)


def _entry(document: Any, profile: str, where: Path) -> dict[str, Any]:
    profiles = document.get("Profiles") if isinstance(document, dict) else None
    entry = profiles.get(profile) if isinstance(profiles, dict) else None
    if not isinstance(entry, dict):
        has = ", ".join(map(str, profiles)) if isinstance(profiles, dict) else "none"
        raise OptionError(f"{where} has no profile {profile}; it has {has}")
    return entry


def _load(path: Path) -> Any:
    text = _read(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as caught:
        raise OptionError(f"{path} is not JSON: {caught}") from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_SETTINGS_BYTES + 1)
    except (OSError, UnicodeDecodeError) as caught:
        raise OptionError(f"{path} cannot be read: {caught}") from None
    if len(text) > _MAX_SETTINGS_BYTES:
        raise OptionError(f"{path} is too large for a settings file")
    return text


def find_result(folder: Path) -> Path | None:
    """The network that the tool made, wherever its version puts it; None: there is none."""
    likely = (folder / each / _RESULT for each in _RESULT_FOLDERS)
    found = (path for path in (*likely, *_results(folder)) if made_file(path, folder) is not None)
    return next(found, None)


def _results(folder: Path) -> list[Path]:
    """All files named `_RESULT`, at most `_RESULT_DEPTH` folders deep, the least deep first."""
    found = []
    for root, folders, names in os.walk(folder):
        inside = Path(root).relative_to(folder)
        if _RESULT in names:
            found.append(Path(root, _RESULT))
        if len(inside.parts) == _RESULT_DEPTH:
            folders.clear()
    return sorted(found, key=lambda path: (len(path.parts), path))


def explain(outcome: Outcome) -> Diagnostic:
    """Why there is no result: the tool's last error line, else its last line."""
    complaints = _COMPLAINT.findall(outcome.output)
    if outcome.status > 0 and complaints:
        message = f"ST Edge AI cannot convert it: {complaints[-1].strip()}"
        return error("tool-failed", message, outcome.output)
    return failure("ST Edge AI", outcome)


def _kind(path: str) -> str:
    return ".onnx" if suffix(path) == ".onnx" else ".tflite"


def _ours(name: str) -> str:
    return Path(__file__).with_name(name).read_text("ascii")
