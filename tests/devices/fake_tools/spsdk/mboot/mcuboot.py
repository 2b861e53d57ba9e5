"""The loader, once it is found: its first answer keeps it from starting the firmware."""

from __future__ import annotations

import fake_window

from spsdk.exceptions import SPSDKError
from spsdk.mboot.interfaces.usb import MbootUSBInterface


class McuBoot:
    def __init__(self, interface: MbootUSBInterface) -> None:
        self.opened = False

    def __enter__(self) -> McuBoot:
        if not fake_window.can_be_opened():
            raise SPSDKError("listed, and not ready")
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get_property(self, number: int) -> list[int] | None:
        assert number == 1
        fake_window.hold()
        return [1258487808]
