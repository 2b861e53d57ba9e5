"""The plan of a tree with a bit of everything in it, and all that is shown of it, whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.convert import FileOptions, Options, Rule, Target
from romfsfs.convert.types import Diagnostic, Figures
from romfsfs.image.model import Extent
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.keep.state import Base, BaseEntry, SessionInfo
from romfsfs.session.plan.advice import advice, duplicates, misaligned, nearly_full
from romfsfs.session.plan.page import page
from romfsfs.session.plan.plan import Plan, make_plan, trailing_problem
from romfsfs.session.plan.problems import INFO, Problem
from romfsfs.session.plan.shadow import SUPERSEDED, Change, Derived, ShadowEntry
from romfsfs.session.plan.status import Status, make_status
from romfsfs.session.plan.stored import InBase, InCache, InWork

BOARD = get_board("OPENMV_AE3")
TARGET = Target(BOARD, BOARD.partition(0))
CACHED = InCache(Path("artifact"))
LONG = "n" * 70
FIGURES = Figures(3, 4, 5000, 600, 0.0125)


def added(path: str, **more: Any) -> ShadowEntry:
    """A file of 100 bytes, stored as it is; more: what is otherwise."""
    known = {"stored_as": path, "size": 100, "digest": f"d{path}", "location": InWork(path)}
    return ShadowEntry(path, **{"change": Change.ADDED, **known, **more})


def unchanged(path: str, **more: Any) -> ShadowEntry:
    return added(path, change=Change.UNCHANGED, location=InBase(path), **more)


def folder(path: str, change: Change = Change.ADDED) -> ShadowEntry:
    return added(path, change=change, is_dir=True, size=None, digest="", location=None)


def based(path: str, size: int | None = 100, source: str = "") -> BaseEntry:
    return BaseEntry(path, size, f"d{path}" if size is not None else "", source or path, "s", None)


def base_of(*entries: BaseEntry, **more: Any) -> Base:
    return Base("d", 10, 10, "", None, entries, **more)


NOTHING: dict[str, Any] = {"stored_as": None, "size": None, "digest": "", "location": None}
NOT_YET: dict[str, Any] = {**NOTHING, "state": "pending", "estimate": 50}
SCENE = (
    folder("lib", Change.UNCHANGED),
    unchanged("a.txt"),
    added("b.txt", change=Change.MODIFIED, size=1234567),
    added("gone.txt", change=Change.DELETED, location=None),
    added("app.py", stored_as="app.mpy", location=CACHED),
    added("slow.py", **NOT_YET | {"stored_as": "slow.mpy"}),
    added("open.py", **NOT_YET | {"stored_as": "open.mpy", "note": "open for writing"}),
    added(
        "bad.py", **NOTHING | {"stored_as": "bad.mpy"}, state="failed",
        diagnostics=(
            Diagnostic("error", "syntax", "it is wrong", detail="line 1\n\tline 2\n\n"),
            Diagnostic("warning", "odd", "and odd", detail="not shown"),
        ),
    ),
    added("pipe", **NOTHING, state="failed", note="only files and folders can be stored"),
    added("junk~", change=Change.IGNORED, **NOTHING),
    added("app.mpy", change=Change.IGNORED, **NOTHING, note=SUPERSEDED),
    added(".git", change=Change.IGNORED, is_dir=True, **NOTHING),
    added("net.tflite", size=5, location=CACHED, figures=FIGURES),
    added(LONG, size=7),
    added("é\x07", size=1),
)  # fmt: skip
BASE = base_of(based("lib", None), based("a.txt"), based("gone.txt"), based("b.txt", 1))
INFO_OF = SessionInfo(key="k", kind="file", name="app.img", source="app.img", board="OPENMV_AE3")


def planned(*entries: ShadowEntry, base: Base = BASE, capacity: int | None = None,
            target: Target = TARGET, **more: Any) -> Plan:  # fmt: skip
    return make_plan({"": Derived(entries)}, base, target, capacity, **more)


def status_of(*entries: ShadowEntry, base: Base = BASE, capacity: int | None = None,
              notes: tuple[Problem, ...] = ()) -> Status:  # fmt: skip
    plan = planned(*entries, base=base, capacity=capacity)
    return make_status(INFO_OF, TARGET, entries, plan, notes)


@pytest.fixture(scope="module")
def status() -> Status:
    note = Problem("x", "", "a note", INFO, detail="why\n so")
    return status_of(*SCENE, capacity=2_000_000, notes=(note,))


TEXT = """\
app.img (OPENMV_AE3, partition 0): 10 changes, 3 errors, 1 warning, 2 still to convert
  error: bad.py: it is wrong
    | line 1
    |         line 2
  error: pipe: only files and folders can be stored
  error: é\\x07: the name has a control character: rename it
  warning: bad.py: and odd
  A app.py -> app.mpy                                               100 B
  M b.txt                                                     1,234,567 B
  A bad.py                                                    FAILED
  D gone.txt
  A net.tflite -> Ethos-U                                             5 B
  A nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn          7 B
  A open.py -> open.mpy                                       open for writing
  A pipe                                                      FAILED
  A slow.py -> slow.mpy                                       converting
  A é\\x07                                                             1 B
  1 file of editors and file managers left out (-v lists them)
  note: a note
  [###############.........] 1,235,150 of 2,000,000 B (61.8%)
"""
VERBOSE = """\
app.img (OPENMV_AE3, partition 0): 10 changes, 3 errors, 1 warning, 2 still to convert
  error: bad.py: it is wrong
    | line 1
    |         line 2
  error: pipe: only files and folders can be stored
  error: é\\x07: the name has a control character: rename it
  warning: bad.py: and odd
    | not shown
  I .git/
    a.txt                                                           100 B
  I app.mpy                                                   (replaced by its source)
  A app.py -> app.mpy                                               100 B
  M b.txt                                                     1,234,567 B
  A bad.py                                                    FAILED
  D gone.txt
  I junk~                                                     (not stored)
    lib/
  A net.tflite -> Ethos-U                                             5 B
      3 of 4 operators on the NPU (75%), 5,000 B SRAM, 600 B flash, an estimated 12.5 ms per inference
  A nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn          7 B
  A open.py -> open.mpy                                       open for writing
  A pipe                                                      FAILED
  A slow.py -> slow.mpy                                       converted on commit
  A é\\x07                                                             1 B
  note: a note
    | why
    |  so
  [###############.........] 1,235,150 of 2,000,000 B (61.8%)
"""  # noqa: E501


def test_the_text_for_people(status: Status) -> None:
    assert status.text() == TEXT
    assert status.text(verbose=True, mounted=False) == VERBOSE


@pytest.mark.parametrize(
    ("entries", "more", "said"),
    [
        ([unchanged("a.txt")], {}, "nothing to commit"),
        ([added("a.txt")], {}, "1 change"),
        ([added("a.txt"), added("b.txt")], {}, "2 changes"),
        ([], {}, "no edits, but a commit would write the image"),
        ([unchanged("a.txt"), added("b.py", **NOT_YET)], {}, "1 change, 1 still to convert"),
        ([added("a.txt"), added("b.py", **NOT_YET)], {"converting": (1, 2000)},
         "2 changes, converting 1 of 2,000"),
        ([added("a.txt", location=InBase("a.txt"))], {"clean": True},
         "nothing to commit: the changes convert to what the image already holds"),
    ],
)  # fmt: skip
def test_the_headline(entries: list[ShadowEntry], more: dict[str, Any], said: str) -> None:
    base = base_of(*([] if len(entries) != 1 or entries[0].change is not Change.UNCHANGED else
                     [based("a.txt")]), fresh=not entries)  # fmt: skip
    found = status_of(*entries, base=base)._replace(**more)
    head, *_ = found.text().splitlines()
    assert head == f"app.img (OPENMV_AE3, partition 0): {said}"
    other = found._replace(info=SessionInfo(key="k", kind="file", name="app.img"))
    assert other.text().startswith("app.img (no board): ")


@pytest.mark.parametrize(
    ("used", "capacity", "line"),
    [
        (0, None, "  0 B, capacity unknown (no board)"),
        (1234, None, "  1,234 B, capacity unknown (no board)"),
        (0, 100, "  [........................] 0 of 100 B (0.0%)"),
        (50, 100, "  [############............] 50 of 100 B (50.0%)"),
        (100, 100, "  [########################] 100 of 100 B (100.0%)"),
        (250, 100, "  [########################] 250 of 100 B (250.0%)"),
        (5, 0, "  [########################] 5 of 0 B (100.0%)"),
    ],
)  # fmt: skip
def test_how_full_it_is(status: Status, used: int, capacity: int | None, line: str) -> None:
    found = status._replace(used=used, capacity=capacity)
    assert found.text().splitlines()[-1] == line
    free = found.record()["free"]
    assert free == (None if capacity is None else max(0, capacity - used))


def test_what_is_left_out_is_counted(status: Status) -> None:
    """The files of a `.git`, and not the folders that they are in."""
    git = [
        added(path, change=Change.IGNORED, is_dir=True, **NOTHING) for path in (".git", ".git/o")
    ]
    one = status._replace(entries=(*git, added(".git/o/1", change=Change.IGNORED, **NOTHING)))
    assert "  1 file of editors and file managers left out (-v lists them)\n" in one.text()
    none = status._replace(entries=(added("x", change=Change.IGNORED, **NOTHING, note="n"),))
    assert "left out" not in none.text()
    assert "left out" not in one.text(verbose=True)


def test_the_record(status: Status) -> None:
    record = status.record()
    assert {name: each for name, each in record.items() if name not in ("entries", "problems")} == {
        "source": "app.img", "board": "OPENMV_AE3", "partition": 0, "capacity": 2_000_000,
        "used": 1_235_150, "free": 764_850, "clean": False,
    }  # fmt: skip
    assert [tuple(entry.values()) for entry in record["entries"]] == [
        ('.git', 'ignored', None, None, 'ready', ''),
        ('a.txt', 'unchanged', 'a.txt', 100, 'ready', ''),
        ('app.mpy', 'ignored', None, None, 'ready', 'replaced by its source'),
        ('app.py', 'added', 'app.mpy', 100, 'ready', ''),
        ('b.txt', 'modified', 'b.txt', 1234567, 'ready', ''),
        ('bad.py', 'added', 'bad.mpy', None, 'failed', 'it is wrong; and odd'),
        ('gone.txt', 'deleted', 'gone.txt', 100, 'ready', ''),
        ('junk~', 'ignored', None, None, 'ready', ''),
        ('lib', 'unchanged', 'lib', None, 'ready', ''),
        ('net.tflite', 'added', 'net.tflite', 5, 'ready', '', FIGURES._asdict()),
        (LONG, 'added', LONG, 7, 'ready', ''),
        ('open.py', 'added', 'open.mpy', None, 'pending', 'open for writing'),
        ('pipe', 'added', None, None, 'failed', 'only files and folders can be stored'),
        ('slow.py', 'added', 'slow.mpy', None, 'pending', ''),
        ('é\x07', 'added', 'é\x07', 1, 'ready', ''),
    ]  # fmt: skip
    assert [(each["code"], each["path"], each["severity"]) for each in record["problems"]] == [
        ("syntax", "bad.py", "error"), ("unsupported", "pipe", "error"),
        ("name", "é\x07", "error"), ("odd", "bad.py", "warning"),
    ]  # fmt: skip
    assert (status.pending, status.changes, len(status.errors)) == (True, 10, 3)
    assert status.json().startswith('{\n "source": "app.img",\n')


ROWS = """\
<tr class="ignored"><td>I</td><td class="name" style="padding-left:0.0em" title=".git"><bdi>.git/</bdi></td><td class="becomes"><bdi></bdi></td><td class="size"></td></tr>
<tr class="unchanged"><td></td><td class="name" style="padding-left:0.0em" title="a.txt"><bdi>a.txt</bdi></td><td class="becomes"><bdi></bdi></td><td class="size">100 B</td></tr>
<tr class="ignored"><td>I</td><td class="name" style="padding-left:0.0em" title="app.mpy"><bdi>app.mpy</bdi></td><td class="becomes"><bdi>replaced by its source</bdi></td><td class="size"></td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="app.py"><bdi>app.py</bdi></td><td class="becomes"><bdi>app.mpy</bdi></td><td class="size">100 B</td></tr>
<tr class="modified"><td>M</td><td class="name" style="padding-left:0.0em" title="b.txt"><bdi>b.txt</bdi></td><td class="becomes"><bdi></bdi></td><td class="size">1,234,567 B</td></tr>
<tr class="added failed"><td>A</td><td class="name" style="padding-left:0.0em" title="bad.py"><bdi>bad.py</bdi></td><td class="becomes"><bdi>FAILED</bdi></td><td class="size"></td></tr>
<tr class="deleted"><td>D</td><td class="name" style="padding-left:0.0em" title="gone.txt"><bdi>gone.txt</bdi></td><td class="becomes"><bdi></bdi></td><td class="size"></td></tr>
<tr class="ignored"><td>I</td><td class="name" style="padding-left:0.0em" title="junk~"><bdi>junk~</bdi></td><td class="becomes"><bdi>not stored</bdi></td><td class="size"></td></tr>
<tr class="unchanged"><td></td><td class="name" style="padding-left:0.0em" title="lib"><bdi>lib/</bdi></td><td class="becomes"><bdi></bdi></td><td class="size"></td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="net.tflite"><bdi>net.tflite</bdi></td><td class="becomes"><bdi>Ethos-U</bdi></td><td class="size">5 B</td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"><bdi>nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn</bdi></td><td class="becomes"><bdi></bdi></td><td class="size">7 B</td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="open.py"><bdi>open.py</bdi></td><td class="becomes"><bdi>open.mpy</bdi></td><td class="size">open for writing</td></tr>
<tr class="added failed"><td>A</td><td class="name" style="padding-left:0.0em" title="pipe"><bdi>pipe</bdi></td><td class="becomes"><bdi>FAILED</bdi></td><td class="size"></td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="slow.py"><bdi>slow.py</bdi></td><td class="becomes"><bdi>slow.mpy</bdi></td><td class="size">not converted yet</td></tr>
<tr class="added"><td>A</td><td class="name" style="padding-left:0.0em" title="é\\x07"><bdi>é\\x07</bdi></td><td class="becomes"><bdi></bdi></td><td class="size">1 B</td></tr>
"""  # noqa: E501
PROBLEMS = """\
<h1>app.img (OPENMV_AE3, partition 0): 10 changes, 3 errors, 1 warning, 2 still to convert</h1>
<div class="problem error"><b>error</b><span><bdi>bad.py: it is wrong</bdi></span><pre>line 1
        line 2</pre></div>
<div class="problem error"><b>error</b><span><bdi>pipe: only files and folders can be stored</bdi></span></div>
<div class="problem error"><b>error</b><span><bdi>é\\x07: the name has a control character: rename it</bdi></span></div>
<div class="problem warning"><b>warning</b><span><bdi>bad.py: and odd</bdi></span><pre>not shown</pre></div>
<div class="problem info"><b>note</b><span><bdi>a note</bdi></span><pre>why
 so</pre></div>
"""  # noqa: E501


def test_the_page(status: Status) -> None:
    files = {"a.txt": b"a" * 100, "b.txt": b"b", "gone.txt": b"g" * 100}
    image = read_image(encode(files, dirs=["lib"]))
    shown = page(status, BASE, image, "'my app.img'")
    lines = shown.splitlines()
    assert "\n".join(line for line in lines if line.startswith("<tr class=")) + "\n" == ROWS
    start = next(n for n, line in enumerate(lines) if line.startswith("<h1>"))
    assert "\n".join(lines[start : lines.index("<h2>Space</h2>")]) + "\n" == PROBLEMS
    assert "<p>1,235,150 of 2,000,000 B after a commit (61.8%) <span" in shown
    assert [line.partition("<code>")[2].partition("</code>")[0] for line in lines
            if "<code>" in line] == [
        f"romfsfs {word} &#x27;my app.img&#x27;" for word in ("commit", "diff", "revert")
    ]  # fmt: skip
    clean = status_of(unchanged("a.txt"), base=base_of(based("a.txt")), capacity=0)
    shown = page(clean, BASE, image, "x")
    assert "<span>look</span><code>romfsfs status x</code>" in shown
    assert "romfsfs commit" not in shown
    assert f"{clean.used:,} of 0 B used (100.0%)" in shown
    shown = page(status_of(base=base_of(fresh=True)), BASE, image, "x")
    assert "no edits, but a commit would write the image" in shown
    assert shown.count("<code>") == 1
    assert "<span>write the image</span><code>romfsfs commit x</code>" in shown
    shown = page(clean._replace(capacity=None), BASE, image, "x")
    assert f"{clean.used:,} B used, capacity unknown (no board)" in shown


def test_an_empty_file_has_no_bytes() -> None:
    found = status_of(added("a.txt", size=0), base=base_of())
    assert found.text().splitlines()[1] == "  A a.txt  0 B"
    image = read_image(encode({"a.txt": b""}))
    assert '<td class="size">0 B</td>' in page(found, base_of(), image, "x")


def test_the_page_s_map() -> None:
    """Each stretch as wide as it is large; small ones of one kind are drawn together."""
    names = [f"{n}.txt" for n in range(4)]
    image = read_image(encode({"big.bin": bytes(50_000), **dict.fromkeys(names, b"x" * 10)}))
    edited = added("big.bin", change=Change.MODIFIED)
    kept = [unchanged(name, size=10) for name in names]
    base = base_of(based("big.bin"), *map(based, names))
    found = status_of(edited, *kept, base=base, capacity=100_000)
    shown = page(found, base, image, "x")
    (drawn,) = [line for line in shown.splitlines() if line.startswith('<div class="map">')]
    pieces = [piece.split('"')[1::2] for piece in drawn.split("<i ")[1:]]
    sizes = [int(style.partition(":")[2]) for _, style, _ in pieces]
    assert sum(sizes) == 100_000
    assert [(kind, title.partition(": ")[0]) for kind, _, title in pieces] == [
        ("records", "records"), ("touched", "big.bin"), ("records", "records"),
        ("file", "4 files"), ("free", "free"),
    ]  # fmt: skip
    assert [title.partition(": ")[2] for *_, title in pieces] == [
        f"{size:,} B" for size in (sizes[0], 50_000, sizes[2], 40, sizes[4])
    ], "of files their own bytes, without what lies between them"
    one = read_image(encode({"a.txt": b"x" * 100, "b.bin": bytes(60_000)}))
    shown = page(found, base, one, "x")
    assert 'title="a.txt: 100 B"' in shown


# -- the plan


def said(plan: Plan) -> list[tuple[str, str, str]]:
    return [(each.severity, each.path, each.message) for each in plan.problems]


IDE = (
    "the camera reads this name, but the OpenMV IDE shows and stores it with '?' for each special "
    "character"
)


@pytest.mark.parametrize(
    ("entry", "problem", "stored"),
    [
        (added("a b-c_d.x"), None, True),
        (added(".romfs"), ("info", ".romfs", "the mount's own folder of that name hides it; it "
                           "stays in the image"), True),
        (added("é"), ("warning", "é", IDE), True),
        (added("é", change=Change.MODIFIED), ("warning", "é", IDE), True),
        (unchanged("é"), ("info", "é", IDE), True),
        (added("a\tb"), ("error", "a\tb", "the name has a control character: rename it"), False),
        (unchanged("a\tb"), ("warning", "a\tb", "the name has a control character"), True),
        (added("a\x85b"), ("error", "a\x85b", "the name has a control character: rename it"),
         False),
        (added("a\u202eb"), ("warning", "a\u202eb", IDE), True),
        (added("a\udce9"), ("error", "a\udce9", "the name is not valid UTF-8, the camera cannot "
                            "open it: rename it"), False),
    ],
)  # fmt: skip
def test_names(entry: ShadowEntry, problem: tuple[str, str, str] | None, stored: bool) -> None:
    base = base_of(based(entry.path)) if entry.change is Change.UNCHANGED else base_of()
    plan = planned(entry, base=base)
    assert said(plan) == ([] if problem is None else [problem])
    assert (entry.path in plan.files) is stored
    assert plan.changed is (entry.change is not Change.UNCHANGED)


def test_several_for_one_place() -> None:
    three = [added(name, stored_as="app.mpy") for name in ("z.py", "app.mpy", "app.py")]
    plan = planned(*three, added("x"), base=base_of())
    message = "app.mpy and app.py and z.py would both be stored as app.mpy: rename or remove one"
    assert said(plan) == [("error", name, message) for name in ("z.py", "app.mpy", "app.py")]
    assert plan.errors == plan.problems
    assert [entry.source for entry in plan.entries] == ["z.py", "x"]
    assert plan.changed
    nothing = planned(*[each._replace(change=Change.DELETED) for each in three], base=base_of())
    assert (nothing.problems, nothing.entries, nothing.changed) == ((), (), False)


def test_what_comes_first_then_the_base_then_new_names() -> None:
    base = base_of(based("m"), based("app.mpy", source="app.py"), based("c"))
    entries = [added(name) for name in ("b", "a", "m", "c", "Z")]
    entries.append(added("app.py", stored_as="app.mpy"))
    plain = planned(*entries, base=base)
    assert [e.path for e in plain.entries] == ["m", "app.mpy", "c", "Z", "a", "b"]
    chosen = planned(*entries, base=base, order=("c", "app.py", "b"))
    assert [e.path for e in chosen.entries] == ["c", "app.mpy", "b", "m", "Z", "a"]


@pytest.mark.parametrize(
    ("entries", "changed"),
    [
        ([unchanged("a"), unchanged("b")], False),
        ([added("a", digest="da"), unchanged("b")], False),
        ([unchanged("a", digest="other"), unchanged("b")], False),
        ([added("a", digest="other"), unchanged("b")], True),
        ([added("a", size=101, digest="da"), unchanged("b")], True),
        ([unchanged("a")], True), ([unchanged("a"), unchanged("b"), added("c")], True),
        ([unchanged("a"), added("c", digest="db")], True),
        ([unchanged("a"), unchanged("b"), added("a\nb")], True),
        ([unchanged("a"), unchanged("b"), added("j~", change=Change.IGNORED, **NOTHING)], False),
    ],
)  # fmt: skip
def test_whether_there_is_anything_to_write(entries: list[ShadowEntry], changed: bool) -> None:
    base = base_of(based("a"), based("b"))
    assert planned(*entries, base=base).changed is changed
    fresh = base_of(based("a"), based("b"), fresh=True)
    assert planned(*entries, base=fresh).changed


def test_an_alignment_that_is_wanted_and_not_there() -> None:
    options = Options((Rule("a.bin", FileOptions(align=64)),))
    target = Target(BOARD, BOARD.partition(0), options=options)
    base = base_of(based("a.bin"), based("b.bin"))
    for entry, offset, changed in (
        (unchanged("a.bin"), 128, False), (unchanged("a.bin"), 100, True),
        (unchanged("a.bin", size=0), 100, True), (added("a.bin", digest="da.bin"), 100, False),
    ):  # fmt: skip
        extents = {"a.bin": Extent(offset, 100), "b.bin": Extent(3, 100)}
        plan = planned(entry, unchanged("b.bin"), base=base, target=target, extents=extents)
        assert plan.changed is changed, (entry, offset)
        assert plan.rules.for_path("a.bin") == 64
    assert not planned(unchanged("a.bin"), unchanged("b.bin"), base=base, target=target).changed
    size_of_none = base_of(based("a.bin", 0))
    entry = unchanged("a.bin", size=0)
    extents = {"a.bin": Extent(100, 0)}
    assert not planned(entry, base=size_of_none, target=target, extents=extents).changed


def test_too_much_names_the_largest() -> None:
    entries = [added(f"{n}", size=1000 + n) for n in range(7)]
    size = planned(*entries).size
    assert not planned(*entries, capacity=size).problems
    shown = ", ".join(f"{n} {1000 + n:,} B" for n in (6, 5, 4, 3, 2))
    assert said(planned(*entries, folder("x"), capacity=size - 2000))[0] == (
        "error", "",
        f"the image is {planned(*entries, folder('x')).size - size + 2000:,} B too large, there "
        f"is room for {size - 2000:,} B: remove or shrink files, the largest are {shown}",
    )  # fmt: skip


def test_what_is_known_of_a_folder_is_not_made_again() -> None:
    shadow = {"": Derived((folder("lib"), added("a")), ("lib",)), "lib": Derived((added("lib/b"),))}
    first = make_plan(shadow, base_of(), TARGET, None)
    assert [entry.path for entry in first.entries] == ["a", "lib", "lib/b"]
    again = make_plan(shadow, base_of(), TARGET, None, before=first)
    assert again == first
    assert all(again.parts[name] is first.parts[name] for name in ("", "lib"))
    assert all(again.branches[name] is first.branches[name] for name in ("", "lib"))
    touched = {**shadow, "lib": Derived((added("lib/c"),))}
    other = make_plan(touched, base_of(), TARGET, None, before=first)
    assert other.parts[""] is first.parts[""]
    assert other.parts["lib"] is not first.parts["lib"]
    assert other.branches["lib"] is not first.branches["lib"]
    assert other.branches[""] is not first.branches[""]
    assert list(other.files) == ["a", "lib/c"]
    top = {**shadow, "": Derived((folder("lib"), added("z")), ("lib",))}
    moved = make_plan(top, base_of(), TARGET, None, before=first)
    assert moved.branches["lib"] is first.branches["lib"]
    assert moved.branches[""] is not first.branches[""]
    gone = make_plan({"": shadow[""]}, base_of(), TARGET, None)
    assert [entry.path for entry in gone.entries if entry.size is None] == ["lib"]
    assert gone.parts["lib"].entries == ()


@pytest.mark.parametrize(
    ("trailing", "fill", "longer", "changed", "problem"),
    [
        (0, None, 5, True, None),
        (9, 255, 5, True, ("info", "a commit keeps the 9 bytes after the image in the file")),
        (9, None, 0, True, ("info", "a commit keeps the 9 bytes after the image in the file")),
        (9, None, 5, False, ("info", "a commit keeps the 9 bytes after the image in the file")),
        (9999, None, 5000, True, (
            "error", "9,999 bytes of unknown data after the image in the file, and the new image "
            "is 5,000 bytes longer: commit --to another file, or commit --force drops the data")),
        (1, None, 1, True, (
            "error", "1 byte of unknown data after the image in the file, and the new image is 1 "
            "byte longer: commit --to another file, or commit --force drops the data")),
    ],
)  # fmt: skip
def test_bytes_after_the_image(
    trailing: int, fill: int | None, longer: int, changed: bool,
    problem: tuple[str, str] | None,
) -> None:  # fmt: skip
    plan: Any = SimpleNamespace(size=100 + longer, changed=changed)
    base = SimpleNamespace(trailing=trailing, image_size=100)
    held: Any = SimpleNamespace(base=base, trailing_fill=fill)
    found = trailing_problem(plan, held)
    assert (None if found is None else (found.severity, found.message)) == problem


# -- advice


def test_how_nearly_full_it_is() -> None:
    entries = [added(f"{n}", size=1000 + n) for n in range(7)]
    size = planned(*entries).size
    shown = ", ".join(f"{n} {1000 + n:,} B" for n in (6, 5, 4, 3, 2))
    for capacity, words in (
        (None, False), (0, False), (size - 1, False), (size, True), (size + 100, True),
        (size * 2, False), (size * 10 // 9 + 1, False), (size * 10 // 9 - 1, True),
    ):  # fmt: skip
        found = nearly_full(planned(*entries, capacity=capacity))
        assert (found is not None) is words, capacity
        if found is not None and capacity is not None:
            left = f"{capacity - size:,} B are left; the largest files: {shown}"
            assert found == Problem("nearly-full", "", left, INFO)


def test_nine_tenths_are_not_nearly_all() -> None:
    sizes = (planned(added("x", size=9000 + more)).size for more in range(64))
    more, size = next((more, size) for more, size in enumerate(sizes) if size % 9 == 0)
    for capacity, full in ((size // 9 * 10, False), (size // 9 * 10 - 1, True)):
        plan = planned(added("x", size=9000 + more), capacity=capacity)
        assert (nearly_full(plan) is not None) is full


def test_what_is_stored_more_than_once() -> None:
    def copies(count: int, size: int, digest: str) -> list[ShadowEntry]:
        return [added(f"{digest}{n}", size=size, digest=digest) for n in range(count)]

    assert (
        duplicates(planned(*copies(1, 9999, "a"), *copies(3, 4095, "b"), *copies(2, 9999, "")))
        is None
    )
    plan = planned(*copies(2, 4096, "a"), *copies(7, 5000, "b"), *copies(2, 4097, "c"))
    assert duplicates(plan) == Problem(
        "duplicates", "",
        f"{4096 + 6 * 5000 + 4097:,} B are stored more than once: "
        "b0 = b1 = b2 = b3 = b4; c0 = c1; a0 = a1", INFO,
    )  # fmt: skip


def test_files_that_another_tool_placed_wrong() -> None:
    wrong = [(f"{n}.bin", 0x10 + n, 64) for n in range(7)]
    assert [each.text for each in misaligned(wrong[:5], "so")] == [
        f"{n}.bin: misaligned in the image: its data is at {0x10 + n:#x}, not a multiple of 64; so"
        for n in range(5)
    ]
    six, seven = misaligned(wrong[:6], "so"), misaligned(wrong, "so")
    assert [len(six), len(seven)] == [6, 6]
    assert six[-1].text == "1 more file misaligned in the image; so"
    assert seven[-1].text == "2 more files misaligned in the image; so"
    held: Any = SimpleNamespace(misaligned=lambda rules: [*wrong[:2], ("gone.bin", 1, 64)])
    base = base_of(based("0.bin"), based("1.bin"))
    calm = planned(unchanged("0.bin"), unchanged("1.bin"), base=base)
    assert [each.message.partition("; ")[2] for each in advice(calm, held, "app.img")] == [
        "repair it with: romfsfs commit --compact app.img"
    ] * 2
    busy = planned(unchanged("0.bin"), added("1.bin", digest="new"), base=base)
    assert [(each.path, each.message.partition("; ")[2]) for each in advice(busy, held, "x")] == [
        ("0.bin", "the next commit repairs it")
    ]
