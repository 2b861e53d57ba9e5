"""Which camera a session's is, whatever port it is on: which are asked, and which are let go of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from session_desk import Camera, Desk

from romfsfs.devices import discovery
from romfsfs.devices.base import telling
from romfsfs.devices.discovery import CameraPort
from romfsfs.errors import DeviceAbsent, DeviceBusy, SessionBusy
from romfsfs.session import connect
from romfsfs.session.connect import device, known_session, session_device, unplugged_session
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.keep.state import dump, save
from romfsfs.session.session import Session

NUMBER = "12AB34CD"


class Usb:
    """Cameras by the port that they are on; opening one is noted, and so is letting it go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cameras: dict[str, Camera] = {}
        self.numbers: dict[str, str] = {}
        self.busy: set[str] = set()
        self.noted: list[str] = []

    def plug(self, port: str, who: str, number: str = "", board: str = "OPENMV4P") -> Path:
        path = self.folder / port
        path.touch()
        camera = Camera(self.folder / f"flash-{who}")
        camera.says = {"key": f"{board}/{who}/0", "name": f"{board} on {path}", "board": board,
                       "usb_serial": telling(number)}  # fmt: skip
        self.cameras[str(path)] = camera
        self.numbers[str(path)] = number
        camera.close = lambda: self.noted.append(f"closed {port}")  # type: ignore[method-assign]
        return path

    def unplug(self, port: str) -> None:
        del self.cameras[str(self.folder / port)]
        (self.folder / port).unlink()

    def is_camera(self, source: str) -> bool:
        if source == "camera" or source.startswith("dfu:"):
            return True
        return Path(source).parent == self.folder and os.path.exists(source)

    def ports(self) -> tuple[CameraPort, ...]:
        return tuple(
            CameraPort(port, 1, 2, self.numbers[port], (str(camera.says["board"]),))
            for port, camera in sorted(self.cameras.items())
        )

    def open(self, source: str, **_: object) -> Camera:
        if source == "camera":
            (source,) = self.cameras
        if source not in self.cameras:
            raise DeviceAbsent("not there", where=source)
        self.noted.append(f"opened {os.path.basename(source)}")
        if source in self.busy:
            raise DeviceBusy("in use", where=source)
        return self.cameras[source]


@pytest.fixture
def usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Usb:
    usb = Usb(tmp_path)
    monkeypatch.setattr(connect, "open_device", usb.open)
    monkeypatch.setattr(discovery, "serial_cameras", lambda ports=None: usb.ports())
    monkeypatch.setattr(connect, "is_camera", usb.is_camera)
    return usb


def session_on(usb: Usb, port: str, source: str = "") -> Session:
    path = usb.folder / port
    desk = Desk(usb.cameras[str(path)], source or str(path))
    return desk.open()


def used(session: Session) -> Camera:
    with session_device(session) as opened:
        assert isinstance(opened, Camera)
        assert session.folder.changed_by() is None, "the lock is for the opening alone"
        return opened


def absent(work: Callable[[], object]) -> str:
    with pytest.raises(DeviceAbsent) as refused:
        work()
    return refused.value.line


def test_it_is_on_its_port_and_closed_at_the_end(usb: Usb) -> None:
    usb.plug("p1", "one")
    session = session_on(usb, "p1")
    camera = used(session)
    assert camera is usb.cameras[session.info.source]
    assert usb.noted == ["opened p1", "closed p1"]


def test_one_that_changed_ports_is_found_and_the_others_are_let_go(usb: Usb) -> None:
    """Another is on its old port; one is in use; one is of a board that it cannot be."""
    usb.plug("p1", "one")
    session = session_on(usb, "p1")
    usb.unplug("p1")
    for port, who, board in (("p1", "two", "OPENMV4P"), ("p2", "three", "OPENMV4P"),
                             ("p3", "four", "OPENMV_AE3"), ("p4", "five", "OPENMV4P"),
                             ("p5", "one", "OPENMV4P"), ("p6", "six", "OPENMV4P")):  # fmt: skip
        usb.plug(port, who, board=board)
    usb.busy.add(str(usb.folder / "p4"))
    assert used(session) is usb.cameras[str(usb.folder / "p5")]
    assert usb.noted == ["opened p1", "closed p1", "opened p2", "closed p2", "opened p4",
                         "opened p5", "closed p5"]  # fmt: skip


def test_one_that_is_nowhere_is_said_to_be(usb: Usb) -> None:
    usb.plug("p1", "one")
    session = session_on(usb, "p1")
    port = session.info.source
    usb.unplug("p1")
    assert absent(lambda: used(session)) == (
        f"the camera is not connected (OPENMV4P on {port}); your edits are kept; connect it and "
        "try again; romfsfs cameras lists those connected"
    )
    usb.plug("p1", "two")
    assert absent(lambda: used(session)) == (
        f"another camera is connected there: OPENMV4P/two/0, not OPENMV4P/one/0 ({port}); nothing "
        "was written; connect the session's own camera; romfsfs sessions lists them"
    )
    assert usb.noted == ["opened p1", "closed p1"]


def test_a_file_that_became_a_link_to_another_is_not_written(desk: Desk) -> None:
    desk.open()
    other = desk.image.with_name("other.img")
    desk.image.rename(other)
    desk.image.symlink_to(other)
    assert absent(lambda: used(desk.session)) == (
        f"its path is now a link to another file: {other} ({desk.image}); nothing was written; "
        f"write your edits to a file: romfsfs commit {desk.image} --to FILE"
    )


def test_a_port_is_left_alone_while_its_session_is_changed(usb: Usb) -> None:
    """Root may open it all the same, and would spoil a commit."""
    usb.plug("p1", "one", NUMBER)
    usb.plug("p2", "two", "43DC21BA")
    session = session_on(usb, "p1")
    with session.folder.lock_for_change("x", "commit") as lock:
        lock.write(MountedAt(1, "", doing="commit"))
        for work in (lambda: device(session.info.source).__enter__(), lambda: used(session)):
            with pytest.raises(SessionBusy, match=r"a commit of OPENMV4P on .*p1 is running"):
                work()
        assert usb.noted == []
        with device(str(usb.folder / "p2")):
            pass
        assert usb.noted == ["opened p2", "closed p2"]
    with device(session.info.source) as opened:
        assert opened is usb.cameras[session.info.source]
    with session.folder.lock_for_change("x"), session_device(session):
        pass  # by ourselves
    assert usb.noted[2:] == ["opened p1", "closed p1"] * 2


def test_it_is_closed_when_the_work_fails(usb: Usb) -> None:
    usb.plug("p1", "one")
    session = session_on(usb, "p1")
    for block in (session_device(session), device(session.info.source)):
        with pytest.raises(ZeroDivisionError), block:
            raise ZeroDivisionError
    assert usb.noted == ["opened p1", "closed p1"] * 2


# -- which session that is, told by USB alone


def key(session: Session | None) -> str | None:
    return None if session is None else session.info.key


def test_a_session_is_known_by_the_number_of_its_camera(usb: Usb) -> None:
    one = usb.plug("p1", "one", NUMBER)
    two = usb.plug("p2", "two", "43DC21BA")
    session_on(usb, "p1")
    assert key(known_session(str(one), 0, "")) == "OPENMV4P/one/0"
    assert key(known_session(str(one), 0, "A")) == "OPENMV4P/one/0"
    for other in (
        (str(one), 1, ""),
        (str(one), 0, "B"),
        (str(two), 0, ""),
        ("dfu:OPENMV4P", 0, ""),
    ):
        assert known_session(*other) is None
    usb.numbers[str(one)] = NUMBER.lower()
    assert key(known_session(str(one), 0, "")) == "OPENMV4P/one/0"
    usb.unplug("p1")
    assert key(known_session(str(one), 0, "")) == "OPENMV4P/one/0", "by the name it was opened by"
    usb.plug("p1", "three", NUMBER, board="OPENMV_AE3")
    assert known_session(str(one), 0, "") is None
    assert usb.noted == []


def test_without_a_number_the_one_in_use_on_that_port_is_meant(usb: Usb) -> None:
    one = usb.plug("p1", "one", "000000000010")
    session = session_on(usb, "p1")
    assert known_session(str(one), 0, "") is None
    with session.folder.lock_for_mount("x"):
        assert key(known_session(str(one), 0, "")) == "OPENMV4P/one/0"
    with session.folder.lock_for_change("x"):
        assert key(known_session(str(one), 0, "")) == "OPENMV4P/one/0"
        save(session.folder.info, dump(replace(session.info, name="OPENMV4P on elsewhere")))
        assert known_session(str(one), 0, "") is None


def test_what_is_not_clear_is_not_guessed(usb: Usb) -> None:
    usb.plug("p1", "one")
    session_on(usb, "p1", "camera")
    assert key(unplugged_session("camera", 0, "")) == "OPENMV4P/one/0"
    assert key(unplugged_session(f"OPENMV4P on {usb.folder}/p1", 0, "")) == "OPENMV4P/one/0"
    assert unplugged_session("other", 0, "") is None
    usb.unplug("p1")
    usb.plug("p2", "two")
    session_on(usb, "p2", "camera")
    assert unplugged_session("camera", 0, "") is None, "it was two cameras' name"
    desk = Desk.with_image(usb.folder, {})
    desk.open()
    assert unplugged_session(str(desk.image), 0, "") is None, "a file is no camera"
