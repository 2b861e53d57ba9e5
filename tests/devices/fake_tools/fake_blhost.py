"""A blhost with its flash in $FAKE_BLHOST/flash; the commands of spsdk's that are used.

$FAKE_BLHOST/faults.json: {"absent_for": calls until it answers, "status": {command: code},
"spoil_writes": how many writes drop a bit}. NOR: writing only clears bits.
"""

import json
import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_BLHOST"])
BASE = 0x60800000


def main():
    with open(FOLDER / "calls", "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    faults_path = FOLDER / "faults.json"
    faults = json.loads(faults_path.read_text()) if faults_path.exists() else {}
    option, usb_id, command, *arguments = sys.argv[1:]
    assert (option, usb_id) == ("-u", "0x15A2,0x0073")
    if faults.get("absent_for", 0) > 0:
        faults["absent_for"] -= 1
        faults_path.write_text(json.dumps(faults))
        print("ERROR: Given USB device not found", file=sys.stderr)
        sys.exit(1)
    status = faults.get("status", {}).get(command, 0)
    print(f"Response status = {status} (0x{status:x}) {'Success.' if not status else 'Fail.'}")
    if status:
        return  # blhost itself ends with 0 in some versions
    flash_path = FOLDER / "flash"
    flash = bytearray(flash_path.read_bytes())
    if command == "get-property":
        print("Response word 1 = 1258487808 (0x4b030000)")
    elif command == "read-memory":
        start, length = int(arguments[0], 0) - BASE, int(arguments[1], 0)
        Path(arguments[2]).write_bytes(flash[start : start + length])
    elif command == "flash-erase-region":
        start, length = int(arguments[0], 0) - BASE, int(arguments[1], 0)
        assert start % 4096 == 0 == length % 4096
        flash[start : start + length] = b"\xff" * length
    elif command == "write-memory":
        start, data = int(arguments[0], 0) - BASE, Path(arguments[1]).read_bytes()
        for index, byte in enumerate(data):
            flash[start + index] &= byte
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
