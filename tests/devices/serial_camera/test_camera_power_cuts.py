"""The cable is pulled at every moment of a write: old image, new image, or none, and one more
command finishes or goes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from camera_helpers import KIB, content, edited, holds, make_image, opened

from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.errors import DeviceLost
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

CAMERAS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ranges": ("OPENMV_N6", 0, {"partitions": (PartitionConfig(24 * KIB),)}),
    "bytes": ("OPENMV_N6", 0, {"partitions": (PartitionConfig(24 * KIB, min_write=1),)}),
    "prefix": (
        "OPENMV_N6",
        0,
        {"partitions": (PartitionConfig(24 * KIB),), "erase_by_range": False},
    ),
    "text": ("OPENMV_N6", 0, {"partitions": (PartitionConfig(24 * KIB),), "stdio_buffer": False}),
    "block device": (
        "OPENMV_RT1060",
        0,
        {"partitions": (PartitionConfig(24 * KIB, access="block"),)},
    ),
    "block device of whole pages": (
        "OPENMV_RT1060",
        0,
        {"partitions": (PartitionConfig(24 * KIB, access="block", word=256),)},
    ),
    "F4": (
        "OPENMV3",
        0,
        {},
    ),
    "H7": (
        "OPENMV4",
        0,
        {},
    ),
    "MRAM": (
        "OPENMV_AE3",
        1,
        {
            "partitions": (
                PartitionConfig(24 * KIB),
                PartitionConfig(24 * KIB, 16, kind="mram", word=16, min_write=16),
            )
        },
    ),
}
OLD = make_image(14 * KIB)
NEW = edited(OLD, 9000)


def interrupted_write(
    simulator: Simulator, partition: int, cut: Callable[[Simulator], None], new: bytes
) -> bool:
    """Write with a cut to come; False if it came. The camera has power again afterwards."""
    camera = SerialCamera.open(simulator.port, partition=partition)
    cut(simulator)
    done = False
    with contextlib.suppress(DeviceLost):
        camera.write_image(opened(new), opened(OLD))
        done = True
    camera.close()
    simulator.faults.clear()
    if not simulator.plugged:
        simulator.replug()
    return done


def one_more_command(simulator: Simulator, partition: int, image: bytes) -> None:
    camera = SerialCamera.open(simulator.port, partition=partition)
    assert camera.write_image(opened(image), opened(OLD)).verified
    camera.close()
    assert content(simulator, partition).startswith(image)


def programmed_by(
    simulate: Callable[..., Simulator], name: str, new: bytes
) -> tuple[int, int, int]:
    """Bytes (programmed, erased, on the wire) of the write when nothing goes wrong."""
    board, partition, changes = CAMERAS[name]
    with simulate(board, images={partition: OLD}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port, partition=partition)
        statistics = simulator.statistics
        wire = statistics.wire_in + statistics.wire_out
        camera.write_image(opened(new), opened(OLD))
        wire = statistics.wire_in + statistics.wire_out - wire
        erased = statistics.erased_blocks * simulator.config.partitions[partition].erase_size
        camera.close()
        return statistics.programmed, erased, wire


@pytest.mark.parametrize("name", CAMERAS)
def test_power_cut_while_programming(simulate: Callable[..., Simulator], name: str) -> None:
    """Sampled over the whole write, and every byte of the last write, where the header goes in."""
    board, partition, changes = CAMERAS[name]
    total, _, _ = programmed_by(simulate, name, NEW)
    places = [*range(0, total - 40, max(1, total // 5)), *range(total - 36, total + 1, 5)]
    with simulate(board, images={partition: OLD}, **changes) as simulator:
        for number, place in enumerate(places):
            cut = lambda camera, at=place: camera.faults.power_cut_after_programmed(at)  # noqa: E731
            done = interrupted_write(simulator, partition, cut, NEW)
            state = holds(simulator, OLD, NEW, partition)
            assert state in ("old", "new", "none"), f"cut after {place} bytes"
            assert not done or state == "new"
            if number % 2:
                one_more_command(simulator, partition, NEW)
            one_more_command(simulator, partition, OLD)


@pytest.mark.parametrize("name", ["ranges", "prefix", "H7"])
def test_power_cut_while_erasing(simulate: Callable[..., Simulator], name: str) -> None:
    board, partition, changes = CAMERAS[name]
    new = make_image(13 * KIB, 1)
    _, erased, _ = programmed_by(simulate, name, new)
    with simulate(board, images={partition: OLD}, **changes) as simulator:
        for place in range(0, erased + 1, max(1, erased // 6)):
            cut = lambda camera, at=place: camera.faults.power_cut_after_erased(at)  # noqa: E731
            interrupted_write(simulator, partition, cut, new)
            assert holds(simulator, OLD, new, partition) in ("old", "new", "none")
            one_more_command(simulator, partition, OLD)


@pytest.mark.parametrize("name", ["ranges", "text", "H7"])
def test_cable_pulled_at_any_byte(simulate: Callable[..., Simulator], name: str) -> None:
    board, partition, changes = CAMERAS[name]
    _, _, wire = programmed_by(simulate, name, NEW)
    with simulate(board, images={partition: OLD}, **changes) as simulator:
        for number, place in enumerate(range(1, wire, wire // 10)):
            cut = lambda camera, at=place: camera.faults.cut_after_wire_bytes(at)  # noqa: E731
            interrupted_write(simulator, partition, cut, NEW)
            assert holds(simulator, OLD, NEW, partition) in ("old", "new", "none")
            if number % 2:
                one_more_command(simulator, partition, NEW)
            one_more_command(simulator, partition, OLD)


def test_an_interrupted_write_reads_as_blank(simulate: Callable[..., Simulator]) -> None:
    """So the camera can be mounted, as the empty thing that it now is."""
    import io

    for name in ("ranges", "MRAM"):
        board, partition, changes = CAMERAS[name]
        with simulate(board, images={partition: OLD}, **changes) as simulator:
            interrupted_write(
                simulator,
                partition,
                lambda camera: camera.faults.power_cut_after_programmed(5000),
                make_image(13 * KIB, 2),
            )
            camera = SerialCamera.open(simulator.port, partition=partition)
            assert camera.read_image(io.BytesIO()) == 0
            camera.close()
