"""`scripts/bench`: which sections to run, and the table they fill."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from measure import CHECKOUT, Bench, Figure, Subject, machine, markdown

#: section -> (module beside this one, with a function NAME_section; what it measures)
SECTIONS = {
    "build": ("images", "a tree of 16 models to an image (1 GiB with --full)"),
    "small": ("images", "a tree of 20,000 small files to an image"),
    "ls": ("images", "listing a 24 MB image"),
    "mount": ("sessions", "from `mount` to a directory that can be listed"),
    "status": ("sessions", "status and `df` after a change in 20,000 files"),
    "commit": ("sessions", "committing a one-byte edit (1 GiB with --full)"),
    "convert": ("conversions", "until what was copied or saved is converted"),
    "fuse": ("mounted", "files through the mount, against a bare loopback"),
    "memory": ("mounted", "the daemon's memory while a large file is written (1 GiB with --full)"),
    "camera": ("camera", "a simulated camera, 1 MiB (8 MiB with --full: ten minutes)"),
    "startup": ("startup", "`--version` and `ls`, against Python doing nothing"),
}

#: Between these lines a document gets the table.
BEGIN, END = "<!-- scripts/bench writes from here -->\n", "<!-- to here -->\n"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure romfsfs against its peers.",
        epilog="sections: " + "; ".join(f"{name}: {what}" for name, (_, what) in SECTIONS.items()),
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="all of them without")
    parser.add_argument("--full", action="store_true", help="the 1 GiB figures too: minutes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a figure (5)")
    parser.add_argument(
        "--binding",
        default="fusepy",
        choices=["fusepy", "mfusepy"],
        help="romfsfs's FUSE binding (fusepy, as the loopback's)",
    )
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), type=Path,
                        help="two checkouts, one against the other, in turns")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="the figures, to keep")
    parser.add_argument("--write", metavar="DOCUMENT", type=Path, help="the table into a document")
    parser.add_argument("--dir", metavar="DIR", help="where to work (the temporary folder)")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return chosen


def subjects(chosen: argparse.Namespace) -> list[Subject]:
    if not chosen.compare:
        return [Subject("romfsfs", CHECKOUT)]
    for checkout in chosen.compare:
        if not (checkout / "romfsfs/__main__.py").is_file():
            raise SystemExit(f"scripts/bench: no checkout of romfsfs: {checkout}")
    return [
        Subject(name, checkout.resolve())
        for name, checkout in zip(("old", "new"), chosen.compare, strict=True)
    ]


def put_table(document: Path, said: str, figures: list[Figure]) -> None:
    """Replace the table that a document has. said: the machine."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}{said}\n\n{markdown(figures)}{END}{after}")


def main() -> int:
    chosen = parse(sys.argv[1:])
    place = Path(tempfile.mkdtemp(prefix="romfsfs-bench.", dir=chosen.dir)).resolve()
    bench = Bench(place, chosen.rounds, chosen.full, chosen.binding, subjects(chosen))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unmount then, too
    figures: list[Figure] = []
    said = machine(place, chosen.binding)
    print(said)
    print(Figure.row(Figure.HEADER), flush=True)
    started = time.monotonic()
    try:
        for name in chosen.sections or SECTIONS:
            print(name)
            begun = time.monotonic()
            section = getattr(importlib.import_module(SECTIONS[name][0]), f"{name}_section")
            for figure in section(bench):
                print(Figure.row(figure.cells), flush=True)
                figures.append(figure)
            print(f"  ({time.monotonic() - begun:.0f} s)")
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("interrupted")
        return 130
    finally:
        bench.close()
        shutil.rmtree(place, ignore_errors=True)
    missed = sum(figure.ok is False for figure in figures)
    seconds = time.monotonic() - started
    print(f"{len(figures)} figures in {seconds:.0f} s, {missed} missed their goal")
    if chosen.json:
        chosen.json.write_text(json.dumps([figure.record() for figure in figures], indent=1))
    if chosen.write:
        put_table(chosen.write, said, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
