"""Other people's writers and readers of the same format, where this Python can have them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest


def openmv_ota() -> ModuleType:
    """openmv-ota's `romfs.container`; skips the test on a Python that it does not run on."""
    _needs_its_python()
    from openmv_ota.romfs import container

    return container


def slot_makers() -> tuple[ModuleType, ModuleType]:
    """openmv-ota's `ota.status` and `ota.trailer`."""
    _needs_its_python()
    from openmv_ota.ota import status, trailer

    return status, trailer


def slot_starters() -> tuple[ModuleType, ModuleType]:
    """Its boot code, which takes all that is the camera's as arguments, and `ota.geometry`."""
    _needs_its_python()
    from openmv_ota.build.device import boot
    from openmv_ota.ota import geometry

    return boot, geometry


def _needs_its_python() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("openmv-ota needs Python 3.11")
