"""`--try`: the camera itself opens the models that a write has changed.

No module is imported and no code of the user's runs but `boot.py`, as at every restart. The write
is done and verified by then: a model that does not open is reported, and `undo` reverts the write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from romfsfs.convert.admission.models import is_model
from romfsfs.devices.base import Device as _Device
from romfsfs.devices.base import DeviceInfo, OpenedModel, WriteReport
from romfsfs.errors import DeviceError, UsageError
from romfsfs.session.keep.state import Base
from romfsfs.session.rebase.transaction import WriteOptions, restarted
from romfsfs.system.files import Progress, no_progress


def refuse_trial(info: DeviceInfo) -> None:
    """UsageError for a device that cannot open models: only firmware at its prompt can, and it
    mounts only the first partition; openmv-ota's mounts no slot whose signature is broken."""
    if not info.is_serial or info.partition or info.slots:
        raise UsageError(
            "only a camera on its serial port can open models, and only in its first partition, "
            "without openmv-ota's slots",
            where=info.name, next_step="leave out --try",
        )  # fmt: skip


def _tried(
    device: _Device, report: WriteReport, paths: Iterable[str], progress: Progress = no_progress
) -> WriteReport:
    """The report, with what the camera says of each model among these files of its image."""
    models = [path for path in paths if is_model(path, b"")]
    found: list[OpenedModel] = []
    for path in models:
        progress("trying", len(found), len(models))
        try:
            said = device.open_model(path)
        except DeviceError as error:
            found.append(OpenedModel(path, f"the camera went away meanwhile, {error.what}"))
            break
        if said is None:
            note = "its firmware runs no models: none was tried"
            return replace(report, notes=(*report.notes, note))
        found.append(said)
    return replace(report, tried=tuple(found))


def after_write(
    device: _Device, report: WriteReport, options: WriteOptions, old: Base | None, new: Base,
    progress: Progress = no_progress,
) -> WriteReport:  # fmt: skip
    """As the options say, have the camera open the models that changed and restart it; the report
    with what came of that."""
    if options.tries:
        report = _tried(device, report, _changed(old, new), progress)
    return restarted(device, report) if options.restart else report


def _changed(old: Base | None, new: Base) -> list[str]:
    """The files of an image that are new or changed since the old base, in image order."""
    known = {(entry.path, entry.digest) for entry in old.entries} if old is not None else set()
    return [e.path for e in new.entries if not e.is_dir and (e.path, e.digest) not in known]
