"""A person edits a camera's files in a file manager: the real Thunar on a screen of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from desktop import Crashed, Desktop
from real_mount import CHECKOUT, RealMount
from thunar import Thunar, version

from romfsfs.desktop.file_managers import progress_command, progress_words
from romfsfs.image.writer import encode

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(400)]  # a crash of Thunar begins anew


class Story:
    """A desktop, a mount in its home for a board with an NPU, and files to copy into it."""

    def __init__(self) -> None:
        self.desktop = Desktop()
        base = self.desktop.folder / "romfsfs"
        base.mkdir()
        self.cam = RealMount(base, board="OPENMV_AE3")
        self.cam.mnt = self.desktop.home / "cam"
        self.cam.mnt.mkdir()
        self.downloads = self.desktop.home / "Downloads"
        self.downloads.mkdir()
        model = self.downloads / "model.tflite"
        subprocess.run([sys.executable, CHECKOUT / "scripts/example_model.py", model], check=True)
        (self.downloads / "model.txt").write_text("no person\nperson\n")
        (self.downloads / "app.py").write_text("print('hello')\n")

    def install(self) -> None:
        """What romfsfs gives to file managers, whose children its commands are."""
        names = [name for name in self.cam.env if name.startswith("ROMFSFS_")]
        self.desktop.env |= {name: self.cam.env[name] for name in names}
        self.desktop.env |= {"PYTHONPATH": str(CHECKOUT)}
        self.romfsfs("desktop", "--install")

    def romfsfs(self, *words: object) -> str:
        command = [sys.executable, "-m", "romfsfs", *map(str, words)]
        return subprocess.run(
            command, env=self.desktop.env, check=True, capture_output=True, text=True
        ).stdout

    def close(self) -> None:
        if self.cam.is_mounted:
            subprocess.run(["fusermount3", "-uz", self.cam.mnt], check=False)
        self.desktop.close()


def tell(story: Callable[[Story], None]) -> None:
    """Thunar 4.18 crashes once in a while, on plain folders too; a person starts it again."""
    for attempt in range(3):
        told = Story()
        try:
            told.cam.mount()
            story(told)
            assert told.cam.complaints() == []
            told.cam.umount()
            return
        except Crashed as crash:
            if attempt == 2:
                raise
            print(crash)
        finally:
            told.close()


def test_a_model_is_copied_renamed_deleted_and_committed() -> None:
    tell(edits_and_commits)


def edits_and_commits(told: Story) -> None:
    desktop, cam, downloads = told.desktop, told.cam, told.downloads
    mnt = cam.mnt
    told.install()
    thunar = Thunar(desktop, downloads)
    model = (downloads / "model.tflite").read_bytes()
    for name in ("model.tflite", "model.txt", "app.py"):
        thunar.go(downloads)
        thunar.copy(name)
        thunar.go_by_device(mnt)
        thunar.press_key("ctrl+v", lambda name=name: same(mnt / name, downloads / name))

    thunar.rename("model.tflite", "person.tflite")
    desktop.until(lambda: (mnt / "person.tflite").exists())
    assert (mnt / "person.tflite").read_bytes() == model
    assert not (mnt / "model.tflite").exists()
    thunar.make_folder("lib")
    desktop.until((mnt / "lib").is_dir)

    thunar.select("model.txt")
    trashed = mnt / f".Trash-{os.getuid()}/files/model.txt"
    thunar.press_key("Delete", trashed.exists)
    assert not (mnt / "model.txt").exists()
    if version() >= (4, 18):
        thunar.press_key("ctrl+z", (mnt / "model.txt").exists)
        assert same(mnt / "model.txt", downloads / "model.txt")
        thunar.select("model.txt")
        thunar.press_key("Delete", trashed.exists)

    (mnt / ".goutputstream-A1B2C3").write_text("half a file")
    counted = "3 files" if version() >= (4, 20) else "2 files"  # since then what is hidden too
    thunar.status(counted)
    thunar.choose("Commit to camera", lambda: desktop.find("label", "verified"))
    # Not a click: of GTK 4, which zenity 4 has, AT-SPI does not say where on the screen it is.
    thunar.press_key("Return", lambda: not desktop.find("label", "verified"))
    thunar.wait_for_folder()
    stored = cam.stored()
    assert set(stored) == {"app.mpy", "lib", "person.tflite"}
    assert b"ethos-u" in (stored["person.tflite"] or b"")
    assert trashed.exists()

    thunar.select("person.tflite")
    thunar.open_dialog("shift+Delete", "Attention")
    desktop.wait_for("label", 'permanently delete "person.tflite"')
    thunar.press("Delete")
    desktop.until(lambda: not (mnt / "person.tflite").exists())
    thunar.wait_for_folder()
    cam.run("commit", mnt)
    assert set(cam.stored()) == {"app.mpy", "lib"}
    cam.run("undo", mnt)
    assert cam.stored() == stored
    thunar.reload(counted)
    assert (mnt / "person.tflite").read_bytes() == model


def test_an_image_opens_by_a_double_click_and_tells_its_status() -> None:
    tell(opens_and_tells)


def opens_and_tells(told: Story) -> None:
    """With xdg-open, and a browser that keeps what it is shown."""
    desktop, downloads = told.desktop, told.downloads
    desktop.env["XDG_CURRENT_DESKTOP"] = "XFCE"
    applications = desktop.home / ".local/share/applications"
    applications.mkdir(parents=True)
    page = desktop.folder / "page"
    (desktop.folder / "browser").write_text(
        f'#!/bin/sh\ncat "$1" > {page}.new; mv {page}.new {page}'
    )
    (desktop.folder / "browser").chmod(0o755)
    (applications / "browser.desktop").write_text(
        f"[Desktop Entry]\nType=Application\nName=Browser\nExec={desktop.folder}/browser %f\n"
        "MimeType=text/html;\n"
    )
    config = desktop.home / ".config"
    config.mkdir(exist_ok=True)
    (config / "mimeapps.list").write_text("[Default Applications]\ntext/html=browser.desktop\n")
    told.install()
    image = downloads / "my 100% app.img"
    image.write_bytes(encode({"a.txt": b"a"}))
    folder = desktop.home / "romfs" / image.stem

    thunar = Thunar(desktop, downloads)
    named = f"^{re.escape(image.name)}$"
    # As a list: of its icons Thunar tells AT-SPI nothing.
    thunar.press_key("ctrl+2", lambda: desktop.find("table cell", named))
    row = desktop.wait_for("table cell", named)
    try:
        thunar.do(lambda: desktop.double_click(row), (folder / "a.txt").exists)
        thunar.folder = folder
        thunar.wait_for_folder()  # in a window of its own, in front
        desktop.wait_for("table cell", "^a.txt$")
        (folder / "new.py").write_text("print(1)\n")
        thunar.choose("ROMFS status", page.exists)
        assert "new.py" in page.read_text()
    finally:
        if folder.is_mount():
            told.romfsfs("umount", "--discard", "--lazy", folder)
            told.romfsfs("sessions", "--yes", "--forget", image)


def test_how_far_a_commit_is_shows_in_a_window() -> None:
    desktop = Desktop()
    try:
        command = progress_command("zenity", "Commit to camera")
        window = desktop.start(*command, stdin=subprocess.PIPE, bufsize=0)
        assert window.stdin is not None
        with window.stdin:
            window.stdin.write(progress_words("preparing", 0, 0))
            desktop.wait_for("label", "^preparing$")
            window.stdin.write(progress_words("writing", 42, 100))
            desktop.wait_for("label", "^writing$")
            bar = desktop.wait_for("progress bar", "")
            desktop.until(lambda: desktop.value(bar) in (0.42, 42))  # of 1, or of 100
    finally:
        desktop.close()


def test_what_does_not_fit_or_is_a_link_is_refused_in_words() -> None:
    tell(is_refused)


def is_refused(told: Story) -> None:
    desktop, cam = told.desktop, told.cam
    mnt = cam.mnt
    folder = desktop.home / "projects"
    (folder / "tree").mkdir(parents=True)
    (folder / "tree/a.txt").write_text("a")
    (folder / "tree/link").symlink_to("a.txt")
    (folder / "tree/z.txt").write_text("z")
    with open(folder / "large.bin", "wb") as file:
        file.truncate((24 << 20) + 1)

    thunar = Thunar(desktop, folder)
    thunar.copy("large.bin")
    thunar.go(mnt)
    thunar.status(r"Free space: 24\.0 MiB")
    full = "not enough space on the destination"
    thunar.press_key("ctrl+v", lambda: desktop.find("label", full))
    thunar.press("Copy Anyway")
    desktop.wait_for("label", "No space left on device")
    thunar.press("Close")
    thunar.wait_for_folder()
    thunar.select("large.bin")  # what fitted is there, as on any disk
    assert "large.bin" in cam.run("commit", mnt, code=4)
    thunar.press_key("Delete", lambda: not (mnt / "large.bin").exists())

    thunar.go(folder)
    thunar.copy("tree")
    thunar.go(mnt)
    no_links = "does not support symbolic links"
    thunar.press_key("ctrl+v", lambda: desktop.find("label", no_links))
    thunar.press("Skip All")
    desktop.until((mnt / "tree/z.txt").exists)
    thunar.wait_for_folder()
    assert sorted(os.listdir(mnt / "tree")) == ["a.txt", "z.txt"]

    thunar.go(desktop.home)
    thunar.select("cam")
    thunar.open_dialog("alt+Return", "cam - Properties")
    desktop.wait_for("label", r"^24\.0 MiB$")
    desktop.wait_for("label", r"\bused \(\d+%\) +\| +\d+\.\d MiB free")
    cam.run("commit", mnt)
    assert set(cam.stored()) == {"tree", "tree/a.txt", "tree/z.txt"}


def same(path: Path, other: Path) -> bool:
    """Copied whole: the time, to the microsecond that GLib sets, comes last."""
    if not path.exists() or path.read_bytes() != other.read_bytes():
        return False
    return path.stat().st_mtime_ns // 1000 == other.stat().st_mtime_ns // 1000
