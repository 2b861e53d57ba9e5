"""Transcripts: whole sessions of commands, with all that they print, as plain text.

    A story in words begins at the margin.

      $ romfsfs ls app.img
      a.txt
      $ romfsfs cat app.img no
      2> romfsfs: error: no such file in the image (app.img: no); romfsfs ls app.img
      [2]

Lines that begin with `2> ` came on standard error; `[2]` is the exit code where it is not 0. A line
that is empty or ends in blanks ends in `⏎`, and what ends without a line break says so.
What differs from one run to the next is replaced in one place, `Known`.

A change of words is a failure that shows both; `pytest --update-transcripts` writes the files anew,
and the review reads the difference.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import unhurried

from romfsfs.cli import main
from romfsfs.system.mount_table import find_mount

#: Seconds after which a command has failed.
LIMIT = 60
_IN_SHELL = re.compile(r"[|<>&;*`$]")
#: what differs from run to run, and what stands for it
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "YYYY-MM-DD HH:MM"),
    (re.compile(r"\b\d+\.\d\d s\b"), "N.NN s"),
    (re.compile(r'("time"|"seconds"|"sent"): [\d.]+'), r"\1: N"),
    (re.compile(r"^romfsfs: \w+ing( [\d,]+ bytes)?\n", re.MULTILINE), ""),  # what lasts a while
    (re.compile(r'(\bprocess|\bpid|"pid":|kill -9) \d+'), r"\1 PID"),
    (re.compile(r'(/sessions/[^/\s"]+)-[0-9a-f]{12}'), r"\1-ID"),
    (re.compile(r"/dev/pts/\d+"), "/dev/pts/N"),
)


def stories(folder: Path) -> list[str]:
    """The names of the transcripts in a folder."""
    found = sorted(path.stem for path in folder.glob("*.txt"))
    assert found, folder
    return found


class Known:
    """Replaces what differs from one run to the next. Digests get numbers, so that one that is
    said twice is seen to be the same."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._digests: dict[str, str] = {}

    def text(self, text: str) -> str:
        for place, name in self._places.items():
            text = text.replace(place, name)
        text = re.sub(r"\b[0-9a-f]{64}\b", self._digest, text)
        for pattern, instead in _VARYING:
            text = pattern.sub(instead, text)
        return text

    def command(self, text: str) -> str:
        """A command of the story, with what things are really called."""
        for place, name in self._places.items():
            text = text.replace(name, place)
        return text

    def _digest(self, found: re.Match[str]) -> str:
        return self._digests.setdefault(found[0], f"DIGEST-{len(self._digests) + 1}")


class Teller:
    """Tells a transcript again, in `here`. romfsfs runs in this process, which is quick; what
    mounts (it forks) and lines with something for a shell run in one."""

    def __init__(self, here: Path, bin: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self._here, self._capfd = here, capfd
        self._known = Known({})
        program = bin / "romfsfs"
        command = shlex.join([sys.executable, unhurried.__file__])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        self._environment = {"PATH": f"{bin}:{os.environ['PATH']}"}

    def tell(self, text: str, places: Mapping[str, str]) -> str:
        """The same story with what its commands print now. places: what is called otherwise in
        it, by its real name."""
        cache = os.environ["ROMFSFS_CACHE_DIR"]
        self._known = Known({**places, cache: "/home/me/cache", str(self._here): "/home/me"})
        lines = []
        for line in text.splitlines():
            if line.startswith("  $ "):
                lines += [line, *(f"  {said}" for said in self._said(line[4:]))]
            elif not line.startswith("  "):
                lines.append(line)
        return "\n".join(lines) + "\n"

    def _said(self, command: str) -> list[str]:
        command = self._known.command(command)
        words = [] if _IN_SHELL.search(command) else shlex.split(command)
        if words[:1] == ["romfsfs"] and "mount" not in words:
            self._capfd.readouterr()
            code = main(words[1:])
            out, err = self._capfd.readouterr()
        else:
            done = subprocess.run(
                command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                cwd=os.getcwd(), env=os.environ | self._environment, timeout=LIMIT, check=False,
            )  # fmt: skip
            code, out, err = done.returncode, done.stdout, done.stderr
        assert "Traceback" not in err, err
        said = [*_shown(self._known.text(out))]
        said += [f"2> {line}" for line in _shown(self._known.text(err))]
        return [*said, f"[{code}]"] if code else said

    def close(self) -> None:
        for folder in self._here.iterdir():
            if find_mount(str(folder)) is not None:
                subprocess.run(["fusermount", "-uz", folder], check=False, timeout=LIMIT)


def _shown(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    shown = [line + "⏎" * (line != line.rstrip() or not line) for line in lines]
    return [*shown, last, "(no line break at the end)"] if last else shown
