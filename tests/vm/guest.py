"""Runs in the virtual machine: one scenario after the other that `/mnt/host/wanted` has, until
none is left or one has failed."""

from __future__ import annotations

import faulthandler
import importlib
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

HOST = Path("/mnt/host")
CHECKOUT = Path(__file__).resolve().parents[2]
#: a scenario that takes longer hangs
SECONDS = 900


def main() -> None:
    for module in ("vhci-hcd", "cdc-acm", "fuse"):
        subprocess.run(["modprobe", module], check=True)
    here = CHECKOUT / "tests" / "vm"
    sys.path[:0] = [str(here), str(here.parent / "devices")]
    for path in sorted((here / "scenarios").glob("*.py")):
        importlib.import_module(f"scenarios.{path.stem}")
    for path in sorted((HOST / "wanted").iterdir()):
        name = path.name.partition(" ")[2]
        log = HOST / f"{name}.log"
        try:
            path.rename(log)
        except FileNotFoundError:
            continue  # the other machine has it
        if not run(name, log):
            return


def run(name: str, path: Path) -> bool:
    """Whether it passed."""
    from lab import SCENARIOS, Lab

    started = time.monotonic()
    with open(path, "w") as log:
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=log)

        def say(text: str) -> None:
            print(f"[{time.monotonic() - started:6.1f}] {text}", file=log, flush=True)

        lab = Lab(name, CHECKOUT / "micropython" / "micropython", say)
        ok = False
        try:
            SCENARIOS[name](lab)
            ok = True
        except Exception:  # a scenario that fails is a result
            say(traceback.format_exc())
        try:
            lab.close()
        except Exception:
            say(traceback.format_exc())
            ok = False
        faulthandler.cancel_dump_traceback_later()
    result = path.with_suffix(".new")
    result.write_text(json.dumps({"ok": ok, "seconds": round(time.monotonic() - started, 1)}))
    result.rename(path.with_suffix(".json"))
    return ok


if __name__ == "__main__":
    main()
