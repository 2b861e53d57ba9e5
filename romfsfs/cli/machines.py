"""Commands on machines: boards, cameras, doctor, simulate."""

from __future__ import annotations

from typing import Any

import click

from romfsfs.boards import Board, Partition, VelaNpu, get_board
from romfsfs.boards import boards as all_boards
from romfsfs.cli.output import Output
from romfsfs.errors import EXIT_FAILURE, EXIT_OK

_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")


@click.command()
@click.argument("name", required=False)
@_JSON
@click.pass_obj
def boards(output: Output, name: str | None, as_json: bool) -> None:
    """The boards that are known; NAME in detail."""
    if name is not None:
        board = get_board(name)
        output.json(_board_record(board)) if as_json else output.show(_board_text(board))
        return
    known = list(all_boards().values())
    if as_json:
        output.json([_board_record(board) for board in known])
        return
    for board in known:
        sizes = " + ".join(f"{partition.size:,} B" for partition in board.partitions)
        npu = next((_npu_name(partition) for partition in board.partitions if partition.npu), "")
        output.show(f"{board.name:22} {board.display_name:40} {sizes}{', ' + npu if npu else ''}\n")


def _npu_name(partition: Partition) -> str:
    if partition.npu is None:
        return ""
    return "Ethos-U" if isinstance(partition.npu, VelaNpu) else "Neural-ART"


def _board_record(board: Board) -> dict[str, Any]:
    return {
        "name": board.name,
        "display_name": board.display_name,
        "architecture": board.march,
        "usb": [f"{vid:04x}:{pid:04x}" for vid, pid in board.runtime_ids],
        "partitions": [
            {
                "index": partition.index,
                "name": partition.name,
                "size": partition.size,
                "erase_size": partition.erase_size,
                "alignment": {
                    "default": partition.alignment.default,
                    **dict(partition.alignment.suffixes),
                },
                "npu": _npu_name(partition) or None,
            }
            for partition in board.partitions
        ],
    }


def _board_text(board: Board) -> str:
    usb = ", ".join(f"{vid:04x}:{pid:04x}" for vid, pid in board.runtime_ids) or "none"
    lines = [f"{board.name}: {board.display_name}", f"  scripts for {board.march}, USB {usb}"]
    for partition in board.partitions:
        rules = ", ".join(f"{suffix} {size}" for suffix, size in partition.alignment.suffixes)
        lines.append(
            f"  partition {partition.index} ({partition.name}): {partition.size:,} B, "
            f"erased by {partition.erase_size:,} B"
        )
        lines.append(f"    alignment {partition.alignment.default}, {rules}")
        if isinstance(partition.npu, VelaNpu):
            lines.append(
                f"    models for Ethos-U ({partition.npu.accelerator_config}), "
                f"{partition.npu.sram_heap_bytes:,} B of SRAM"
            )
        elif partition.npu is not None:
            lines.append(f"    models for Neural-ART ({partition.npu.target}), with ST Edge AI")
    return "\n".join(lines) + "\n"


@click.command()
@_JSON
@click.pass_obj
def doctor(output: Output, as_json: bool) -> int:
    """What is missing on this machine, and the command that installs it.

    Exit code 1 when something is missing that romfsfs cannot mount without.
    """
    from romfsfs.cli.doctor import checks

    found = list(checks())
    if as_json:
        output.json([
            {"name": c.name, "ok": c.ok, "needed": c.needed, "detail": c.detail, "remedy": c.remedy}
            for c in found
        ])  # fmt: skip
    else:
        for check in found:
            mark = "ok" if check.ok else "MISSING" if check.needed else "-"
            output.show(f"{mark:>8}  {check.name:14} {check.detail}\n")
            if check.remedy:
                output.show(f"{'':>8}  {'':14} {check.remedy}\n")
    return EXIT_FAILURE if any(check.needed and not check.ok for check in found) else EXIT_OK
