"""What `status` says, to people and to scripts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.boards import get_board
from romfsfs.convert import Target
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.status import what_it_becomes
from romfsfs.session.plan.stored import InCache
from romfsfs.session.rebase.prepare import converted_plan

RECORD = {
    "source", "board", "partition", "capacity", "used", "free", "clean", "entries", "problems",
}  # fmt: skip
ENTRY = {"path", "change", "stored_as", "stored_size", "state", "message"}
PROBLEM = {"code", "path", "message", "severity"}


def test_the_json_has_the_documented_fields_and_no_others(desk: Desk) -> None:
    desk.open(board="OPENMV_N6")
    desk.write("bad.py", b"def f(:\n")
    desk.write("ok.py", b"x = 1\n")
    desk.write("junk~", b"1")
    (desk.work / "a.txt").unlink()
    record = json.loads(desk.session.status().json())
    assert record.keys() == RECORD
    assert record["board"] == "OPENMV_N6"
    assert record["free"] == record["capacity"] - record["used"]
    assert record["clean"] is False
    assert all(entry.keys() == ENTRY for entry in record["entries"])
    assert all(problem.keys() == PROBLEM for problem in record["problems"])
    entries = {entry["path"]: entry for entry in record["entries"]}
    assert entries["a.txt"]["change"] == "deleted"
    assert entries["lib/b.bin"]["change"] == "unchanged"
    assert entries["junk~"]["change"] == "ignored"
    assert entries["ok.py"]["stored_as"] == "ok.mpy"
    assert {entry["state"] for entry in record["entries"]} <= {"ready", "pending", "failed"}


def test_a_clean_session_has_no_problems(desk: Desk) -> None:
    desk.open()
    record = json.loads(desk.session.status().json())
    assert record["clean"] is True
    assert record["problems"] == []
    assert record["capacity"] is None
    assert record["free"] is None


def test_a_write_that_ends_meanwhile_is_not_told_of_as_interrupted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = desk.open()
    session.folder.record.write_text("{}")
    assert session.needs_recovery
    monkeypatch.setattr(SessionFolder, "changed_by", lambda folder: folder.record.unlink())
    assert not session.needs_recovery


def test_a_failure_is_told_with_its_reason(desk: Desk) -> None:
    desk.open()
    desk.write("bad.py", b"def f(:\n")
    converted_plan(desk.session)
    record = json.loads(desk.session.status().json())
    bad = next(entry for entry in record["entries"] if entry["path"] == "bad.py")
    assert bad["state"] == "failed"
    assert "SyntaxError" in bad["message"]
    assert record["problems"][0]["path"] == "bad.py"


def test_people_see_what_each_file_becomes(desk: Desk) -> None:
    desk.open()
    desk.write("app.py", b"x = %d\n" % time.time_ns())  # not compiled by any other test
    assert "  A app.py -> app.mpy  converting" in desk.session.status().text()
    unmounted = desk.session.status().text(mounted=False)
    assert "  A app.py -> app.mpy  converted on commit" in unmounted
    desk.commit()
    desk.write("app.py", b"x = 22\n")
    converted_plan(desk.session)
    text = desk.session.status().text()
    assert "  M app.py -> app.mpy " in text
    assert text.splitlines()[-1].endswith("B, capacity unknown (no board)")


def test_a_converted_model_is_told_by_its_processor() -> None:
    def becomes(board: str, entry: ShadowEntry) -> str:
        chosen = get_board(board)
        return what_it_becomes(entry, Target(chosen, chosen.partition(0)))

    cached = InCache(Path("cache/artifact"))
    model = ShadowEntry(
        "m.tflite", Change.ADDED, stored_as="m.tflite", size=240464, location=cached
    )
    assert becomes("OPENMV_AE3", model) == "Ethos-U"
    waiting = model._replace(state="pending", location=None)
    assert becomes("OPENMV_AE3", waiting) == "Ethos-U"
    assert becomes("OPENMV4P", waiting) == ""
    assert becomes("OPENMV_N6", model) == "Neural-ART"
    face = ShadowEntry(
        "face.xml", Change.ADDED, stored_as="face.cascade", size=10280, location=cached
    )
    assert becomes("OPENMV4", face) == "face.cascade"


def test_a_special_file_is_not_clean(desk: Desk) -> None:
    desk.open()
    (desk.work / "link").symlink_to("nowhere")
    status = desk.session.status()
    assert not status.clean
    assert "FAILED" in status.text()
