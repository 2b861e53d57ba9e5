"""File managers: Commit and Status as Nautilus scripts and Thunar actions; opening image files.

They call `romfsfs desktop --run commit|status|open PATH`, which shows the outcome in a window.
Thunar's `uca.xml` belongs to the user and to Thunar, which rewrites it: our actions are inserted
and removed as text, found by their unique-id, and every other byte stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from romfsfs.desktop.installed import File, filled
from romfsfs.errors import RomfsError

#: action -> (icon, menu entry, description)
ACTIONS = {
    "commit": ("document-save", "Commit to camera",
               "Write the edits to the camera or image file, verified"),
    "status": ("dialog-information", "ROMFS status", "What would be committed"),
}  # fmt: skip

#: Thunar's actions for users without a file of their own.
SYSTEM_UCA = Path("/etc/xdg/Thunar/uca.xml")

_OUR_IDS = [f"romfsfs-{action}" for action in ACTIONS]
_OURS = re.compile(
    rb"<action>(?:(?!</action>).)*?<unique-id>\s*(?:%s)\s*</unique-id>.*?</action>\n?"
    % "|".join(_OUR_IDS).encode(), re.S,
)  # fmt: skip
EMPTY_UCA = b'<?xml version="1.0" encoding="UTF-8"?>\n<actions>\n</actions>\n'


def nautilus_scripts(program: Sequence[str], data_home: Path) -> list[File]:
    """A script for each action, in the submenu Scripts > romfsfs."""
    folder, words = data_home / "nautilus" / "scripts" / "romfsfs", shlex.join(program)
    # Nautilus starts scripts in the folder shown. They change to `/`, or Python would import there.
    texts = {action: filled("nautilus.sh", PROGRAM=words, ACTION=action) for action in ACTIONS}
    return [File(folder / each.capitalize(), text.encode(), 0o755) for each, text in texts.items()]


def image_type(program: Sequence[str], data_home: Path) -> list[File]:
    """The MIME type of image files, by their first bytes (docs/format.md), and its opener."""
    words = " ".join(map(_exec_word, program))
    entry = filled("romfsfs.desktop", PROGRAM=words)
    return [
        File(data_home / "mime/packages/romfsfs.xml", filled("romfsfs.xml").encode()),
        File(data_home / "applications/romfsfs.desktop", entry.encode()),
    ]


def caches(data_home: Path) -> list[list[str]]:
    """The commands that update the desktop's caches after `image_type`'s files came or went."""
    return [
        ["update-mime-database", str(data_home / "mime")],
        ["update-desktop-database", str(data_home / "applications")],
    ]


def _exec_word(word: str) -> str:
    """A word of the key Exec (Desktop Entry Specification): quoted, then escaped like any value."""
    quoted = '"' + re.sub(r'(["`$\\])', r"\\\1", word) + '"'
    escaped = quoted.replace("\\", "\\\\").replace("\n", "\\n").replace("%", "%%")
    return word if re.fullmatch(r"[\w/.+-]+", word) else escaped


def uca_path(config_home: Path) -> Path:
    """Thunar's file with the user's own actions."""
    return config_home / "Thunar" / "uca.xml"


def with_actions(present: bytes | None, program: Sequence[str]) -> bytes:
    """`uca.xml` with our actions at its end; older ones of ours are removed.

    present: the file's contents; None: there is no file. RomfsError if it is not Thunar's format.
    """
    text = without_actions(present if present is not None else EMPTY_UCA)
    end = text.rfind(b"</actions>")
    block = b"".join(_action(program, action) for action in ACTIONS)
    return _checked(text[:end] + block + text[end:], [*_ids(text), *_OUR_IDS])


def without_actions(present: bytes) -> bytes:
    """`uca.xml` without our actions, every other byte as it was. RomfsError as `with_actions`."""
    others = [each for each in _ids(present) if each not in _OUR_IDS]
    return _checked(_OURS.sub(b"", present), others)


def _action(program: Sequence[str], action: str) -> bytes:
    icon, name, description = ACTIONS[action]
    # Thunar replaces %f by the quoted path; any other percent sign must be doubled.
    called = shlex.join(program).replace("%", "%%")
    shell = f'cd / && exec {called} desktop --run {action} "$0"'
    command = f"sh -c {shlex.quote(shell)} %f"
    return filled(
        "thunar.xml", ACTION=action, ICON=icon, NAME=escape(name), COMMAND=escape(command),
        DESCRIPTION=escape(description),
    ).encode()  # fmt: skip


def _ids(data: bytes) -> list[str]:
    """The unique-id of each action."""
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 (the user's own)
    except ElementTree.ParseError as error:
        raise RomfsError(f"Thunar's actions cannot be read: {error}", where="uca.xml") from None
    if root.tag != "actions":
        raise RomfsError("not a file of Thunar's actions", where="uca.xml")
    return [(each.findtext("unique-id") or "").strip() for each in root.iter("action")]


def _checked(made: bytes, ids: list[str]) -> bytes:
    """The new text; RomfsError unless it has exactly these actions: a comment may hold some."""
    if _ids(made) != ids:
        raise RomfsError("Thunar's actions cannot be edited", where="uca.xml")
    return made


def dialog_command(program: str, title: str, text: str, *, failed: bool) -> list[str]:
    """The argv that shows a window with the outcome: with zenity, kdialog or xmessage."""
    name = program.rpartition("/")[2]
    if name == "zenity":
        kind = "--error" if failed else "--info"
        return [program, kind, "--no-markup", "--width=600", f"--title={title}", f"--text={text}"]
    if name == "kdialog":
        # kdialog guesses whether a text is markup: always make it markup, escaped.
        shown = escape(text).replace("\n", "<br>")
        return [program, "--title", title, "--error" if failed else "--msgbox", f"<p>{shown}</p>"]
    return [program, "-center", "-title", title, text]


def progress_command(zenity: str, title: str) -> list[str]:
    """The argv of a progress window, which reads `progress_words` on standard input."""
    return [zenity, "--progress", "--no-cancel", "--width=450", f"--title={title}", "--text="]


def progress_words(phase: str, done: int, total: int) -> bytes:
    """A line for the progress window: a percentage, or a pulsating bar if there is no total."""
    known = total > 1
    share = min(99, done * 100 // total) if known else 0  # the window takes 100 for the end
    return f"# {phase}\npulsate:{'false' if known else 'true'}\n{share}\n".encode()
