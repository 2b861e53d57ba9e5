"""What is chosen for a file: patterns, several rules, `romfs.toml` and its mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from convert_helpers import camera
from hypothesis import given
from hypothesis import strategies as st

from romfsfs.convert import Converters, FileOptions, Options, Rule, Target
from romfsfs.convert.options import OptionError, checked, difference
from romfsfs.convert.romfs_toml import MAX_BYTES, TreeOptions, read_tree_options
from romfsfs.convert.types import Diagnostic

SIZE, AS_IS = FileOptions(optimise="Size"), FileOptions(convert=False)


@pytest.mark.parametrize(
    ("pattern", "named", "others"),
    [
        ("*", ["a", "b/c.py"], []),
        ("*.tflite", ["m.tflite", "models/a/m.tflite"], ["m.TFLITE", "m.tflite.txt"]),
        ("models", ["models/a/m.tflite", "x/models/m"], ["models2/m", "mymodels"]),
        ("models/", ["models/a/m.tflite"], ["models2/m"]),
        ("models/*.tflite", ["models/m.tflite"], ["x/models/m.tflite", "models/a/m.tflite"]),
        ("/m.tflite", ["m.tflite"], ["models/m.tflite"]),
        ("models/**/m?.tflite", ["models/m1.tflite", "models/a/b/m2.tflite"], ["m1.tflite"]),
        ("a[12]/b", ["a1/b", "a2/b/c"], ["a3/b", "a1/bc"]),
    ],
)
def test_patterns(pattern: str, named: list[str], others: list[str]) -> None:
    rule = Rule(pattern, AS_IS)
    assert [path for path in (*named, *others) if rule.names(path)] == named


def test_the_later_rule_wins_option_by_option() -> None:
    options = Options((
        Rule("*", FileOptions(optimise="Performance", align=32)),
        Rule("big/*", FileOptions(optimise="Size", arguments=("--a",))),
        Rule("*.raw", AS_IS),
    ))  # fmt: skip
    assert options.for_path("m") == FileOptions(optimise="Performance", align=32)
    assert options.for_path("big/m") == FileOptions(optimise="Size", align=32, arguments=("--a",))
    assert options.for_path("big/m.raw").convert is False
    with_tree = Options((Rule("m", SIZE),)).over((Rule("m", FileOptions(optimise=2)),))
    assert with_tree.for_path("m").optimise == "Size"  # what is given on the command line


def test_what_a_session_remembers_is_changed_by_what_is_chosen_later() -> None:
    first = Options((Rule("*", FileOptions(convert=False, align=32)), Rule("m", SIZE)), "/tool")
    both = first.extended(Options((Rule("*", FileOptions(convert=True)),)))
    assert both.rules == (Rule("m", SIZE), Rule("*", FileOptions(convert=True, align=32)))
    assert both.stedgeai == "/tool"
    assert Options.from_record(both.record()) == both
    assert Options.from_record({}) == Options()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"rules": None}, "'NoneType' object is not iterable"),
        ({"rules": ["*", {}]}, "a rule of the options is '*'"),
        ({"rules": [["*"]]}, "a rule of the options is ['*']"),
        ({"rules": [["*", {}], ["m", []]]}, "a rule of the options is ['m', []]"),
        ({"rules": [["*", None]]}, "a rule of the options is ['*', None]"),
        ({"rules": [[3, {"align": 4}]]}, "a rule of the options is [3, {'align': 4}]"),
        ({"rules": [["*", {"align": 5}]]}, "align is 5; it can be a power of two from 4 to 65536"),
        ({"stedgeai": 5}, "stedgeai is 5"),
    ],
)
def test_a_damaged_record_of_a_session_is_told_from_one_of_ours(
    record: dict[str, object], said: str
) -> None:
    """What reads the session's record tells of these errors, and of no others."""
    with pytest.raises((TypeError, ValueError)) as caught:
        Options.from_record(record)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("convert", 1), ("optimise", "size"), ("optimise", 4), ("optimise", True),
        ("align", 2), ("align", 24), ("align", 1 << 17), ("align", True), ("arguments", "--a"),
        ("arguments", [1]), ("mpool", "a\0b"), ("profile", 3), ("optimize", "Size"),
    ],
)  # fmt: skip
def test_values_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        checked({name: value})


def test_files_are_named_relative_to_the_tree() -> None:
    chosen = checked({"profile": "big@tools/n.json", "mpool": "n6.mpool"}, "/tree")
    assert (chosen.profile, chosen.mpool) == ("big@/tree/tools/n.json", "/tree/n6.mpool")
    assert checked({"profile": "n.json"}, "/tree").profile == "/tree/n.json"
    assert checked({"profile": "default"}, "/tree").profile == "default"
    assert checked({"mpool": "~/n6.mpool"}, "/tree").mpool == os.path.expanduser("~/n6.mpool")
    assert checked({"mpool": ""}, "/tree").mpool == ""  # ours again
    assert checked({"mpool": "x"}).mpool == str(Path.cwd() / "x")


def test_what_bytes_are_made_for(cache: Path, tmp_path: Path) -> None:
    """Equal for what makes no difference, and different, in words, for what does."""
    ae3 = Converters(camera("OPENMV_AE3"), cache)
    size = Converters(camera("OPENMV_AE3", optimise="Size", align=64), cache)
    assert difference(ae3.made_for("m.tflite"), size.made_for("m.tflite")) == (
        "optimise was Performance, is Size"
    )
    assert ae3.made_for("a.py") == size.made_for("a.py") != ""
    assert ae3.made_for("main.py") == ae3.made_for("a.txt") == ""
    core = Converters(camera("OPENMV_AE3", 1), cache).made_for("m.tflite")
    assert difference(ae3.made_for("m.tflite"), core) == (
        "npu was ethos-u55-256, is ethos-u55-128; system was RTSS_HP_SRAM_OSPI, is "
        "RTSS_HE_SRAM_MRAM"
    )
    raw = Converters(camera("OPENMV_AE3", convert=False), cache)
    assert (raw.made_for("a.py"), raw.made_for("a.txt")) == ("convert=no", "")
    old = Converters(Target(mpy_version=(6, 2), march="armv6m"), cache).made_for("a.py")
    new = Converters(Target(mpy_version=(6, 3), march="armv6m"), cache).made_for("a.py")
    assert difference(old, new) == "bytecode was 6.2, is 6.3"
    pool = tmp_path / "my.mpool"
    n6 = Converters(camera("OPENMV_N6", mpool=str(pool)), cache)
    pool.write_text("1")
    before = n6.made_for("m.onnx")
    pool.write_text("2")
    assert n6.made_for("m.onnx") != before  # the file's content counts


GOOD = b"""# a project
board = "openmv_ae3:1"
exclude = ["*.psd", "!*~"]

["models/*.tflite"]
optimise = "Size"
align = 64
arguments = ["--verbose-all"]

["raw.py"]
convert = false
"""


def test_a_good_file() -> None:
    tree = read_tree_options(GOOD, "/tree")
    assert tree.problems == ()
    assert (tree.board, tree.excludes) == ("openmv_ae3:1", ("*.psd", "!*~"))
    assert tree.rules == (
        Rule("models/*.tflite", FileOptions(
            optimise="Size", arguments=("--verbose-all",), align=64
        )),
        Rule("raw.py", AS_IS),
    )  # fmt: skip
    assert read_tree_options(b"\xef\xbb\xbf" + GOOD, "/tree") == tree
    assert read_tree_options(b"", "/tree").rules == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\nboard = 'OPENMV_N7'\n", "line 3: unknown board 'OPENMV_N7'"),
        ("board = 3", "line 1: board is 3"),
        ("board = 'OPENMV_AE3:7'", "line 1: OPENMV_AE3 has no partition 7"),
        ("board = 'OPENMV_AE3:x'", "line 1: not a partition number: 'x'"),
        ("#\nexclude = [\n 'a/b',\n]", "line 2: exclude pattern 'a/b' has a '/'"),
        ("exclude = 'a'", "line 1: exclude is 'a'; it must be a list of patterns"),
        ("optimise = 'Size'", 'line 1: optimise must be in a table; put it'),
        ("boards = 1", "line 1: unknown key 'boards'; known are"),
        ("['*']\n\n#\nalign = 5", "line 4: align is 5; it can be a power of two"),
        ("['a']\nalign = 4\n['b']\nalign = 3", "line 4: align is 3"),
        ("['*']\noptimize = 'Size'", "line 2: unknown option 'optimize'; known are convert"),
        ("[models.tflite]\nalign = 4", 'line 1: write the pattern in quotes, ["models.tflite"]'),
        ("['*'\n", "line 1: not TOML: "),
        ("a = 1\na = 2", "line 2: not TOML: "),
        ("a = [\n1,\n", "line 3: not TOML: "),
        ("a = " + "[" * 100_000, "lists or tables are nested too deep"),
        ("#" * (MAX_BYTES + 1), "it is larger than 1 MiB"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    tree = read_tree_options(text.encode(), "/tree")
    (problem,) = tree.problems
    assert (problem.severity, problem.code) == ("error", "options")
    assert problem.message.startswith(said)


def test_what_is_right_counts_beside_a_mistake() -> None:
    tree = read_tree_options(GOOD + b"['x']\nalign = 'a'\n", "/tree")
    assert len(tree.problems) == 1
    assert tree.board == "openmv_ae3:1"
    assert tree.rules[0].options.optimise == "Size"


def test_not_utf8() -> None:
    (problem,) = read_tree_options("board = 'x'\n# größer".encode("latin-1"), "/").problems
    assert problem.message == "line 2: not UTF-8; save it as UTF-8"


@given(st.binary() | st.text().map(str.encode) | st.lists(st.sampled_from(
    ["board", "exclude", "align", "=", " 4", '"*"', "[", "]", "\n", "'a'", "{", "}", ",", "#"]
)).map("".join).map(str.encode))  # fmt: skip
def test_whatever_it_holds_is_read_or_refused(data: bytes) -> None:
    tree = read_tree_options(data, "/tree")
    assert all(problem.message.isprintable() for problem in tree.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"board = 3", "line 1: board is 3; it must be the name of a board, in quotes"),
        (b"\nboard = 'OPENMV_AE3:7'", "line 2: OPENMV_AE3 has no partition 7; it has 0 (High "
         "Performance Core), 1 (High Efficiency Core)"),
        (b"exclude = ['a', 1]", "line 1: exclude is ['a', 1]; it must be a list of patterns, "
         "['*.psd']"),
        (b"exclude = ['!']", "line 1: exclude pattern '!' names nothing"),
        (b"exclude = ['/a']", "line 1: exclude pattern '/a' has a '/'; patterns match single "
         "names; give the name of the file or folder"),
        (b"optimise = 'Size'", 'line 1: optimise must be in a table; put it below ["*"] to '
         "apply it to all files"),
        (b"x = 1\nboards = 1", "line 1: unknown key 'x'; known are board, exclude and tables "
         "of patterns"),
        (b"'m' = { align = 5 }", "line 1: align is 5; it can be a power of two from 4 to 65536"),
        (b"\n'm' = { optimise = 'Size', \"align\" = 5 }", "line 2: align is 5; it can be a power "
         "of two from 4 to 65536"),
        (b"m.align = 5", "line 1: align is 5; it can be a power of two from 4 to 65536"),
        (b"['*']\nx = '''\nalign = 4\n'''", "line 2: unknown option 'x'; known are convert, "
         "optimise, profile, mpool, arguments, align"),
        (b"[m]\nconvert = true\n  'align'  = 5", "line 3: align is 5; it can be a power of two "
         "from 4 to 65536"),
        (b"[models.tflite]\nalign = 4", 'line 1: write the pattern in quotes, ["models.tflite"]'),
        (b"align = 5\n['*']\nalign = 6\n[x]\nalign = 8", "line 1: align must be in a table; put "
         'it below ["*"] to apply it to all files'),
        (b"\n\xff", "line 2: not UTF-8; save it as UTF-8"),
        (b"\xff", "line 1: not UTF-8; save it as UTF-8"),
        (b"#" * ((1 << 20) + 1), "it is larger than 1 MiB"),
        (b"['*'\n", "line 1: not TOML: Expected ']' at the end of a table declaration"),
        (b"\na = [\n1,\n", "line 4: not TOML: Invalid value"),
    ],
)  # fmt: skip
def test_every_mistake_in_words(text: bytes, said: str) -> None:
    problem = read_tree_options(text, "/tree").problems[0]
    assert problem == Diagnostic("error", "options", said)


def test_the_largest_file_and_the_files_that_it_names() -> None:
    assert read_tree_options(b"#" * (1 << 20), "/tree") == TreeOptions()
    text = b"board = 'AE3'\n['*']\nprofile = 'a@p.json'\nmpool = 'x'\narguments = []\n['y']\n"
    rules = (
        Rule("*", FileOptions(profile="a@/tree/p.json", mpool="/tree/x", arguments=())),
        Rule("y", FileOptions()),
    )
    assert read_tree_options(text, "/tree") == TreeOptions("AE3", (), rules)
    wrong = b"exclude = ['!']\nboard = 'x'\n['*']\nalign = 3\nconvert = 0\noptimise = 1\n"
    found = read_tree_options(wrong, "/tree")
    assert found[:3] == (None, (), (Rule("*", FileOptions(optimise=1)),))
    assert [each.message.partition(": ")[0] for each in found.problems] == [
        "line 2", "line 1", "line 4", "line 5",
    ]  # fmt: skip


def test_patterns_with_folders_of_any_depth() -> None:
    for pattern, named in (
        ("**", "a b/c b/d/e"), ("b/**", "b/c b/d/e"), ("**/e", "b/d/e"), ("b/*/e", "b/d/e"),
        ("b/**/e", "b/d/e"), ("b/d/e/f", ""), ("/b", "b/c b/d/e"),
        ("b/", "b/c b/d/e"), ("/", ""),
    ):  # fmt: skip
        rule = Rule(pattern, AS_IS)
        assert " ".join(path for path in ("a", "b/c", "b/d/e") if rule.names(path)) == named
