"""A production line, `push --all --watch --log`: cameras come, go, and come back while it runs."""

from __future__ import annotations

import csv
import signal

from lab import PROGRAM, Lab, UsbCamera, digests, files, scenario, tty_of, wait_for

CUT = 10_000


class Line:
    """The command, running, and what it wrote so far."""

    def __init__(self, lab: Lab, board: str, *words: str) -> None:
        image = lab.image("product", files(9), board)
        self._said, self._log = lab.folder / "said", lab.folder / "made.csv"
        command = f"exec {PROGRAM} push {image} {' '.join(words)} --all --watch --log {self._log}"
        self._process = lab.process(["sh", "-c", f"{command} >{self._said} 2>&1"])
        lab.cleanup.callback(self._process.kill)
        lab.cleanup.callback(lambda: lab.say(self.said))
        self.until("waiting for cameras")

    @property
    def said(self) -> str:
        return self._said.read_text() if self._said.exists() else ""

    def until(self, text: str) -> None:
        wait_for(lambda: text in self.said or self._process.poll() is not None)
        assert text in self.said, self.said

    def rows(self, outcome: str) -> list[dict[str, str]]:
        """Those whose outcome begins so."""
        with open(self._log, newline="") as file:
            return [row for row in csv.DictReader(file) if row["outcome"].startswith(outcome)]

    def until_rows(self, outcome: str, count: int) -> list[dict[str, str]]:
        wait_for(lambda: len(self.rows(outcome)) >= count or self._process.poll() is not None)
        rows = self.rows(outcome)
        assert len(rows) == count, rows
        return rows

    def interrupted(self) -> None:
        """Ctrl-C, once, while a camera is written: that is done to its end."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(300) == 0, self.said
        assert "finishing what is being written" in self.said, self.said
        assert "2 written, 0 had it already, 0 failed" in self.said, self.said
        self.until_rows("written", 2)


def two_and_another(lab: Lab, board: str) -> list[UsbCamera]:
    """Two that hold what is not the product; and one of another board."""
    old = {0: lab.image("old", files(1), board).read_bytes()}
    ids = (b"\1" * 12, b"\2" * 12)
    cameras = [
        lab.camera(board, plugged=False, serial=f"33004{i}", unique_id=ids[i], images=old)
        for i in range(2)
    ]
    return [*cameras, lab.camera("OPENMV_N6", plugged=False, serial="330049")]


@scenario
def production_line(lab: Lab) -> None:
    """Two cameras at once, one pulled in the middle and put back, another board; Ctrl-C."""
    line = Line(lab, "OPENMV4P", "--board", "OPENMV4P")
    whole, cut, other = cameras = two_and_another(lab, "OPENMV4P")
    cut.cable_goes = True
    cut.simulator.faults.power_cut_after_programmed(CUT)
    for camera in cameras:
        camera.plug(window=False)
    (failed,) = line.until_rows("failed", 1)
    assert failed["id"] == "02" * 12, failed
    (written,) = line.until_rows("written", 1)
    assert written["id"] == "01" * 12, written
    assert written["port"] == tty_of(whole)
    port = tty_of(other)
    line.until(f"{port}: OPENMV_N6 on {port}, not OPENMV4P: left alone")
    before = cut.simulator.statistics.programmed
    cut.plug(window=False)
    wait_for(lambda: cut.simulator.statistics.programmed > before)
    line.interrupted()
    assert lab.listed(whole.romfs()) == lab.listed(cut.romfs()) == digests(files(9))
    assert other.simulator.statistics.programmed == 0


@scenario
def production_line_of_loaders(lab: Lab) -> None:
    """The same with boards in their boot loaders."""
    line = Line(lab, "OPENMV_AE3", "dfu:OPENMV_AE3")
    whole, cut, other = cameras = two_and_another(lab, "OPENMV_AE3")
    cut.setting().pull_after = CUT
    for camera in cameras:
        camera.attach_loader()
    (failed,) = line.until_rows("failed", 1)
    (written,) = line.until_rows("written", 1)
    assert failed["port"] != written["port"]
    tty_of(whole)  # restarted
    before = cut.setting().programmed
    cut.attach_loader()
    wait_for(lambda: cut.setting().programmed > before)
    line.interrupted()
    assert {row["port"] for row in line.rows("written")} == {failed["port"], written["port"]}
    assert lab.listed(whole.romfs()) == lab.listed(cut.romfs()) == digests(files(9))
    assert all(setting.programmed == 0 for setting in other.settings)
    assert other.loader is not None
