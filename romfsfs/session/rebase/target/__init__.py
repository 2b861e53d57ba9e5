"""The target of a session: an image file, or a camera's partition behind a `Device`.

    base      `Target`: what a transaction asks of either
    file      an image file
    camera    a camera's partition

All that differs between the two is here.
"""

from __future__ import annotations

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.session.rebase.target.base import Target
from romfsfs.session.rebase.target.camera import CameraTarget
from romfsfs.session.rebase.target.file import FileTarget


def target_of(device: Device, slot: str = "") -> Target:
    """slot: of openmv-ota, which may be written although that breaks its signature; '' for none."""
    return FileTarget(device) if isinstance(device, FileDevice) else CameraTarget(device, slot)
