"""Runs in the virtual machine: the scenarios that `/mnt/host/wanted` names, then powers off."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

HOST = Path("/mnt/host")
CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> None:
    (HOST / "ready").touch()
    for module in ("vhci-hcd", "cdc-acm", "fuse"):
        subprocess.run(["modprobe", module], check=True)
    here = CHECKOUT / "tests" / "vm"
    sys.path[:0] = [str(here), str(here.parent / "devices")]
    from lab import SCENARIOS, Lab

    for path in sorted((here / "scenarios").glob("*.py")):
        importlib.import_module(f"scenarios.{path.stem}")

    for name in (HOST / "wanted").read_text().split():
        started = time.monotonic()
        with open(HOST / f"{name}.log", "w") as log:

            def say(text: str, log=log, started=started) -> None:
                print(f"[{time.monotonic() - started:6.1f}] {text}", file=log, flush=True)

            lab = Lab(name, CHECKOUT / "micropython" / "micropython", say)
            error = ""
            try:
                SCENARIOS[name](lab)
            except Exception:  # a scenario that fails is a result; the next one runs
                error = traceback.format_exc()
                say(error)
            try:
                lab.close()
            except Exception:
                say(traceback.format_exc())
        seconds = time.monotonic() - started
        result = {"name": name, "ok": not error, "seconds": round(seconds, 1)}
        with open(HOST / "results", "a") as results:
            results.write(json.dumps(result) + "\n")  # one write: the host reads meanwhile


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        (HOST / "crash").write_text(traceback.format_exc())
    finally:
        subprocess.run(["sync"], check=False)
        subprocess.run(["systemctl", "poweroff", "--force", "--force"], check=False)
