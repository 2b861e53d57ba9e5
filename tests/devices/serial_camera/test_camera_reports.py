"""What a camera's device reports of its work, in whole: figures, progress, what went wrong."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from camera_helpers import KIB, content, edited, make_image, opened
from ota_slots import two_slots

from romfsfs.devices.base import WriteReport
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.errors import DeviceAnswer, DeviceError, UsageError, VerifyError
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

Simulate = Callable[..., Simulator]
SMALL = (PartitionConfig(32 * KIB),)
OLD = make_image(20 * KIB)
NEW = make_image(18 * KIB, 1)
SLOTTED = (PartitionConfig(96 * KIB),)
NOTE = ("the first attempt was read back wrong",)


def end(size: int) -> int:
    """Where programming of an image ends: pages of 256."""
    return -(-size // 256) * 256


def blocks(size: int) -> int:
    return -(-size // 4096)


def test_the_figures_and_the_progress_of_a_write(simulate: Simulate) -> None:
    size, total = len(NEW), end(len(NEW))
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        told: list[tuple[str, int, int]] = []
        before = simulator.statistics.wire_in
        done = camera.write_image(opened(NEW), opened(OLD), lambda *step: told.append(step))
        sent = simulator.statistics.wire_in - before
        again = camera.write_image(opened(NEW), None, lambda *step: told.append(step))
        small = camera.write_image(opened(edited(NEW, 9000)), opened(NEW))
        camera.close()
    assert replace(done, seconds=0) == WriteReport(
        written=total, erased_blocks=blocks(size), seconds=0, verified=True, sent=sent
    )
    assert done.seconds > 0
    assert replace(again, seconds=0, sent=0) == WriteReport(0, 0, 0, True, skipped=size)
    assert replace(small, seconds=0, sent=0) == WriteReport(
        2 * 4096, 2, 0, True, skipped=size - 2 * 4096
    )
    phases = list(dict.fromkeys(phase for phase, _, _ in told))
    assert phases == ["comparing", "erasing", "writing", "verifying"]
    first = [step for step in told if step[0] in ("comparing", "erasing")]
    compared = [("comparing", 0, size), ("comparing", size, size)]
    assert first == [*compared, ("erasing", 0, total), *compared]
    writing = [step[1:] for step in told if step[0] == "writing"]
    assert writing == sorted(writing)
    assert (writing[0], writing[-1]) == ((0, total), (total, total))
    assert len(set(writing)) >= 5


def test_a_write_that_is_repeated_counts_both(simulate: Simulate) -> None:
    with simulate("OPENMV_N6", partitions=SMALL) as simulator:
        simulator.faults.fail_ioctl(2, 0, command=4)  # says that it wrote, and did not
        camera = SerialCamera.open(simulator.port)
        done = camera.write_image(opened(NEW))
        camera.close()
        assert content(simulator).startswith(NEW)
    total = end(len(NEW))
    assert done.notes == NOTE
    # all but the header of a blank partition; then all
    assert done.erased_blocks == 1 + blocks(len(NEW))
    assert 2 * total - 4096 <= done.written <= 2 * total
    assert (done.skipped, done.verified) == (0, True)


@pytest.mark.parametrize("missing", [(), ("hashlib",), ("hashlib", "binascii.crc32")])
def test_worn_flash_in_all_that_is_said(simulate: Simulate, missing: tuple[str, ...]) -> None:
    changes: dict[str, Any] = {"missing": missing, "images": {0: OLD}}
    with simulate("OPENMV_N6", partitions=SMALL, **changes) as simulator:
        simulator.faults.stuck_block(2)
        camera = SerialCamera.open(simulator.port)
        with pytest.raises(VerifyError) as caught:
            camera.write_image(opened(NEW))
        camera.close()
        place = "first at 0x2000" if len(missing) < 2 else "at an unknown address"
        assert caught.value.line == (
            "what was read back from the camera differs from what was written, in two attempts "
            f"(OPENMV_N6 on {simulator.port}, {place}); repeat the command; if that happens again, "
            "write with SOURCE dfu:OPENMV_N6; its flash may be worn"
        )


def test_an_image_that_cannot_be_cleared(simulate: Simulate) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        simulator.faults.stuck_block(0, on="both")
        camera = SerialCamera.open(simulator.port)
        with pytest.raises(VerifyError) as caught:
            camera.clear()
        assert caught.value.line == (
            f"the image is still there (OPENMV_N6 on {simulator.port}); repeat the command; if "
            "that happens again, write with SOURCE dfu:OPENMV_N6"
        )
        simulator.faults.clear()
        camera.clear()
        erased = simulator.statistics.erased_blocks
        camera.clear()
        assert simulator.statistics.erased_blocks == erased == 2
        camera.close()


def test_a_slot_is_a_target_of_its_own(simulate: Simulate) -> None:
    """Its advice names no boot loader, which would write the other slot."""
    both = two_slots(96 * KIB, OLD, NEW)
    with simulate("OPENMV_N6", partitions=SLOTTED, images={0: both}) as simulator:
        camera = SerialCamera.open(simulator.port, slot="B")
        info = camera.info()
        assert (info.slot, info.capacity, len(info.slots)) == ("B", 40 * KIB, 2)
        assert camera.slots(1) == info.slots
        back = io.BytesIO()
        assert camera.read_image(back) == len(NEW)
        assert back.getvalue() == NEW
        assert camera.digest(100) == hashlib.sha256(NEW[:100]).hexdigest()
        assert camera.matches(opened(NEW), len(NEW))
        assert camera.matches(opened(bytes(50 * KIB)), 50 * KIB) is False
        simulator.faults.fail_ioctl(command=3)
        with pytest.raises(DeviceAnswer) as caught:
            camera.write_image(opened(OLD))
        assert caught.value.line == (
            f"the camera refuses to erase: Input/output error (-5) ({simulator.port}, "
            "0x0..0x1000); repeat the command"
        )
        assert camera.write_image(opened(OLD)).verified
        resets = simulator.statistics.soft_resets
        camera.close()
        assert simulator.statistics.soft_resets == resets + 1, "its boot code mounts a slot"
        there = content(simulator)
        assert there[: 48 * KIB] == both[: 48 * KIB]
        assert there[48 * KIB :].startswith(OLD)
        assert there[88 * KIB :] == both[88 * KIB :], "status and trailer"


def test_what_firmware_cannot_write(simulate: Simulate) -> None:
    both = two_slots(96 * KIB, OLD, NEW)
    refused = {
        "slot": (
            {"partitions": SLOTTED, "images": {0: both}, "erase_by_range": False}, "B",
            "this camera's firmware erases from the partition's start on: slot B cannot be written "
            "without slot A (OPENMV_N6 on {}); nothing was changed; update its firmware",
        ),
        "all": (
            {"partitions": SMALL, "images": {0: OLD}, "writable": False}, "",
            "this camera's firmware cannot write its ROMFS (OPENMV_N6 on {}); nothing was changed; "
            "write with SOURCE dfu:OPENMV_N6, or update its firmware",
        ),
    }  # fmt: skip
    for changes, slot, line in refused.values():
        with simulate("OPENMV_N6", **changes) as simulator:
            camera = SerialCamera.open(simulator.port, slot=slot)
            held = content(simulator)
            image = OLD if slot else NEW
            for work in (lambda: camera.write_image(opened(image)), camera.clear):  # noqa: B023
                with pytest.raises(DeviceError) as caught:
                    work()
                assert caught.value.line == line.format(simulator.port)
                assert caught.value.errno == errno.EROFS
            assert camera.write_image(opened(NEW if slot else OLD)).written == 0, "it is there"
            camera.close()
            assert content(simulator) == held
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        with pytest.raises(UsageError, match="holds no slots of openmv-ota"):
            SerialCamera.open(simulator.port, slot="A")
        SerialCamera.open(simulator.port).close()  # it is free


def test_what_is_read_is_told_and_compared(simulate: Simulate) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        told: list[tuple[str, int, int]] = []
        camera.read_image(io.BytesIO(), lambda *step: told.append(step))
        size = len(OLD)
        assert told[0] == ("reading", 0, size)
        assert told[-1] == ("reading", size, size)
        assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
        tree = camera.read_tree()
        assert tree is not None
        assert [node.name for node in tree.root.children] == [f"model{n}.bin" for n in range(4)]
        resets = simulator.statistics.soft_resets
        camera.close()
        assert simulator.statistics.soft_resets == resets
