"""The loader on USB: listed to whom `fake_window` shows it."""

from __future__ import annotations

import fake_window


class MbootUSBInterface:
    @classmethod
    def scan(cls, device_id: str) -> list[MbootUSBInterface]:
        assert device_id == "0x15A2:0x0073"
        return [cls()] if fake_window.is_open() else []
