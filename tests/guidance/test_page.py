"""The status page: everything that is asked of a mount, for a browser; no name is ever markup."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from romfsfs.cli import main
from romfsfs.errors import shell_word
from romfsfs.image.writer import encode

#: Elements without an end (HTML Standard, "Void elements").
VOID = {"meta"}
HOSTILE = (
    "<script>alert(1)</script>.txt".replace("/", "\N{FRACTION SLASH}"),
    '"onmouseover="alert(1)".txt', "'onload='x'.txt", "$title ${files}.txt", "&lt;b&gt;.txt",
    "a\x1b[31m\rb.txt", "\u202egnp.exe.txt", "\u05d0\u05d1.txt", "-->.txt",
)  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of it. Fails for what is not closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.classes: dict[str, int] = {}
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        for name, value in attrs:
            if name == "class":
                for word in (value or "").split():
                    self.classes[word] = self.classes.get(word, 0) + 1
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return "".join(self.said)


@pytest.fixture
def cam(tmp_path: Path, fuse_device: None) -> Path:
    cam = tmp_path / "cam"
    cam.mkdir()
    return cam


def mount(cam: Path, files: dict[str, bytes]) -> None:
    image = cam.parent / "app.img"
    image.write_bytes(encode(files))
    assert main(["mount", str(image), str(cam), "--board", "OPENMV4"]) == 0


def test_it_says_what_a_commit_would_do(
    cam: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mount(cam, {"old.bin": b"o" * 20_000, "gone.bin": b"g" * 10_000, "same.bin": b"s" * 5_000})
    try:
        (cam / "lib").mkdir()
        (cam / "lib" / "new.bin").write_bytes(b"n" * 1234)
        (cam / "bad.py").write_text("def (:\n")
        (cam / "old.bin").write_bytes(b"O" * 20_000)
        (cam / "gone.bin").unlink()
        while any(entry["state"] == "pending" for entry in record(cam)["entries"]):
            pass
        text = (cam / ".romfs/status.html").read_text()
        letters = re.findall(r'<tr class="(\w+)[^"]*"><td>(\w*)</td>', text)
        assert set(letters) == {
            ("added", "A"), ("modified", "M"), ("deleted", "D"), ("unchanged", ""),
        }  # fmt: skip
        page = Page(text)
        assert page.text.index("SyntaxError") < page.text.index("Files"), "problems come first"
        assert '<meta http-equiv="refresh" content="5">' in text
        assert "@media (prefers-color-scheme: dark)" in text
        assert "1,234 B" in page.text
        assert "FAILED" in page.text
        assert f"romfsfs commit {shell_word(str(cam))}" in page.text
        assert page.classes["touched"] == 2 + 1, "old.bin, gone.bin and the legend"
        assert page.classes["deleted"] == 1
        assert page.classes["free"] == 1 + 1
        capsys.readouterr()
        assert main(["status", "--html", str(cam)]) == 0
        assert Page(capsys.readouterr().out).text == page.text
        assert main(["status", "--html", "--json", str(cam)]) == 2
    finally:
        assert main(["umount", str(cam)]) == 0
    capsys.readouterr()
    assert main(["status", "--html", str(tmp_path / "app.img")]) == 0
    assert (
        f"romfsfs commit {shell_word(str(tmp_path / 'app.img'))}"
        in Page(capsys.readouterr().out).text
    )


def record(cam: Path) -> dict[str, list[dict[str, str]]]:
    made: dict[str, list[dict[str, str]]] = json.loads((cam / ".romfs/status.json").read_text())
    return made


def test_nothing_of_a_name_is_markup(cam: Path) -> None:
    mount(cam, {"harmless.txt": b"x"})
    try:
        plain = Page((cam / ".romfs/status.html").read_text())
        for name in HOSTILE:
            (cam / name).write_bytes(b"x")
        (cam / "<b>.py").write_text("<script>'</bdi><img src=x onerror=alert(1)>\n")
        text = (cam / ".romfs/status.html").read_text()
    finally:
        assert main(["umount", "--discard", str(cam)]) == 0
    page = Page(text)
    assert set(page.tags) - set(plain.tags) <= {"pre", "div", "b", "span", "code"}
    assert page.attributes == plain.attributes
    for name in HOSTILE:
        if name.isprintable():
            assert name in page.said
    assert not set(text) & {"\x1b", "\r", "\u202e"}
    assert "\\u202egnp.exe.txt" in page.text


def test_thousands_of_files_are_one_small_page(cam: Path) -> None:
    mount(cam, {f"d{n % 40}/file{n}.bin": b"x" * (n % 50) for n in range(2000)})
    try:
        text = (cam / ".romfs/status.html").read_text()
    finally:
        assert main(["umount", str(cam)]) == 0
    page = Page(text)
    assert sum(said.startswith("file") and said.endswith(".bin") for said in page.said) == 2000
    assert page.tags.count("i") < 500, "what is too small to be seen is drawn together"
    assert len(text) < 700_000


@pytest.mark.desktop
@pytest.mark.program("chromium")
def test_a_browser_shows_it_and_runs_nothing(cam: Path, tmp_path: Path) -> None:
    files = {f"d{n % 40}/file{n}.bin": b"x" * (n % 9) for n in range(2000)}
    files |= dict.fromkeys((*HOSTILE, "<img src=x onerror=document.title='ran'>.txt"), b"x" * 1234)
    mount(cam, files)
    try:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"--user-data-dir={tmp_path / 'chromium'}", f"file://{cam}/.romfs/status.html"],
            capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
    finally:
        assert main(["umount", str(cam)]) == 0
    page = Page(done.stdout)  # the browser's own tree, written out
    assert "<title>ran" not in done.stdout
    assert not {"img", "script"} & set(page.tags)
    assert not {name for name in HOSTILE if name.isprintable()} - set(page.said)
    assert sum(said.startswith("file") and said.endswith(".bin") for said in page.said) == 2000
    assert "1,234 B" in page.text
