"""OpenCV's cascades, both generations of XML, and XML that means harm."""

from __future__ import annotations

import struct
import time

import pytest
from convert_helpers import convert, lookup, stored_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from romfsfs.convert import Converters, State, Target
from romfsfs.convert.cascade_xml import CascadeError, sniff
from romfsfs.convert.haar import Cascade, HaarConverter, convert_cascade
from romfsfs.convert.types import Decision, Diagnostic, Job, Product

OLD = b"""<?xml version="1.0"?>
<!-- A licence. -->
<opencv_storage>
<Smile type_id="opencv-haar-classifier">
  <size>20 30</size>
  <stages>
    <_><trees>
      <_><_><feature><rects><_>0 1 2 3 -1.</_><_>4 5 6 7 2.</_></rects><tilted>0</tilted></feature>
        <threshold>-4.8e-003</threshold><left_val>0.59</left_val><right_val>-0.44</right_val></_></_>
      <_><_><feature><rects><_>8 9 1 1 -1.</_></rects><tilted>1</tilted></feature>
        <threshold>0.5</threshold><left_val>1.</left_val><right_val>-.25</right_val></_></_>
      </trees><stage_threshold>-1.9</stage_threshold><parent>-1</parent><next>-1</next></_>
    <_><trees>
      <_><_><feature><rects><_>3 3 3 3 -1.</_></rects><tilted>0</tilted></feature>
        <threshold>0</threshold><left_val>0</left_val><right_val>0</right_val></_></_>
      </trees><stage_threshold>2</stage_threshold><parent>0</parent><next>-1</next></_>
  </stages></Smile>
</opencv_storage>
"""

NEW = b"""<?xml version="1.0"?>
<opencv_storage>
<cascade type_id="opencv-cascade-classifier"><stageType>BOOST</stageType>
  <featureType>HAAR</featureType>
  <height>30</height>
  <width>20</width>
  <stageParams><maxWeakCount>2</maxWeakCount></stageParams>
  <featureParams><maxCatCount>0</maxCatCount></featureParams>
  <stageNum>2</stageNum>
  <stages>
    <_><maxWeakCount>2</maxWeakCount><stageThreshold>-1.9</stageThreshold><weakClassifiers>
      <_><internalNodes>0 -1 1 -4.8e-003</internalNodes><leafValues>0.59 -0.44</leafValues></_>
      <_><internalNodes>0 -1 2 0.5</internalNodes><leafValues>1. -.25</leafValues></_>
      </weakClassifiers></_>
    <_><maxWeakCount>1</maxWeakCount><stageThreshold>2</stageThreshold><weakClassifiers>
      <_><internalNodes>0 -1 0 0</internalNodes><leafValues>0 0</leafValues></_>
      </weakClassifiers></_>
  </stages>
  <features>
    <_><rects><_>3 3 3 3 -1.</_></rects><tilted>0</tilted></_>
    <_><rects><_>0 1 2 3 -1.</_><_>4 5 6 7 2.</_></rects><tilted>0</tilted></_>
    <_><rects><_>8 9 1 1 -1.</_></rects><tilted>1</tilted></_>
  </features></cascade>
</opencv_storage>
"""

#: By hand from the layout in docs/converters.md; -1.9 * 256 = -486.4 truncates to -486.
BINARY = b"".join(
    (
        struct.pack("<3i", 20, 30, 2),
        bytes([2, 1]) + bytes(2),
        struct.pack("<2h", -486, 512),
        struct.pack("<3h", -19, 2048, 0),
        struct.pack("<3h", 151, 256, 0),
        struct.pack("<3h", -112, -64, 0),
        bytes([2, 1, 1]),
        struct.pack("<4b", -1, 2, -1, -1),
        bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 3, 3, 3, 3]),
    )
)
LBP = NEW.replace(b"HAAR", b"LBP")


@pytest.mark.parametrize("xml", [OLD, NEW], ids=["old", "new"])
def test_both_generations(tmp_path, cache, xml):
    converters = Converters(Target(), cache)
    assert converters.concerns("face.xml")
    waiting = lookup(converters, tmp_path, "face.xml", xml)
    assert (waiting.state, waiting.stored_path) == (State.PENDING, "face.cascade")
    result = convert(converters, tmp_path, "face.xml", xml)
    assert (result.state, result.stored_path) == (State.READY, "face.cascade")
    assert stored_bytes(result) == BINARY
    assert lookup(converters, tmp_path, "face.xml", xml) == result


def test_a_licence_of_any_length_hides_no_cascade(tmp_path, cache):
    for licence in (b"<!-- " + b"x" * 80_000 + b" -->", b"\n" * 70_000):
        xml = OLD.replace(b"<!-- A licence. -->", licence)
        assert stored_bytes(convert(Converters(Target(), cache), tmp_path, "a.xml", xml)) == BINARY


@pytest.mark.parametrize("xml", [OLD, NEW], ids=["old", "new"])
def test_tilted_features_in_use_are_counted_and_the_bytes_stay(tmp_path, cache, xml):
    result = convert(Converters(Target(), cache), tmp_path, "face.xml", xml)
    assert stored_bytes(result) == BINARY
    (found,) = result.diagnostics
    assert (found.severity, found.code) == ("warning", "cascade-tilted")
    assert found.message.startswith("has tilted features (1 of 3), which the ")
    upright = xml.replace(b"<tilted>1<", b"<tilted>0<")
    assert not convert(Converters(Target(), cache), tmp_path, "face.xml", upright).diagnostics
    unused = NEW.replace(b"</features>", b"<_><rects/><tilted>1</tilted></_></features>")
    assert convert_cascade(unused).tilted == 1


def test_leaves_that_are_named_the_other_way_round_are_swapped():
    swapped = NEW.replace(b"0 -1 2 0.5</internalNodes><leafValues>1. -.25",
                          b"-1 0 2 0.5</internalNodes><leafValues>-.25 1.")  # fmt: skip
    assert swapped != NEW
    assert convert_cascade(swapped).data == BINARY
    with pytest.raises(CascadeError, match="a tree that leads to nodes"):
        convert_cascade(NEW.replace(b"0 -1 2 0.5", b"1 -1 2 0.5"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"<parent>0</parent><next>-1<", b"<parent>0</parent><next>2<", "stage 1: the stages"),
        (b"<parent>0</parent>", b"<parent>-1</parent>", "stage 1: the stages are a tree"),
        (b"4 5 6 7 2.", b"4 5 6 7 1.3333334", "a weight of 1.3333334"),
        (b"4 5 6 7 2.", b"4 5 17 7 2.", "a rectangle of 17 x 7 at 4, 5 reaches out"),
        (b"8 9 1 1 -1.", b"8 9 1 22 -1.", "a rectangle of 1 x 22 at 8, 9 reaches out"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path, cache, old, new, problem):
    assert old in OLD
    with pytest.raises(CascadeError, match=problem):
        convert_cascade(OLD.replace(old, new))
    result = convert(Converters(Target(), cache), tmp_path, "a.xml", OLD.replace(old, new))
    assert result.state is State.FAILED
    assert result.message.rpartition("; ")[2].startswith(("the camera runs simpler", "copy the"))


def test_a_stage_without_features_decides_nothing():
    begin, end = NEW.index(b"<weakClassifiers>") + 17, NEW.index(b"</weakClassifiers>")
    with pytest.raises(CascadeError, match="a stage without features"):
        convert_cascade(NEW[:begin] + NEW[end:])


def test_opencvs_smile_is_the_cascade_on_the_camera(shared_data):
    if shared_data is None:  # the hand-made ones above hold everywhere
        return
    xml = (shared_data / "haar" / "haarcascade_smile.xml").read_bytes()
    cascade = convert_cascade(xml)
    assert len(cascade.data) == 10280
    assert cascade.data in (shared_data / "images" / "OPENMV2_romfs0.img").read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg><opencv_storage/></svg>",
        b"<opencv_storage><matrix type_id='opencv-matrix'><rows>1</rows></matrix>",
        b"opencv_storage, says this text",
        b"\xff\xfe\x00",
    ],
)
def test_other_xml_is_stored_as_it_is(tmp_path, cache, data):
    result = convert(Converters(Target(), cache), tmp_path, "drawing.xml", data)
    assert (result.state, result.stored_path, result.artifact) == (
        State.READY,
        "drawing.xml",
        None,
    )
    assert not result.diagnostics


def test_cascade_of_other_features_is_kept_with_a_warning(tmp_path, cache):
    result = convert(Converters(Target(), cache), tmp_path, "lbp.xml", LBP)
    assert (result.state, result.stored_path) == (State.READY, "lbp.xml")
    assert result.diagnostics[0].code == "cascade-unsupported"
    assert "LBP" in result.message


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"<threshold>0.5<", b"<threshold>8.1<", "feature threshold 33177 is out of range"),
        (b"<left_val>1.<", b"<left_val>200<", "left value 51200 is out of range"),
        (b"<right_val>-.25<", b"<right_val>-1e5<", "right value -25600000 is out of range"),
        (b"-1.9<", b"1e999<", "stage 0: 1e999 is out of range"),
        (b"-1.9<", b"nan<", "stage 0: 'nan' is not a number"),
        (b"8 9 1 1 -1.", b"8 9 1 256 -1.", "a rectangle of 1 x 256 at 8, 9 reaches out"),
        (b"8 9 1 1 -1.", b"8 9 1 1 -129", "weight -129 is out of range"),
        (b"8 9 1 1 -1.", b"8 9 1 1", "stage 0: a rectangle without"),
        (b"8 9 1 1 -1.", b"8.5 9 1 1 1", "stage 0: 8.5 is not a whole number"),
        (b"<size>20 30<", b"<size>20<", "size: not a width and a height"),
        (b"<size>20 30<", b"<size>1e11 30<", "window size 100000000000 is out of range"),
        (b"<_><_><feature><rects><_>8", b"<_><_/><_><feature><rects><_>8", "more than one node"),
        (b"</opencv_storage>", b"", "not well-formed XML"),
        (b'<?xml version="1.0"?>', b"<!DOCTYPE x [<!ENTITY a 'b'>]>", "document type"),
        (b'<?xml version="1.0"?>', b"<!DOCTYPE opencv_storage>", "document type"),
        (b'<?xml version="1.0"?>', b"<?xml version='1.0' encoding='rot13'?>", "XML"),
        (b"<threshold>0.5<", b"<threshold>8<", "feature threshold 32768 is out of range"),
        (b"8 9 1 1 -1.", b"8 9 1 1 128", "weight 128 is out of range, -128 to 127"),
        (b"8 9 1 1 -1.", b"-1 9 1 1 1", "rectangle -1 is out of range, 0 to 255"),
        (
            b"8 9 1 1 -1.",
            b"8 9 13 1 1",
            "a rectangle of 13 x 1 at 8, 9 reaches out of the window of 20 x 30",
        ),
        (b"<_>8 9 1 1 -1.</_>", b"<_>8 9 1 1 -1.</_>" * 17, "stage 0: 17 rectangles, at most 16"),
        (b"-1.9<", b"-1e13<", "stage 0: -1e13 is out of range"),
        (b"<left_val>1.</left_val>", b"", "no left_val in _"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, cache, old, new, problem):
    with pytest.raises(CascadeError, match=problem):
        convert_cascade(OLD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<threshold>0.5<", b"<threshold>7.99976<"), (b"<threshold>0.5<", b"<threshold>-8<"),
        (b"<left_val>1.<", b"<left_val>127.998<"), (b"8 9 1 1 -1.", b"8 9 1 1 127"),
        (b"8 9 1 1 -1.", b"8 9 1 1 -128"), (b"8 9 1 1 -1.", b"0 0 20 30 -1"),
        (b"8 9 1 1 -1.", b"19 29 1 1 -1"), (b"<_>8 9 1 1 -1.</_>", b"<_>8 9 1 1 -1.</_>" * 16),
        (b"<parent>0</parent><next>-1</next>", b""), (b"<tilted>1</tilted>", b""),
    ],
)  # fmt: skip
def test_the_largest_that_fits(old: bytes, new: bytes) -> None:
    assert old in OLD
    assert len(convert_cascade(OLD.replace(old, new)).data) >= len(BINARY)


def test_failure_is_told_and_cached(tmp_path, cache):
    converters = Converters(Target(), cache)
    xml = OLD.replace(b"<threshold>0.5<", b"<threshold>8.1<")
    result = convert(converters, tmp_path, "face.xml", xml)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "cascade-invalid")
    assert result.message == (
        "not a usable Haar cascade: feature threshold 33177 is out of range, -32768 to 32767; the "
        "camera runs simpler ones, such as OpenCV's haarcascade_frontalface_default.xml"
    )
    assert lookup(converters, tmp_path, "face.xml", xml) == result


@pytest.mark.parametrize(
    ("index", "problem"), [(b"3", "feature 3 of 3"), (b"-1", "feature -1 of 3")]
)
def test_new_generation_feature_numbers(index, problem):
    xml = NEW.replace(b"0 -1 2 0.5", b"0 -1 " + index + b" 0.5")
    with pytest.raises(CascadeError, match=problem):
        convert_cascade(xml)


def test_more_than_255_features_in_a_stage():
    tree = b"<_><internalNodes>0 -1 0 0</internalNodes><leafValues>0 0</leafValues></_>"
    xml = NEW.replace(b"</weakClassifiers>", tree * 254 + b"</weakClassifiers>", 1)
    with pytest.raises(CascadeError, match="features of a stage 256 is out of range"):
        convert_cascade(xml)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE opencv_storage [<!ENTITY a "aaaaaaaaaa">%s]>
<opencv_storage><cascade type_id="opencv-cascade-classifier"><size>&z;</size>""" % b"".join(
    b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(98, 123)
)


@pytest.mark.parametrize(
    "xml",
    [
        BOMB,
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><opencv_storage>&e;',
        b"<opencv_storage>" + b"<a>" * 1_000_000,
        b"<opencv_storage><x type_id='opencv-haar-classifier'>" + b"<_>" * 300_000,
        b"<opencv_storage><" + b"a" * 2_000_000 + b">",
        OLD.replace(b"20 30", b"9" * 1_000_000),
    ],
    ids=["bomb", "file", "deep", "deep cascade", "long name", "long number"],
)
def test_hostile_xml_is_refused_at_once(tmp_path, cache, xml):
    started = time.monotonic()
    with pytest.raises(CascadeError):
        convert_cascade(xml)
    result = convert(Converters(Target(), cache), tmp_path, "x.xml", xml)
    assert result.state is State.READY or result.diagnostics[0].code == "cascade-invalid"
    assert time.monotonic() - started < 30


@settings(max_examples=150)
@given(st.sampled_from([OLD, NEW]), st.data())
def test_damaged_cascades_give_a_cascade_or_the_documented_error(xml, data):
    damaged = bytearray(xml)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        end = at + data.draw(st.integers(0, 20))
        damaged[at:end] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"9" * 30, b"<_>", b"-1e9", b"nan"]))
        )
    assert sniff(lambda at, size: bytes(damaged[at : at + size]), len(damaged)) is not None
    try:
        assert len(convert_cascade(bytes(damaged)).data) <= 16 * len(damaged)
    except CascadeError:
        pass


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (b'<a type_id="opencv-haar-classifier"><size>', "HAAR"),
        (b'<cascade type_id="opencv-cascade-classifier"><stages>', "HAAR"),
        (b'<a type_id="opencv-cascade-classifier"><featureType>LBP</featureType>', "LBP"),
        (b"<cascade><featureType>HAAR</featureType>", "HAAR"),
        (b"<cascade><featureType>LBP</featureType>", "LBP"),
        (b"<a><featureType>LBP</featureType><stages>", ""),
    ],
)
def test_what_a_cascade_is_told_by(node: bytes, kind: str) -> None:
    """Its type or its name: either is enough."""
    data = b"<opencv_storage>" + node
    assert sniff(lambda at, size: data[at : at + size], len(data)) == kind


SIMPLER = "the camera runs simpler ones, such as OpenCV's haarcascade_frontalface_default.xml"
NODE = b"<internalNodes>0 -1 2 0.5</internalNodes><leafValues>1. -.25</leafValues>"
BEGIN, END = NEW.index(b"<weakClassifiers>"), NEW.rindex(b"</weakClassifiers>")


@pytest.mark.parametrize(
    ("xml", "old", "new", "said", "remedy"),
    [
        (OLD, b"opencv_storage>", b"storage>", "the root element is not opencv_storage", ""),
        (OLD, b"size>", b"sise>", "no cascade in it", ""),
        (OLD, b"stages>", b"stage>", "no cascade in it", ""),
        (NEW, b"stageNum>", b"number>", "no cascade in it", ""),
        (NEW, b"<height>30</height>", b"", "no height in cascade", ""),
        (NEW, b"<width>20<", b"<width>20.5<", "width: 20.5 is not a whole number", ""),
        (NEW, b"features>", b"feature>", "no features in cascade", ""),
        (NEW, b"stages>", b"stage>", "no stages in cascade", ""),
        (NEW, b"stageThreshold>", b"t>", "no stageThreshold in _", ""),
        (NEW, b"<rects><_>8 9 1 1 -1.</_></rects>", b"", "feature 2: no rects", ""),
        (NEW, b"8 9 1 1 -1.", b"8 9 1 1 1 1",
         "feature 2: a rectangle without x, y, width, height, weight", ""),
        (NEW, NODE, NODE.replace(b"0.5", b"0.5 1"), "stage 0: a tree of more than one node", "S"),
        (NEW, NODE, NODE.replace(b" 0.5", b""), "stage 0: a tree of more than one node", "S"),
        (NEW, NODE, NODE.replace(b"1. ", b""), "stage 0: a tree of more than one node", "S"),
        (NEW, NODE, NODE.replace(b"1. ", b"1. 1. "), "stage 0: a tree of more than one node", "S"),
        (NEW, NODE, NODE.replace(b"-1 2", b"-1 3"), "stage 0: feature 3 of 3", ""),
        (NEW, NODE, NODE.replace(b"-1 2", b"-1 -1"), "stage 0: feature -1 of 3", ""),
        (NEW, NODE, NODE.replace(b"0 -1", b"1 -1"),
         "stage 0: a tree that leads to nodes [1, -1]", "S"),
        (NEW, NODE, NODE.replace(b"0 -1", b"0 -2"),
         "stage 0: a tree that leads to nodes [0, -2]", "S"),
        (NEW, b"-1 0 0</", b"-1 0 x</", "stage 1: 'x' is not a number", ""),
        (NEW, NEW[BEGIN + 17 : END], b"", "a stage without features", ""),
        (OLD, OLD[OLD.index(b"<stages>") + 8 : OLD.index(b"</stages>")], b"", "no stages", ""),
        (OLD, b"<parent>-1<", b"<parent>0<",
         "stage 0: the stages are a tree, not one after the other", "S"),
        (OLD, b"<next>-1</next></_>\n  </stages>", b"<next/></_></stages>",
         "stage 1: the stages are a tree, not one after the other", "S"),
        (OLD, b"<size>20 30<", b"<size>20 30 1<", "size: not a width and a height", ""),
        (OLD, b"<size>20 30<", b"<size>20 1.5<", "height: 1.5 is not a whole number", ""),
        (OLD, b"<size>20 30<", b"<size>1.5 30<", "width: 1.5 is not a whole number", ""),
        (OLD, b"<feature><rects><_>3 3", b"<feature><r><_>3 3", None, ""),
        (OLD, b"<_>8 9 1 1 -1.</_>", b"<_/>",
         "stage 0: a rectangle without x, y, width, height, weight", ""),
        (OLD, b"8 9 1 1 -1.", b"8 9 1 1 1.00000000000000000005", None, ""),
        (OLD, b"8 9 1 1 -1.", b"8 9 1 1 1.50000000000000000005",
         "stage 0: a weight of 1.500000000000000000, and the camera takes whole numbers", "S"),
        (OLD, b"8 9 1 1 -1.", b"8 9 1.50000000000000000005 1 1",
         "stage 0: 1.500000000000000000 is not a whole number", ""),
        (OLD, b"-1.9<", b"1e12<",
         "stage threshold 256000000000000 is out of range, -32768 to 32767", "S"),
        (OLD, b"-1.9<", b"-10000000000000000000000000<",
         "stage 0: -1000000000000000000 is out of range", ""),
        (OLD, b"-1.9<", b"abcdefghijklmnopqrstuvwxyz<",
         "stage 0: 'abcdefghijklmnopqrst' is not a number", ""),
        (OLD, b"-1.9<", b"0" * 62 + b"1.9<", "stage 0: '00000000000000000000' is not a number", ""),
        (OLD, b"-1.9<", b"0" * 61 + b"1.9<", None, ""),
        (OLD, b"8 9 1 1 -1.", b"8 9 1 1 -129", "weight -129 is out of range, -128 to 127", "S"),
        (OLD, b"8 9 1 1 -1.", b"8 9 -1 1 1", "rectangle -1 is out of range, 0 to 255", "S"),
        (OLD, b"<size>20 30<", b"<size>2147483648 30<",
         "window size 2147483648 is out of range, -2147483648 to 2147483647", "S"),
        (OLD, b"<size>20 30<", b"<size>2147483647 30<", None, ""),
        (NEW, b"<opencv_storage>", b"<!DOCTYPE x><opencv_storage>",
         "a document type declaration, which OpenCV never writes", ""),
        (NEW, b"<height>", b"<a>" * 30 + b"</a>" * 30 + b"<height>", None, ""),
        (NEW, b"<height>", b"<a>" * 31 + b"</a>" * 31 + b"<height>",
         "elements nested more than 32 deep", ""),
        (NEW, b"</opencv_storage>", b"", "not well-formed XML: no element found: line 25, column 0",
         ""),
    ],
)  # fmt: skip
def test_every_refusal_in_words(xml, old, new, said, remedy):
    """None: it is none."""
    assert old in xml
    changed = xml.replace(old, new)
    if said is None:
        assert len(convert_cascade(changed.replace(b"<r>", b"<rects>")).data) == len(BINARY)
        return
    with pytest.raises(CascadeError) as caught:
        convert_cascade(changed)
    wanted = SIMPLER if remedy else "copy the file again, or use another"
    assert (str(caught.value), caught.value.remedy) == (said, wanted)


@pytest.mark.parametrize(
    ("text", "tilted"), [("", 0), (" ", 0), ("0", 0), (" 0\n", 0), ("1", 1), (" 1 ", 1), ("00", 1)]
)
def test_what_says_that_a_feature_is_tilted(text, tilted):
    for xml in (OLD, NEW):
        made = convert_cascade(xml.replace(b"<tilted>1<", b"<tilted>%b<" % text.encode()))
        assert made == Cascade(BINARY, 3, tilted)


def test_what_a_converter_makes_and_says(tmp_path):
    """The largest XML, one that is larger; of no other board, whatever it is."""
    converter = HaarConverter()
    assert [converter.concerns(path) for path in ("a.xml", "A.XML", "xml", "a.xml.txt")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert converter.made_for("a.xml") == ""
    largest = 8 << 20

    def made(xml: bytes) -> tuple[Product, bytes]:
        source, result = tmp_path / "cascade.xml", tmp_path / "result.cascade"
        source.write_bytes(xml)
        result.unlink(missing_ok=True)
        product = converter.convert(Job("a.xml", tmp_path, source))
        assert product.artifact in (None, result)
        return product, result.read_bytes() if product.artifact else b""

    def decided(size: int, xml: bytes = OLD) -> Decision:
        return converter.decide("d/A.XML", lambda at, count: xml[at : at + count], size)

    assert decided(largest) == Decision(State.PENDING, "d/A.cascade")
    assert decided(largest + 1) == Decision(State.READY, "d/A.XML")
    assert decided(99, b"text") == Decision(State.READY, "d/A.XML")
    assert decided(len(LBP), LBP) == Decision(State.READY, "d/A.XML", diagnostics=(Diagnostic(
        "warning", "cascade-unsupported", "is a cascade of LBP features, and the camera runs only "
        "Haar cascades; use one of OpenCV's haarcascade_*.xml",
    ),))  # fmt: skip
    tilted = Diagnostic(
        "warning", "cascade-tilted", "has tilted features (1 of 3), which the camera treats as "
        "upright: it detects less reliably; try it, or use a cascade without them",
    )  # fmt: skip
    result = tmp_path / "result.cascade"
    assert made(OLD.ljust(largest)) == (Product(result, (tilted,)), BINARY)
    assert made(OLD.replace(b"<tilted>1", b"<tilted>0")) == (Product(result), BINARY)
    invalid = Diagnostic(
        "error", "cascade-invalid", "not a usable Haar cascade: more than 8 MiB of XML; copy the "
        "file again, or use another",
    )  # fmt: skip
    assert made(OLD.ljust(largest + 1)) == (Product(None, (invalid,)), b"")


CLASSIFIER = b'<a type_id="opencv-cascade-classifier">'


@pytest.mark.parametrize(
    ("inside", "kind", "more"),
    [
        (b"<matrix><cascade><featureType>LBP</featureType></cascade></matrix>", "", 1),
        (b"<a/><cascade>", "HAAR", 1),
        (b"<a><stages/></a><cascade><featureType>LBP</featureType>", "LBP", 0),
        (b"<cascade><a><featureType>LBP</featureType></a></cascade>", "HAAR", 0),
        (b"<cascade><a><stages/></a><featureType>LBP</featureType>", "LBP", 0),
        (b"<cascade><stages/><featureType>LBP</featureType>", "HAAR", 0),
        (b"<cascade></cascade><cascade><featureType>LBP</featureType>", "HAAR", 0),
        (b"<cascade><type>x</type>y<featureType> L&#66;P\n</featureType>", "LBP", 0),
        (b"<cascade>y<featureType/>", "HAAR", 0),
        (b"<cascade><featureType>" + b"x" * 99 + b"</featureType>", "x" * 64, 0),
        (CLASSIFIER + b"<featureType>LBP</featureType>", "LBP", 0),
        (CLASSIFIER + b"<width>1</width><", "HAAR", 1),
        (b'<a type_id="opencv-haar-classifier"><featureType>LBP</featureType>', "HAAR", 0),
        (b"<a>" * 31, "", 1),
        (b"<a>" * 32, "", 0),
    ],
)
def test_where_a_cascade_is_told(inside: bytes, kind: str, more: int) -> None:
    """By no more bytes than it takes: `more` parts of the file."""
    asked = []

    def read(at: int, count: int) -> bytes:
        asked.append((at, count))
        return data[at : at + count]

    part = 64 << 10
    for beginning in (b"", b"\xef\xbb\xbf", b" \n"):
        data = beginning + b"<opencv_storage>" + inside
        asked.clear()
        assert sniff(read, len(data) + part) == kind
        assert asked == [(0, part)] * 2 + [(part, part)] * more
    asked.clear()
    data = b"text" + data
    assert (sniff(read, len(data)), asked) == ("", [(0, part)])
