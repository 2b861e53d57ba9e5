"""`--board` of a camera that does not say what it is, or says something else."""

from __future__ import annotations

from collections.abc import Callable

from camera_rig import Rig, held

from romfsfs.simulator import Simulator

Connect = Callable[..., Simulator]

HOMEMADE = {"machine": "Homemade with STM32H7", "arch_string": "HOME 1"}


def test_the_edits_of_an_unknown_board_are_found_without_naming_it_again(
    rig: Rig, connect: Connect
) -> None:
    camera = connect("OPENMV_N6", **HOMEMADE)
    cam = rig.mount(camera.port, "--board", "OPENMV_N6")
    (cam / "kept.txt").write_text("kept")
    kept = rig.ok("umount", cam)
    assert f"romfsfs commit {camera.port}" in kept
    assert "OPENMV_N6" in rig.ok("status", camera.port)
    cam = rig.mount(camera.port)
    assert (cam / "kept.txt").read_text() == "kept"
    rig.ok("umount", cam)
    rig.ok("commit", camera.port)
    assert held(camera) == {"kept.txt": b"kept"}


def test_a_board_that_the_camera_is_not_is_no_secret(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV_N6")
    said = "the camera says that it is OPENMV_N6; OPENMV4P is used as asked"
    done = rig.try_mount(camera.port, "--board", "OPENMV4P")
    assert said in done.err
    (rig.folder / "cam" / "a.txt").write_text("a")
    rig.ok("umount", rig.folder / "cam")
    again = rig.try_mount(camera.port)
    assert said not in again.err
    assert (rig.folder / "cam" / "a.txt").exists()
    rig.ok("umount", "--commit", rig.folder / "cam")
    rig.ok("pull", camera.port, "a.img")
    (rig.folder / "b.txt").write_text("b")
    rig.ok("build", rig.folder, "b.img")
    assert said in rig.ok("push", "b.img", camera.port, "--board", "OPENMV4P")
