"""A blhost with its flash in $FAKE_BLHOST/flash; the commands of spsdk's that are used.

It looks for the loader once. $FAKE_BLHOST/faults.json: {"absent": it must be sent there, and is
there for who looks already (`fake_window`), "status": {command: code},
"spoil_writes": how many writes drop a bit, "stop_after": bytes written before the cable is pulled,
"short": bytes of a read that end up in the file, -1: there is none, "pause_at": the call, counted
from 1, that stops half-way}. NOR: writing only clears bits; by pages, each whole or not at all.
Erasing takes as long as on the camera, by a clock that nobody waits for: where that is longer than
`-t` allows, blhost gives up while the loader goes on.
"""

import getopt
import json
import os
import sys
from pathlib import Path

from pausing import pause

FOLDER = Path(os.environ["FAKE_BLHOST"])
BASE = 0x60800000
PAGE = 256
#: 4 MiB took 70 s on a camera
ERASE_MS_A_SECTOR = 68
#: milliseconds, without -t
PATIENCE = 5000
NO_RESPONSE = 10004


def program(flash, start, data, faults):
    """Write by pages, as far as the cable holds."""
    left = faults.get("stop_after", len(data))
    for place in range(0, len(data), PAGE):
        if place >= left:
            (FOLDER / "flash").write_bytes(flash)
            print("ERROR: USB write failed", file=sys.stderr)
            sys.exit(1)
        for index, byte in enumerate(data[place : place + PAGE], start + place):
            flash[index] &= byte
        if place <= len(data) // 2 < place + PAGE:
            (FOLDER / "flash").write_bytes(flash)
            pause(FOLDER, faults)
    if "stop_after" in faults:
        faults["stop_after"] = left - len(data)
        (FOLDER / "faults.json").write_text(json.dumps(faults))


def main():
    with open(FOLDER / "calls", "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    faults_path = FOLDER / "faults.json"
    faults = json.loads(faults_path.read_text()) if faults_path.exists() else {}
    options, (command, *arguments) = getopt.getopt(sys.argv[1:], "u:t:")
    given = dict(options)
    assert given["-u"] == "0x15A2,0x0073"
    if faults.get("absent") and not (FOLDER / "held").exists():
        print("ERROR: Given USB device not found", file=sys.stderr)
        sys.exit(1)
    if command not in ("flash-erase-region", "write-memory"):
        pause(FOLDER, faults)
    status = faults.get("status", {}).get(command, 0)
    erased = int(arguments[1], 0) // 4096 if command == "flash-erase-region" else 0
    if erased * ERASE_MS_A_SECTOR > int(given.get("-t", PATIENCE)):
        status = NO_RESPONSE
    print(f"Response status = {status} (0x{status:x}) {'Success.' if not status else 'Fail.'}")
    if status:
        return  # blhost itself ends with 0 in some versions
    flash_path = FOLDER / "flash"
    flash = bytearray(flash_path.read_bytes())
    if command == "get-property":
        print("Response word 1 = 1258487808 (0x4b030000)")
    elif command == "read-memory":
        start, length = int(arguments[0], 0) - BASE, int(arguments[1], 0)
        if faults.get("short", 0) >= 0:
            # the file keeps only the beginning of the flash
            data = flash[start : start + length].ljust(length, b"\xff")
            Path(arguments[2]).write_bytes(data[: faults.get("short", length)])
    elif command == "flash-erase-region":
        start, length = int(arguments[0], 0) - BASE, int(arguments[1], 0)
        assert start % 4096 == 0 == length % 4096
        flash[start : start + length // 2] = b"\xff" * (length // 2)
        flash_path.write_bytes(flash)
        pause(FOLDER, faults)
        flash[start : start + length] = b"\xff" * length
    elif command == "write-memory":
        start, data = int(arguments[0], 0) - BASE, Path(arguments[1]).read_bytes()
        assert start % PAGE == 0 == len(data) % PAGE
        program(flash, start, data, faults)
        if faults.get("spoil_writes", 0) > 0:
            faults["spoil_writes"] -= 1
            faults_path.write_text(json.dumps(faults))
            flash[start + len(data) // 2] ^= 1
    elif command == "reset":
        (FOLDER / "resets").write_text("reset")
    else:
        print("Unknown command")
        sys.exit(2)
    flash_path.write_bytes(flash)


main()
