"""What editors and file managers leave is not packed; what people make is."""

from __future__ import annotations

import time

import pytest

from romfsfs.convert import DEFAULT_PATTERNS, Excludes, labels_name
from romfsfs.errors import UsageError

JUNK = [
    ".DS_Store",
    "lib/.DS_Store",
    "._app.py",
    ".Trash-1000/files/app.py",
    ".Trashes",
    ".Spotlight-V100/x",
    ".fseventsd",
    "Thumbs.db",
    "desktop.ini",
    ".directory",
    "app.py~",
    ".app.py.swp",
    ".app.py.swo",
    "#app.py#",
    ".#app.py",
    ".~lock.labels.csv#",
    ".goutputstream-ABC123",
    ".fuse_hidden0000000100000001",
    "lib/__pycache__/app.cpython-311.pyc",
    "app.pyc",
    ".git/config",
    ".hg/x",
    ".svn/x",
    ".idea/x",
    ".vscode/settings.json",
    ".app.py.a8Xk2Q",
    ".face.tflite.abcdef",
    ".Makefile.Zb3kQ9",
    "app.py:Zone.Identifier",
    ".app.py.kate-swp",
    ".app.py.swpx",
    ".syncthing.app.py.tmp",
    ".stfolder/x",
    ".stversions/app.py",
    ".mypy_cache/3.11/app.json",
    ".ruff_cache/x",
    ".pytest_cache/v/x",
    ".ipynb_checkpoints/app.py",
    ".ropeproject/config.py",
    ".xdp-app.py-a8Xk2Q",
    ".nfs000000000012ab3400000001",
    "app.py___jb_tmp___",
    "app.py___jb_old___",
    ".unison.app.py.3.unison.tmp",
    ".sb-1f2e3d4c-Ab9",
    ".dropbox.cache/x",
]
KEPT = [
    "main.py",
    "lib/app.py",
    ".hidden.py",
    ".config",
    ".foo.tflite",
    "thumbs.db.txt",
    "git",
    ".gitignore",
    "a.pyc.txt",
    "#tag",
    "swp",
    "app.swp",
    "~app",
    "directory",
    "face.a8Xk2Q",
    "naïve file.txt",
    "Zone.Identifier",
    "app.tmp.txt",
    "jb_tmp.py",
    "stfolder",
    ".syncthing.txt",
    "unison.tmp",
]


@pytest.mark.parametrize("path", JUNK)
def test_junk(path):
    assert Excludes().matches(path)


@pytest.mark.parametrize("path", KEPT)
def test_not_junk(path):
    assert not Excludes().matches(path)


def test_additions_and_drops():
    rules = Excludes(["*.bak", "notes/", "!.vscode", "!keep.pyc", "", "*.bak"])
    assert rules.matches("a/b.bak")
    assert rules.matches("notes/x.txt")
    assert not rules.matches(".vscode/settings.json")
    assert not rules.matches("keep.pyc")
    assert rules.matches("other.pyc")


@pytest.mark.parametrize("pattern", ["*.psd", "*~"])
def test_the_later_of_two_rules_for_a_pattern_counts(pattern):
    """`romfs.toml` keeps it, the command line excludes it: the command line wins."""
    name, rules = pattern.replace("*", "a"), []
    for rule in (f"!{pattern}", pattern, f"!{pattern}", f"!{pattern}", pattern):
        rules.append(rule)
        assert Excludes(rules).matches(name) == (rule == pattern)


def test_everything_can_be_dropped():
    rules = Excludes(f"!{pattern}" for pattern in DEFAULT_PATTERNS)
    assert not any(map(rules.matches, JUNK))


@pytest.mark.parametrize("rule", ["a/b", "!", "/x"])
def test_rules_that_cannot_work(rule):
    with pytest.raises(UsageError):
        Excludes([rule])


def test_quick_for_a_large_tree():
    paths = [f"folder{n % 100}/sub{n % 7}/file{n}.txt" for n in range(20_000)]
    rules = Excludes(["*a*a*a*a*a*b"])
    started = time.monotonic()
    assert not any(map(rules.matches, paths))
    assert time.monotonic() - started < 30
    assert not rules.matches("a" * 255)


def test_labels_belong_to_the_name_up_to_the_first_dot():
    assert labels_name("yolo.tflite") == "yolo.txt"
    assert labels_name("models/yolo.v8.tflite") == "models/yolo.txt"
    assert labels_name("v1.0/yolo.tflite") == "v1.txt"
