"""Commands on machines: boards, cameras, doctor, simulate."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from romfsfs.boards import Board, Partition, VelaNpu, get_board, parse_board
from romfsfs.boards import boards as all_boards
from romfsfs.cli import values
from romfsfs.cli.output import Output, flush
from romfsfs.cli.parameters import JSON, board
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, RomfsError, count_text, shell_word
from romfsfs.system.files import digest_bytes

if TYPE_CHECKING:
    from romfsfs.devices.discovery import CameraPort


#: Stands for every board that is not in the table.
_GENERIC: dict[str, Any] = {
    "name": "generic", "display_name": "other MicroPythons", "architecture": None,
    "usb": [], "partitions": [],
}  # fmt: skip
_GENERIC_TEXT = """\
generic: any other MicroPython with a ROMFS
  size, erase unit, bytecode and architecture as the board reports them
  no model is compiled; no --board is needed
  what it cannot report (alignment, NPU, USB ids, boot loader) comes from
  ~/.config/romfsfs/boards.toml:
    [MY_BOARD]
    says = ["My Board"]            # how sys.implementation._machine begins
    usb = ["37c5:1234"]
    partitions = [{ size = "4 MiB", align = { 16 = "tflite lite bin" } }]
"""


@click.command()
@click.argument("name", required=False, shell_complete=values.boards)
@JSON
@click.pass_obj
def boards(output: Output, name: str | None) -> None:
    """The known boards, or NAME in detail; NAME:PARTITION shows that partition alone."""
    if name == "generic":
        output.json(_GENERIC)
        output.show(_GENERIC_TEXT)
        return
    if name is not None:
        board, partition = parse_board(name)
        if partition is not None:
            board = replace(board, partitions=(board.partition(partition),))
        output.json(_board_record(board))
        output.show(_board_text(board))
        return
    known = list(all_boards().values())
    output.json([*map(_board_record, known), _GENERIC])
    lines = [_row("BOARD", "CAMERA", "ROMFS", "NPU")]
    for board in known:
        sizes = " + ".join(f"{partition.size:,}" for partition in board.partitions)
        npu = next((_npu_name(partition) for partition in board.partitions if partition.npu), "")
        lines.append(_row(board.name, board.display_name.partition(" (")[0], f"{sizes} B", npu))
    lines.append(_row("generic", "other MicroPythons", "as it reports", ""))
    output.show("".join(lines), (("BOARD", "bright_black"),))


def _row(name: str, camera: str, size: str, npu: str) -> str:
    return f"{name:20}  {camera:20}  {size:>24}  {npu}".rstrip() + "\n"


def _npu_name(partition: Partition) -> str:
    if partition.npu is None:
        return ""
    return "Ethos-U" if isinstance(partition.npu, VelaNpu) else "Neural-ART"


def _board_record(board: Board) -> dict[str, Any]:
    return {
        "name": board.name, "display_name": board.display_name,
        "architecture": board.march or None,
        "usb": [f"{vid:04x}:{pid:04x}" for vid, pid in board.runtime_ids],
        "partitions": [
            {"index": part.index, "name": part.name, "size": part.size,
             "erase_size": part.erase_size,
             "alignment": {"default": part.alignment.default, **dict(part.alignment.suffixes)},
             "npu": _npu_name(part) or None}
            for part in board.partitions
        ],
    }  # fmt: skip


def _board_text(board: Board) -> str:
    usb = ", ".join(f"{vid:04x}:{pid:04x}" for vid, pid in board.runtime_ids) or "none"
    text = f"{board.name}: {board.display_name}\n"
    text += f"  scripts for {board.march or 'what the camera reports'}, USB {usb}\n"
    for part in board.partitions:
        rules = ", ".join(f"{suffix} {size}" for suffix, size in part.alignment.suffixes)
        text += f"  partition {part.index} ({part.name}): {part.size:,} B, "
        text += f"erased by {part.erase_size:,} B\n"
        text += f"    alignment {part.alignment.default}, {rules}\n"
        if isinstance(part.npu, VelaNpu):
            text += f"    models for Ethos-U ({part.npu.accelerator_config}), "
            text += f"{part.npu.sram_heap_bytes:,} B of SRAM\n"
        elif part.npu is not None:
            text += f"    models for Neural-ART ({part.npu.target}), with ST Edge AI\n"
    return text


@click.command()
@JSON
@click.pass_obj
def doctor(output: Output) -> int:
    """What is missing on this machine, and the command that installs it.

    Exit code 1 when something is missing that every installation needs.
    """
    from romfsfs.cli.doctor import checks

    found = list(checks())
    output.json([asdict(check) for check in found])
    width = max(len(check.name) for check in found)
    for check in found:
        mark = "ok" if check.ok else "MISSING" if check.needed else "-"
        output.show(f"{mark:>8}  {check.name:{width}}  {check.detail}\n")
        if check.remedy:
            output.show(f"{'':>8}  {'':{width}}  {check.remedy}\n")
    return EXIT_FAILURE if any(check.needed and not check.ok for check in found) else EXIT_OK


@click.command()
@click.option(
    "--open/--no-open", "ask", default=True, help="Ask each camera what it holds (default)."
)
@JSON
@click.pass_obj
def cameras(output: Output, ask: bool) -> None:
    """The cameras that are connected: on serial ports, and waiting in DFU.

    Asking interrupts a script that runs on the camera; --no-open only looks at USB.
    """
    from romfsfs.devices.discovery import serial_cameras

    records = [_camera_record(camera, ask) for camera in serial_cameras()]
    records += _dfu_records(output)
    output.json(records)
    for record in records:
        output.show(_camera_text(record))
    if not records:
        output.say("no camera is connected; name any other serial port by its path")


def _camera_record(camera: CameraPort, ask: bool) -> dict[str, Any]:
    unknown = dict.fromkeys(("board", "firmware", "bytecode", "architecture", "error"))
    record: dict[str, Any] = {
        "kind": "serial", "port": camera.port,
        "usb": f"{camera.vid:04x}:{camera.pid:04x}" if camera.vid else None,
        "serial_number": camera.serial_number or None, "boards": list(camera.boards),
        "partitions": [], "slots": [], "notes": [], **unknown,
    }  # fmt: skip
    if not ask:
        return record
    from romfsfs.devices.open import inspect

    try:
        info, partitions = inspect(camera.port)
    except RomfsError as error:
        record["error"] = error.line
        return record
    return record | {
        "board": info.board, "firmware": info.firmware, "architecture": info.march,
        "bytecode": ".".join(map(str, info.mpy_version)) if info.mpy_version else None,
        "slots": [slot.record() for slot in info.slots], "notes": list(info.notes),
        "partitions": [asdict(partition) for partition in partitions],
    }  # fmt: skip


def _dfu_records(output: Output) -> list[dict[str, Any]]:
    """Boards in DFU mode; [] if dfu-util is missing, which `doctor` explains, or fails."""
    from romfsfs.devices.discovery import dfu_cameras

    try:
        found = dfu_cameras()
    except RomfsError as error:
        if output.verbose:
            output.note(f"boards in DFU mode cannot be listed: {error.line}")
        return []
    return [
        {"kind": "dfu", "port": None, "usb": f"{camera.vid:04x}:{camera.pid:04x}",
         "serial_number": camera.serial_number or None, "boards": list(camera.boards),
         "board": None, "path": camera.path or None, "settings": list(camera.settings),
         "error": None if camera.settings else "this user may not open it; romfsfs doctor"}
        for camera in found
    ]  # fmt: skip


def _camera_text(record: dict[str, Any]) -> str:
    name = record["board"] or " or ".join(record["boards"]) or "unknown board"
    if record["kind"] == "dfu":
        port = f"@{record['path']}" if record["path"] else ""
        source = f"dfu:{record['boards'][0]}{port}"
        return f"{name}: in DFU mode; {record['error'] or source}\n"
    number = f", camera:{record['serial_number']}" if record["serial_number"] else ""
    lines = [f"{record['port']}: {name}{number}"]
    if record["error"]:
        lines.append(f"  {record['error']}")
    if record["firmware"]:
        known = (record[name] for name in ("firmware", "bytecode", "architecture"))
        lines.append("  firmware {}, bytecode {}, {}".format(*known))
    for partition in record["partitions"]:
        held = partition["state"]
        if held == "image":
            held += f" of {partition['image_size']:,} B"
        elif held == "foreign":
            held = "not a ROMFS image"
        lines.append(f"  partition {partition['index']}: {partition['size']:,} B, {held}")
    lines += [f"  note: {note}" for note in record["notes"]]
    return "\n".join(lines) + "\n"


@click.command()
@board("The board it behaves as.", default="OPENMV4P", show_default=True)
@click.option(
    "--link", metavar="PATH", shell_complete=values.files,
    help="Make a symbolic link to its port at PATH.",
)  # fmt: skip
@click.option(
    "--flash", metavar="FILE", shell_complete=values.files,
    help="Keep its flash in FILE from one run to the next.",
)  # fmt: skip
@click.option(
    "--image", metavar="IMAGE", type=click.Path(exists=True),
    help="The image in partition 0 at the start.",
)  # fmt: skip
@click.option(
    "--rate", type=float, metavar="BYTES", help="Link speed in bytes/second. Default: unlimited."
)
@click.option(
    "--latency", type=float, default=0.0, metavar="SECONDS", help="Delay of the link, each way."
)
@click.option(
    "--erase-time", type=float, default=0.0, metavar="SECONDS",
    help="Time to erase 4 KiB (hardware: 0.045).",
)  # fmt: skip
@click.option("--old-firmware", is_flag=True, help="Firmware that can erase from the start only.")
@click.option(
    "--cut-after", type=int, metavar="BYTES", help="Cut the power after programming BYTES."
)
@click.pass_obj
def simulate(
    output: Output, board: str, link: str | None, flash: str | None, image: str | None,
    rate: float | None, latency: float, erase_time: float, old_firmware: bool,
    cut_after: int | None,
) -> None:  # fmt: skip
    """A simulated camera on a pty, until Ctrl-C: for trying and testing without hardware."""
    from romfsfs.simulator import Simulator, preset
    from romfsfs.simulator.server import run_simulator

    images = {0: Path(image).read_bytes()} if image else {}
    config = preset(
        get_board(board).name, images=images, rate=rate, latency=latency, erase_seconds=erase_time,
        erase_by_range=not old_firmware,
    )  # fmt: skip
    place = flash or link
    if place is not None:  # the unique id comes from it: each place is a camera, in every run
        digest = digest_bytes(os.fsencode(os.path.abspath(place)))
        config = replace(config, unique_id=bytes.fromhex(digest)[:12])

    def ready(camera: Simulator) -> None:
        if cut_after is not None:
            camera.faults.power_cut_after_programmed(cut_after)
        output.say(f"{board} on {camera.port}; try: romfsfs mount {shell_word(camera.port)} DIR")
        flush()

    done = run_simulator(config, link=link, flash_file=flash, ready=ready)
    erased = count_text(done.erased_blocks, "block")
    output.note(f"programmed {done.programmed:,} B, erased {erased}, "
                f"received {done.wire_in:,} B, sent {done.wire_out:,} B")  # fmt: skip
