"""What editors and file managers leave behind: accepted in the mount, never packed.

Names decide, not contents, one path component at a time, so everything inside a `.git` is junk,
too. The patterns are in `junk.txt`, as for fnmatch, case-sensitive (docs/converters.md, "Junk").
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path

from romfsfs.errors import UsageError

#: rsync's temporary file: `.NAME.XXXXXX`, six random letters and digits.
RSYNC = ".*.??????"
_LISTED = Path(__file__).with_name("junk.txt").read_text("utf-8").splitlines()
DEFAULT_PATTERNS = tuple(line for line in _LISTED if line and not line.startswith("# "))

#: `.*.??????` read literally would also match `.foo.tflite` and `.my.config`, which must be
#: packed. rsync's six are letters and digits. A name is taken for rsync's if one of them is a
#: digit or a capital (all but one in 200), or if the name before them has a suffix of its own.
_RSYNC_REGEX = (
    r"\.(?:.+\.[^.]+\.[A-Za-z0-9]{6}"
    r"|.+\.(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{6})\Z"
)


class Excludes:
    """Which paths are never packed. Safe for any thread.

    rules: the user's additions. `!PATTERN` drops the pattern spelled so, or, if there is none,
    keeps the names that match it. Of PATTERN and `!PATTERN` the later one counts. UsageError for a
    pattern with a `/`, or a lone `!`.
    """

    def __init__(self, rules: Iterable[str] = ()) -> None:
        patterns = list(DEFAULT_PATTERNS)
        kept: list[str] = []
        for rule in map(_clean, rules):
            if not rule:
                continue
            if not rule.startswith("!"):
                if rule not in patterns:
                    patterns.append(rule)
                if rule in kept:
                    kept.remove(rule)
            elif rule[1:] in patterns:
                patterns.remove(rule[1:])
            elif rule[1:] not in kept:
                kept.append(rule[1:])
        self._junk = _compile(patterns)
        self._kept = _compile(kept)
        self._folder = "", False  # the last folder that was looked up, and whether it is junk

    def matches(self, path: str) -> bool:
        """Whether `path` (relative, with `/`), or a folder it is in, is junk."""
        folder, slash, name = path.rpartition("/")
        known, junk = self._folder
        if folder != known:  # the files of one folder are looked up one after the other
            junk = slash != "" and any(map(self.matches_name, folder.split("/")))
            self._folder = folder, junk
        return junk or self.matches_name(name)

    def matches_name(self, name: str) -> bool:
        """Whether one name without `/` is junk."""
        return bool(self._junk.match(name)) and not self._kept.match(name)


def _clean(rule: str) -> str:
    pattern = rule.strip().rstrip("/")
    if "/" in pattern:
        next_step = "patterns match single names; give the name of the file or folder"
        raise UsageError(f"exclude pattern {rule!r} has a '/'", next_step=next_step)
    if pattern == "!":
        raise UsageError(f"exclude pattern {rule!r} names nothing")
    return pattern


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    parts = [_RSYNC_REGEX if each == RSYNC else fnmatch.translate(each) for each in patterns]
    return re.compile("|".join(parts) if parts else r"(?!)", re.DOTALL)
