"""Who a camera is: what it reports, and where the table of boards disagrees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from camera_helpers import KIB, make_image

from romfsfs.boards import boards
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.errors import UsageError
from romfsfs.simulator import Simulator, preset_names
from romfsfs.simulator.config import PartitionConfig


@pytest.mark.parametrize("board", preset_names())
def test_every_board_is_recognised(simulate: Callable[..., Simulator], board: str) -> None:
    with simulate(board) as simulator:
        camera = SerialCamera.open(simulator.port)
        info = camera.info()
        camera.close()
    assert info.board == board
    assert info.notes == ()
    assert info.key == f"{board}/330034001951393337303732/0"
    assert info.mpy_version == (6, 3)
    assert info.march == boards()[board].march
    assert "MicroPython 1.25.0" in info.firmware
    assert info.erase_size == boards()[board].partition(0).erase_size


def test_partitions_and_what_is_in_them(simulate: Callable[..., Simulator]) -> None:
    image = make_image(20 * KIB)
    with simulate("OPENMV_AE3", images={1: image}) as simulator:
        camera = SerialCamera.open(simulator.port, partition=1)
        first, second = camera.partitions()
        assert (first.state, second.state, second.image_size) == ("blank", "image", len(image))
        assert camera.info().partition == 1
        camera.close()
        with pytest.raises(UsageError, match=r"no ROMFS partition 2.*0, 1") as caught:
            SerialCamera.open(simulator.port, partition=2)
        SerialCamera.open(simulator.port).close()  # it is free, while the error is still there
        del caught


def test_an_unknown_board_needs_a_name(simulate: Callable[..., Simulator]) -> None:
    changes = {"machine": "Homemade with STM32H7", "arch_string": "HOME 1"}
    with simulate("OPENMV_N6", **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        info = camera.info()
        assert info.board is None
        assert "--board" in info.notes[0]
        assert info.march == "armv7emdp", "the camera's own word, without any board"
        camera.close()
        camera = SerialCamera.open(simulator.port, board="openmv_n6")
        assert (camera.info().board, camera.info().notes) == ("OPENMV_N6", ())
        camera.close()


def test_the_cameras_word_counts(simulate: Callable[..., Simulator]) -> None:
    partitions = (PartitionConfig(64 * KIB),)
    with simulate("OPENMV_N6", partitions=partitions) as simulator:
        camera = SerialCamera.open(simulator.port)
        info = camera.info()
        camera.close()
        assert info.capacity == 64 * KIB
        assert "the camera's size is used" in info.notes[0]
        camera = SerialCamera.open(simulator.port, board="OPENMV4P")
        assert "says that it is OPENMV_N6" in camera.info().notes[0]
        camera.close()


def test_its_flash_is_that_of_the_board_that_it_says_it_is(
    simulate: Callable[..., Simulator],
) -> None:
    """Used as another one, the end of the H7 Plus's partition hangs it all the same."""
    partitions = (PartitionConfig(64 * KIB, wedge_tail=512),)
    with simulate("OPENMV4P", partitions=partitions, erase_by_range=False) as simulator:
        camera = SerialCamera.open(simulator.port, board="OPENMV4")
        info = camera.info()
        assert (info.board, info.capacity, info.erase_size) == ("OPENMV4", 64 * KIB - 512, 4 * KIB)
        assert camera.digest(64 * KIB) is not None
        camera.close()
