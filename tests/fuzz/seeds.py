"""What fuzzing starts from: small valid inputs made here, and real files where they are."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from pathlib import Path

import fuzz_camera
from fuzz_camera import DIVIDER, IMAGE, entering, running

from romfsfs.image.varuint import MAGIC
from romfsfs.image.writer import encode
from romfsfs.session.keep.state import Base, BaseEntry, SessionInfo, Signature, dump

DATA = Path(os.environ.get("ROMFSFS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
#: Whole conversations with simulated cameras, see `record_camera.py`.
RECORDED = Path(__file__).with_name("recorded")
#: Larger real files are no seeds: fuzzing them finds nothing more, and slowly.
MAX_SEED_BYTES = 400_000


def seeds(target: str) -> list[bytes]:
    """Valid inputs for a target; those of the test data last, in order of their names."""
    makers = {
        "image": _images,
        "layout": lambda: [bytes(range(60)), b"\x02\x00\x01\x00" * 40, bytes(200)],
        "varuint": lambda: [b"\x80\x80\x05", b"\x8f\xff\xff\xff\x7f", b"\x00", b"\xff" * 6],
        "model": _models,
        "cascade": _cascades,
        "mpy_header": lambda: [b"M\x06\x1f\x1f", b"M\x05\x00\x00", b"M\x06\x00\x1f"],
        "repl": _repl,
        "transfers": _transfers,
        "camera": _camera,
        "facts": lambda: [facts_text()],
        "dfu_list": lambda: [DFU_LIST],
        "blhost": lambda: [BLHOST],
        "session_state": _state,
        "zoo_index": lambda: [b'# models\n"^openmv/", "OPENMV.*"\n"hidden", ""\n'],
        "zoo_page": lambda: [
            b"<html><title>A &amp; b</title><p>What <b>it</b> does.</p><p>Licence"
        ],
        "zip": _zips,
        "summary": lambda: [SUMMARY],
        "tool_output": lambda: [*OUTPUTS],
        "settings": lambda: [SETTINGS],
        "control": lambda: [b"commit\n", b"com\xfdmit\n\xfdrevert", b"shadow/x", b"status"],
    }
    return makers[target]()


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A few of the changes that break parsers."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(result) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(result):
            result[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del result[at : at + rng.choice((1, 2, 16, 1000))]
        elif kind == 3:
            result[at:at] = rng.choice((b"\x80", b"\xff", b"\0", b"9", b"\x04")) * rng.randrange(70)
        elif kind == 4:
            first = rng.randrange(len(other) + 1)
            result[at:at] = other[first : first + rng.randrange(40)]
        elif kind == 5:
            result[at : at + 4] = rng.randbytes(4)
        elif kind == 6:
            del result[at:]
        else:
            result[at:at] = result[at : at + rng.randrange(200)]
    return bytes(result)


def _shared(*patterns: str) -> list[bytes]:
    found = (path for pattern in patterns for path in sorted(DATA.glob(pattern)))
    return [path.read_bytes() for path in found if path.stat().st_size <= MAX_SEED_BYTES]


def number(value: int, width: int = 0) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups)).rjust(width, b"\x80")


def record(kind: int, payload: bytes) -> bytes:
    return number(kind) + number(len(payload)) + payload


def named(kind: int, name: str, payload: bytes) -> bytes:
    raw = name.encode()
    return record(kind, number(len(raw)) + raw + payload)


def image(*records: bytes) -> bytes:
    payload = b"".join(records)
    return MAGIC + number(len(payload)) + payload


def _images() -> list[bytes]:
    pointed = named(5, "p", record(3, number(4) + number(2)))
    files = {"a.txt": b"hello", "lib/b.mpy": b"M\x06\x00\x1f", "x.tflite": bytes(40)}
    padded = named(5, "f", record(1, b"-") + record(2, b"1"))
    return [
        encode(files, dirs=["e"]),
        image(record(2, b"data"), pointed, named(4, "d", named(5, "e", record(2, b"")))),
        image(record(1, bytes(5)), record(9, b"?"), padded),
        MAGIC + b"\0",
        IMAGE + b"\xff" * 64,
        *_shared("images/OPENMV2*", "images/*.romfs"),
    ]  # fmt: skip


def _models() -> list[bytes]:
    return [tflite(), *_shared("models/*.tflite")]


def tflite(code: bytes = b"ethos-u") -> bytes:
    """A model with one custom operator, put together by hand from its tables."""
    body = bytearray(8)
    body[4:8] = b"TFL3"

    def table(fields: int) -> int:
        """A vtable with `fields` 4-byte fields, all there, and the table behind it."""
        while len(body) % 4:
            body.append(0)
        vtable = len(body)
        body.extend(struct.pack("<HH", 4 + 2 * fields, 4 + 4 * fields))
        body.extend(struct.pack(f"<{fields}H", *range(4, 4 + 4 * fields, 4)))
        while len(body) % 4:
            body.append(0)
        place = len(body)
        body.extend(struct.pack("<i", place - vtable) + bytes(4 * fields))
        return place

    def point(field: int, at: int) -> None:
        struct.pack_into("<I", body, field, at - field)

    def vector(field: int) -> int:
        """A vector of one, which `field` points to; where its item has to be pointed from."""
        point(field, len(body))
        body.extend(struct.pack("<II", 1, 0))
        return len(body) - 4

    model = table(5)
    point(0, model)
    codes, subgraphs, buffers = (vector(model + 4 + 4 * number) for number in (1, 2, 4))
    opcode, subgraph, buffer = table(4), table(4), table(1)
    for item, at in ((codes, opcode), (subgraphs, subgraph), (buffers, buffer)):
        point(item, at)
    tensors, operators = vector(subgraph + 4), vector(subgraph + 16)
    tensor, operator = table(3), table(2)
    point(tensors, tensor)
    point(operators, operator)
    body[opcode + 4] = 32  # custom
    struct.pack_into("<I", body, opcode + 16, 32)
    point(opcode + 8, len(body))
    body.extend(struct.pack("<I", len(code)) + code + bytes(4 - len(code) % 4))
    vector(operator + 8)
    point(buffer + 4, len(body))
    body.extend(struct.pack("<I4sII", 12, b"COP1", 1, 8))
    return bytes(body)


NEW_CASCADE = b"""<?xml version="1.0"?>
<opencv_storage><cascade type_id="opencv-cascade-classifier"><stageType>BOOST</stageType>
<featureType>HAAR</featureType><height>20</height><width>20</width><stageNum>1</stageNum>
<stages><_><stageThreshold>-1.5</stageThreshold><weakClassifiers>
<_><internalNodes>0 -1 0 1.2e-02</internalNodes><leafValues>0.5 -0.5</leafValues></_>
</weakClassifiers></_></stages>
<features><_><rects><_>0 0 4 4 -1.</_><_>0 0 2 4 2.</_></rects><tilted>0</tilted></_></features>
</cascade></opencv_storage>"""

OLD_CASCADE = b"""<?xml version="1.0"?>
<opencv_storage><smile type_id="opencv-haar-classifier"><size>20 20</size><stages><_><trees><_><_>
<feature><rects><_>0 0 4 4 -1.</_></rects><tilted>0</tilted></feature><threshold>.5</threshold>
<left_val>1</left_val><right_val>-1</right_val></_></_></trees>
<stage_threshold>-1.5</stage_threshold></_></stages></smile></opencv_storage>"""


def _cascades() -> list[bytes]:
    lbp = NEW_CASCADE.replace(b"HAAR", b"LBP")
    return [NEW_CASCADE, OLD_CASCADE, lbp, OLD_CASCADE.decode().encode("utf-16")]


def join(mode: int, *parts: bytes) -> bytes:
    return bytes([mode]) + DIVIDER.join(parts)


def _repl() -> list[bytes]:
    run = running(b"1\r\n")
    failed = running(b"", b"Traceback\r\nValueError: no\r\n")
    plain = [b"R\x00", b"", b"OK1\r\n\x04\x04>"]
    reset = [b"OK\r\nMPY: soft reboot\r\n" + fuzz_camera.repl._PROMPT, *entering()[2:]]
    lines = running(b"go\r\nk 0 0\r\n")
    return [
        join(0, *entering(), *run, *run),
        join(1, *entering(), *run),
        join(2, *entering(), *failed),
        join(0, *entering(), *plain),
        join(0, *entering(), *reset, b"", b">>> ", b"soft reboot"),
        join(0, *entering(), *lines),
    ]


def _transfers() -> list[bytes]:
    answers = [f"k {number} 0\r\n".encode() for number in range(5)]
    go = [b"R\x01\xff\xff", b"", b"\x04go\r\n"]
    text = b"A" * 4096 + b" 0\n"
    return [
        join(0x00, *entering(), *go, *answers, b"\x04\x04>"),
        join(0x31, *entering(), *go, *answers, b"r 1 0\r\n"),
        join(0x00, *entering(), *go, b"e 0 -5\r\n"),
        join(0x10, *entering(), *go, bytes(4100), bytes(4100), bytes(820), b"\x04\x04>"),
        join(0x00, *entering(), *go, text, text, text, b"\x04\x04>"),
    ]


def facts_text() -> bytes:
    answer = {
        "machine": "OpenMV N6 with STM32N657X0", "arch": "OMVN6",
        "omv": "4.8.1", "uid": "00" * 12, "release": "1.26.0", "mpy": 0x1F06 | 8 << 10,
        "partitions": [("memory", 65536, 4096, IMAGE[:16], 4)], "stdin": True,
        "stdout": True, "sha256": False, "crc32": True, "poll": True, "heap": 100000,
        "here": ["net"],
    }  # fmt: skip
    return repr(answer).encode() + b"\r\n"


def _camera() -> list[bytes]:
    facts = running(2 * facts_text())
    header = running(IMAGE[:16].hex().encode() + b"\r\n")
    blank = running(b"ff" * 16)
    go = [b"R\x01\xff\xff", b"", b"\x04go\r\n"]
    return [
        join(0, *entering(), *facts),
        join(0, *entering(), *facts, *header, *go, IMAGE[:4096] + bytes(4)),
        join(1, *entering(), *facts, *blank, *running(b"00000000" * 2)),
        join(2, *entering(), *facts, *running(b"zz")),
        *(path.read_bytes() for path in sorted(RECORDED.glob("camera-*"))),
    ]


DFU_LIST = (
    b"dfu-util 0.11\n\n"
    + b"".join(
        b"Found %s: [%s] ver=0200, devnum=6, cfg=1, intf=0, " % (mode, usb)
        + b'path="%s", alt=%d, name="%s", serial="41"\n' % (path, alt, name)
        for mode, usb, path, alt, name in (
            (b"DFU", b"37c5:96e3", b"1-2", 3, b"ROMFS0"),
            (b"DFU", b"37c5:1206", b"1-3", 0, b"BOOTLOADER"),
            (b"Runtime", b"37c5:1204", b"1-4", 0, b"x"),
            (b"DFU", b"2341:035f", b"2-1", 1, b"@Ext RAW  Flash 16MB/0x90000000/4096*04Kg"),
        )
    )
    + b"Download\t[=========================] 100%         4096 bytes\n"
)

BLHOST = b"Response status = 0 (0x0) Success.\nResponse word 1 = 1258487808 (0x4b030000)\n"


SUMMARY = b"experiment,network,sram_memory_used,inferences\nx,m,12.5,3\n"

OUTPUTS = (
    b'Traceback (most recent call last):\n  File "script.py", line 3, column 5\nError: no\n',
    b"Warning (supported operators) operator: MUL is on the CPU\nReason: int64\n not a valid one.",
    b"\x02E010(InvalidModelError): Couldn't load TFLite model\nelapsed time\x1b[2J\n",
    b"Download\t[=====     ]  42%\r\nMemoryError: memory allocation failed\n",
)

SETTINGS = json.dumps({
    "Globals": {}, "Profiles": {"default": {"options": "-O3 %", "memory_pool": "pool.mpool"}}
}).encode()  # fmt: skip


def _state() -> list[bytes]:
    info = SessionInfo("file", "key", "a.img", "OPENMV4", source="a.img", options={"convert": True})
    entry = BaseEntry("a.mpy", 3, "0" * 64, "a.py", "1" * 64, Signature(1, 2, 3, 4))
    base = Base("0" * 64, 100, 80, None, (1, 2, 3), (entry,))
    commit = {
        "version": 1, "old_digest": "", "old_target_digest": None, "new_digest": "", "new_size": 1,
        "kind": "commit", "summary": "", "restores": -1, "pid": 1,
    }  # fmt: skip
    past = {"number": 0, "kind": "commit", "time": 1.0, "digest": "", "size": 0}
    result = {"schema": 1, "failed": False, "digest": "", "size": 0, "diagnostics": [
        {"severity": "error", "code": "io", "message": "m", "detail": ""}]}  # fmt: skip
    lock = {"pid": 1, "mountpoint": "/m"}
    others = [json.dumps(each).encode() for each in (commit, past, result, lock)]
    return [dump(info), dump(base), *others]


def _zips() -> list[bytes]:
    made = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            archive.writestr("models/openmv/a.tflite", tflite())
            archive.writestr("models/index.csv", '"a", "OPENMV"\n')
            archive.writestr("OPENMV4/romfs0.img", IMAGE)
        made.append(out.getvalue())
    return made
