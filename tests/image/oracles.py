"""Other people's writers and readers of the same format, where this Python can have them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest


def openmv_ota() -> ModuleType:
    """openmv-ota's `romfs.container`; skips the test on a Python that it does not run on."""
    if sys.version_info < (3, 11):
        pytest.skip("openmv-ota needs Python 3.11")
    from openmv_ota.romfs import container

    return container
