"""Cameras of openmv-ota: their two slots are shown, and nothing overwrites one unasked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camera_rig import KIB, Rig, make_image, only_session
from ota_slots import one_slot, two_slots

from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.session.connect import device
from romfsfs.session.rebase.record import Record
from romfsfs.session.session import sessions
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

Connect = Callable[..., Simulator]

SIZE = 512 * KIB
A = make_image("OPENMV4P", notes_txt=b"A\n")
B = make_image("OPENMV4P", notes_txt=b"B\n")
OTHER = make_image("OPENMV4P", size=20 * KIB, other_txt=b"other\n")


def ota_camera(connect: Connect, newer: str = "A", memory: bool = True) -> Simulator:
    config = PartitionConfig(SIZE) if memory else PartitionConfig(SIZE, access="block")
    images = {0: two_slots(SIZE, A, B, newer=newer)}
    return connect("OPENMV4P", partitions=(config,), images=images, runs_rom=True)


@pytest.mark.parametrize("memory", [True, False])
def test_the_slots_are_shown_and_which_one_runs(rig: Rig, connect: Connect, memory: bool) -> None:
    camera = ota_camera(connect, "B", memory)
    said = f"slot A, {len(A):,} B, older; slot B, {len(B):,} B, runs"
    assert said in rig.ok("info", "camera")
    assert said in rig.ok("cameras")
    [one] = json.loads(rig.ok("cameras", "--json"))
    assert [(each["name"], each["counter"]) for each in one["slots"]] == [("A", 1), ("B", 2)]
    rig.prepare("camera")
    assert said in rig.ok("status", "camera")
    assert json.loads(rig.ok("status", "camera", "--json"))["capacity"] == SIZE // 2 - 8 * KIB
    content = bytearray(camera.flash[0].content)
    content[SIZE // 2 + len(B) - 1] ^= 1
    camera.flash[0].load(bytes(content))
    said = f"slot A, {len(A):,} B, runs; slot B, {len(B):,} B, changed since it was signed"
    assert said in rig.ok("info", "camera")


def test_nothing_overwrites_a_slot_unasked(rig: Rig, connect: Connect) -> None:
    """Not with --force alone, nor --slot alone; nothing is written nor left interrupted."""
    camera = ota_camera(connect)
    before = bytes(camera.flash[0].content)
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    Path("other.img").write_bytes(OTHER)
    for command in (
        ("commit", "camera"),
        ("commit", "camera", "--dry-run"),
        ("commit", "camera", "--force"),
        ("commit", "camera", "--slot", "A"),
        ("push", "other.img", "camera"),
        ("push", "other.img", "camera", "--slot", "B"),
        ("push", "other.img", "camera", "--force"),
        ("reset", "camera", "--from", "other.img", "--partition", "0", "--yes", "--force"),
    ):
        done = rig.run(*command)
        assert done.code in (1, 2), command
        assert "slot" in done.error
        assert "nothing was written" in done.error
        assert bytes(camera.flash[0].content) == before
        assert not session.interrupted
    assert "breaks its signature" in rig.run("commit", "camera").error


def test_a_slot_is_written_when_that_is_asked_for_and_undone(rig: Rig, connect: Connect) -> None:
    camera = ota_camera(connect)
    before = bytes(camera.flash[0].content)
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    rig.ok("commit", "camera", "--slot", "A", "--force")
    after = bytes(camera.flash[0].content)
    assert b"new\n" in after[: SIZE // 2]
    assert after[SIZE // 2 - 8 * KIB :] == before[SIZE // 2 - 8 * KIB :]
    assert "slot A" in rig.ok("info", "camera")
    assert "slot B, " in rig.ok("info", "camera").partition("changed since it was signed")[2]
    assert rig.run("undo", "camera").code == 1
    assert bytes(camera.flash[0].content) == after
    rig.ok("undo", "camera", "--slot", "A", "--force")
    assert bytes(camera.flash[0].content)[: len(A)] == A


ACCESS = [{}, {"access": "block"}, {"kind": "mram", "erase_size": 16, "word": 16, "min_write": 16}]


@pytest.mark.parametrize("how", ACCESS)
def test_slot_b_is_a_target_of_its_own(rig: Rig, connect: Connect, how: dict[str, Any]) -> None:
    """Mounted by --slot, committed, pulled, pushed to, undone; A stays byte for byte, and so do
    status and trailer of both."""
    half, start = SIZE // 2, two_slots(SIZE, A, B, newer="B")
    camera = connect(
        "OPENMV4P", partitions=(PartitionConfig(SIZE, **how),), images={0: start}, runs_rom=True
    )

    def b() -> bytes:
        """Slot B; nothing else has changed."""
        content = bytes(camera.flash[0].content)
        assert content[:half] == start[:half]
        assert content[-8 * KIB :] == start[-8 * KIB :]
        return content[half:]

    cam = rig.mount("camera", "--slot", "B")
    assert (cam / "notes.txt").read_bytes() == b"B\n"
    (cam / "notes.txt").write_text("new\n")
    said = rig.run("commit", cam)
    assert "writing slot B breaks its signature: the camera then mounts slot A" in said.error
    assert "--slot B --force" in said.error
    assert rig.run("commit", cam, "--slot", "A", "--force").code == 2
    assert b() == start[half:]
    rig.ok("commit", cam, "--slot", "B", "--force")
    assert dict(_files(b()))["notes.txt"] == b"new\n"
    assert f"slot A, {len(A):,} B, runs; slot B, {len(B):,} B, changed since" in rig.ok(
        "info", "camera"
    )
    assert "this is slot B" in rig.ok("status", cam)
    assert rig.run("umount", "camera").code == 2, "nothing is mounted of slot A"
    rig.ok("umount", "camera", "--slot", "B")

    assert "slot B" in rig.ok("sessions")
    logged = json.loads(rig.ok("log", "camera", "--slot", "B", "--json"))
    assert [entry["kind"] for entry in logged] == ["read", "commit"]
    assert rig.run("log", "camera").code == 2
    rig.ok("pull", "camera", "b.img", "--slot", "B")
    assert Path("b.img").read_bytes() == b()[: Path("b.img").stat().st_size]
    rig.ok("pull", "camera", "a.img")
    assert Path("a.img").read_bytes() == A
    assert rig.run("undo", "camera", "--slot", "B").code == 1
    rig.ok("undo", "camera", "--slot", "B", "--force")
    assert b()[: len(B)] == B
    Path("other.img").write_bytes(OTHER)
    rig.ok("push", "other.img", "camera", "--slot", "B", "--force")
    assert b()[: len(OTHER)] == OTHER
    place = ("--from", "b.img", "--partition", "0", "--yes")
    rig.ok("reset", "camera", *place, "--slot", "B", "--force")
    assert dict(_files(b()))["notes.txt"] == b"new\n"


def _files(content: bytes) -> Iterator[tuple[str, bytes]]:
    for path, node in walk(read_image(content)):
        if isinstance(node, FileNode):
            yield path, content[node.extent.offset :][: node.extent.size]


def test_both_slots_are_edited_side_by_side(rig: Rig, connect: Connect) -> None:
    camera = ota_camera(connect)
    first, second = rig.prepare("camera"), rig.prepare("camera", slot="B")
    assert (first.work / "notes.txt").read_bytes() == b"A\n"
    for session, slot in ((first, "A"), (second, "B")):
        (session.work / "notes.txt").write_text(f"new {slot}\n")
        rig.ok("commit", "camera", "--slot", slot, "--force")
        assert session.status().clean
    content = bytes(camera.flash[0].content)
    assert dict(_files(content))["notes.txt"] == b"new A\n"
    assert dict(_files(content[SIZE // 2 :]))["notes.txt"] == b"new B\n"


def test_slot_b_interrupted_and_recovered(rig: Rig, connect: Connect) -> None:
    camera = ota_camera(connect)
    start = bytes(camera.flash[0].content)
    session = rig.prepare("camera", slot="B")
    (session.work / "notes.txt").write_text("new\n")
    camera.faults.power_cut_after_programmed(64)
    done = rig.run("commit", "camera", "--slot", "B", "--force")
    assert done.code == 5
    assert "--slot B" in done.error, "the way on names the slot"
    camera.replug()
    rig.ok("recover", "camera", "--slot", "B", "--rollback")
    content = bytes(camera.flash[0].content)
    assert content[SIZE // 2 :][: len(B)] == B
    assert content[: SIZE // 2] == start[: SIZE // 2]


def test_slot_b_may_be_empty(rig: Rig, connect: Connect) -> None:
    """As it is before the first update."""
    camera = ota_camera(connect)
    content = bytes(camera.flash[0].content)[: SIZE // 2] + b"\xff" * (SIZE // 2)
    camera.flash[0].load(content)
    session = rig.prepare("camera", slot="B")
    (session.work / "notes.txt").write_text("first\n")
    rig.ok("commit", "camera", "--slot", "B", "--force")
    written = bytes(camera.flash[0].content)
    assert written[: SIZE // 2] == content[: SIZE // 2]
    assert dict(_files(written[SIZE // 2 :])) == {"notes.txt": b"first\n"}


@pytest.mark.parametrize("erase_size", [4 * KIB, SIZE])
def test_where_a_slot_cannot_be_erased_alone(rig: Rig, connect: Connect, erase_size: int) -> None:
    """Firmware that erases from the start only, and flash that is one unit."""
    camera = connect(
        "OPENMV4P", partitions=(PartitionConfig(SIZE, erase_size),), erase_by_range=False,
        images={0: two_slots(SIZE, A, B)}, runs_rom=True,
    )  # fmt: skip
    start = bytes(camera.flash[0].content)
    Path("other.img").write_bytes(OTHER)
    with device("camera", slot="B") as opened:
        assert "slot B cannot be written without slot A" in "".join(opened.info().notes)
    done = rig.run("push", "other.img", "camera", "--slot", "B", "--force")
    assert done.code in (1, 5)
    assert "slot" in done.error
    assert "nothing was" in done.error
    assert bytes(camera.flash[0].content) == start
    assert list(sessions()) == []  # what was refused leaves nothing behind


@pytest.mark.parametrize("how", ACCESS)
def test_a_single_slot_is_written_up_to_its_status(
    rig: Rig, connect: Connect, how: dict[str, Any]
) -> None:
    """An image of more than half of the partition; status and trailer stay, and so do they when
    it is undone: then it is as it was signed."""
    start, room = one_slot(SIZE, A), SIZE - 8 * KIB
    camera = connect(
        "OPENMV4P", partitions=(PartitionConfig(SIZE, **how),), images={0: start}, runs_rom=True
    )
    session = rig.prepare("camera")
    said = f"slot A over the whole partition, {len(A):,} B, as it was signed"
    note = f"{said}; this is slot A, and a commit, which breaks its signature, needs --slot A"
    assert note in rig.ok("status", "camera")
    assert json.loads(rig.ok("status", "camera", "--json"))["capacity"] == room
    (session.work / "large.bin").write_bytes(bytes(300 * KIB))
    assert "the camera then mounts nothing" in rig.run("commit", "camera").error
    assert bytes(camera.flash[0].content) == start
    rig.ok("commit", "camera", "--slot", "A", "--force")
    content = bytes(camera.flash[0].content)
    assert len(dict(_files(content))["large.bin"]) == 300 * KIB
    assert content[room:] == start[room:]
    assert f"{len(A):,} B, changed since it was signed" in rig.ok("info", "camera")
    rig.ok("undo", "camera", "--slot", "A", "--force")
    assert said in rig.ok("info", "camera")


def test_what_is_erased_with_its_status_is_not_written(rig: Rig, connect: Connect) -> None:
    """The status says it beforehand. Who no longer uses openmv-ota is told what overwrites it."""
    held = make_image("OPENMV4", size=20 * KIB)
    start = one_slot(128 * KIB, held, stride=32)
    camera = connect("OPENMV4", images={0: start}, runs_rom=True)
    session = rig.prepare("camera")
    assert "this is slot A, which only openmv-ota's tools write" in rig.ok("status", "camera")
    assert json.loads(rig.ok("status", "camera", "--json"))["capacity"] == 120 * KIB
    (session.work / "more.bin").write_bytes(bytes(80 * KIB))
    named = (
        "to give openmv-ota up there, run this and replug the camera: "
        "mpremote connect PORT romfs -p 0 deploy FILE.img"
    )
    for options in ([], ["--slot", "A", "--force"]):
        done = rig.run("commit", "camera", *options)
        assert done.code == 1
        assert named in done.error
        assert bytes(camera.flash[0].content) == start
    rig.ok("commit", "camera", "--to", "body.img")
    body = Path("body.img").read_bytes()
    assert len(dict(_files(body))["more.bin"]) == 80 * KIB
    command = named.partition(": ")[2].replace("FILE", "body").replace("PORT", camera.port)
    subprocess.run([sys.executable, "-m", *command.split()], timeout=60, check=True)
    assert bytes(camera.flash[0].content).startswith(body)
    camera.replug()  # the processor's cache has the old content until then
    Path("other.img").write_bytes(held)
    rig.ok("push", "other.img", "camera")
    assert bytes(camera.flash[0].content).startswith(held)


def test_no_slot_where_there_are_none(rig: Rig, connect: Connect) -> None:
    connect("OPENMV4P")
    Path("other.img").write_bytes(OTHER)
    for slot in "AB":
        done = rig.run("push", "other.img", "camera", "--slot", slot, "--force")
        assert done.code == 2
        assert "no slots of openmv-ota" in done.error
    assert "only cameras have slots" in rig.try_mount("other.img", "--slot", "B").error


def test_an_image_that_reaches_the_status_is_refused(rig: Rig, connect: Connect) -> None:
    camera = ota_camera(connect)
    Path("large.img").write_bytes(make_image("OPENMV4P", size=SIZE // 2 - 4 * KIB))
    done = rig.run("push", "large.img", "camera", "--slot", "A", "--force")
    assert done.code == 4
    assert bytes(camera.flash[0].content) == two_slots(SIZE, A, B)


def test_recover_writes_a_slot_only_where_that_was_asked_for(rig: Rig, connect: Connect) -> None:
    camera = ota_camera(connect)
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    camera.faults.power_cut_after_programmed(64)
    assert rig.run("commit", "camera", "--slot", "A", "--force").code == 5
    camera.replug()
    record = Record.load(session.folder)
    assert record.slot == "A"
    cut = bytes(camera.flash[0].content)
    dataclasses.replace(record, slot="").save(session.folder)
    for command in (("recover", "camera"), ("recover", "camera", "--rollback")):
        done = rig.run(*command)
        assert done.code == 1
        assert "breaks its signature" in done.error
        assert bytes(camera.flash[0].content) == cut
    record.save(session.folder)
    rig.ok("recover", "camera", "--rollback")
    assert bytes(camera.flash[0].content)[: len(A)] == A
    assert only_session().interrupted is False


def test_either_slot_is_read_without_mounting(rig: Rig, connect: Connect) -> None:
    """All that only read take the slot; and an image file has none."""
    ota_camera(connect)
    rig.ok("extract", "camera", "b", "--slot", "B")
    assert Path("b/notes.txt").read_bytes() == b"B\n"
    for name, image in (("A", A), ("B", B)):
        for word in (("--slot", name), ()) if name == "A" else (("--slot", name),):
            assert rig.ok("cat", "camera", "notes.txt", *word) == f"{name}\n"
            offset = image.index(f"{name}\n".encode(), image.index(b"notes.txt"))
            assert f"{offset:#10x}  notes.txt\n" in rig.ok("ls", "-l", "camera", *word)
            listed = {
                each["path"]: each["digest"]
                for each in json.loads(rig.ok("ls", "camera", "--json", *word))
            }
            assert listed["notes.txt"] == hashlib.sha256(f"{name}\n".encode()).hexdigest()
            of_image = hashlib.sha256(image).hexdigest()
            for command in ("info", "verify"):
                assert json.loads(rig.ok(command, "camera", "--json", *word))["digest"] == of_image
            rows = json.loads(rig.ok("info", "camera", "--map", "--json", *word))
            assert (rows["size"], rows["capacity"]) == (len(image), SIZE // 2 - 8 * KIB)
    Path("a.img").write_bytes(A)
    for command in ("ls", "info", "verify", "cat", "extract"):
        words = {"cat": ["notes.txt"], "extract": ["there"]}.get(command, [])
        for source in ("a.img", "-"):
            done = rig.run(command, source, *words, "--slot", "B")
            assert done.code == 2, command
            assert "only cameras have slots" in done.error


@pytest.mark.parametrize("single", [False, True])
def test_verify_and_info_name_an_image_of_openmv_ota(rig: Rig, single: bool) -> None:
    content = two_slots(SIZE, A, B)
    Path("ota.img").write_bytes(content[: SIZE // 2] if single else content)
    said = f"slot A, {len(A):,} B, runs; slot B, {len(B):,} B, older"
    if single:
        said = f"slot of a partition, {len(A):,} B, as it was signed"
    assert said in rig.ok("info", "ota.img")
    assert f"an openmv-ota image: {said}" in rig.run("verify", "ota.img").err
    Path("plain.img").write_bytes(A)
    assert "openmv-ota" not in rig.run("verify", "plain.img").err


def test_main_py_starts_there(rig: Rig, connect: Connect) -> None:
    ota_camera(connect)
    session = rig.prepare("camera")
    (session.work / "main.py").write_text("x = 1\n")
    assert "starts main.py from /flash" not in rig.ok("status", "camera")
