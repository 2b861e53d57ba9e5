"""A dfu-util that keeps its devices in a folder; the interface of dfu-util 0.11 that is used.

$FAKE_DFU/devices.json: [{"vid", "pid", "serial", "path", "sector", "settings": [{"name", "file",
"size"}]}]; each file is a partition. $FAKE_DFU/faults.json: {"appear_after": listings until the
devices are there, "fail": "U"|"D", "stop_after": bytes written before the cable is pulled,
"spoil_writes": how many downloads drop a byte, "short": bytes of a read that end up in the file,
-1: there is none, "no_detach": as before 0.10, "pause_at": the call,
counted from 1, that stops half-way}. Calls are logged to $FAKE_DFU/calls. OpenMV's loader: a read
ends with 4 bytes too many, a sector is erased when its first byte is written.
"""

import getopt
import json
import os
import sys
import time
from pathlib import Path

from pausing import pause

FOLDER = Path(os.environ["FAKE_DFU"])


def load(name, default):
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else default


def save(name, value):
    (FOLDER / name).write_text(json.dumps(value))


def die(message, status=74):
    print(message, file=sys.stderr)
    sys.exit(status)


def main():
    with open(FOLDER / "calls", "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    faults = load("faults.json", {})
    try:
        options, rest = getopt.gnu_getopt(
            sys.argv[1:], "lwd:a:U:D:s:eRS:", ["list", "reset", "detach"]
        )
    except getopt.GetoptError as error:
        die(f"Error: {error}", 64)
    given = {name.lstrip("-"): value for name, value in options}
    if rest:
        die(f"Error: Unexpected argument: {rest[0]}", 64)
    if "S" in given:
        die("-S waits for ever", 64)
    print("dfu-util 0.11\n")
    devices = load("devices.json", [])
    if faults.get("appear_after", 0) > 0:
        if "l" in given:
            faults["appear_after"] -= 1
            save("faults.json", faults)
        devices = []
    if "D" not in given:
        pause(FOLDER, faults)
    if "l" in given:
        list_devices(devices)
        return
    if not {"U", "D", "e"} & set(given):
        die("Error: You need to specify one of -D or -U", 64)
    vid, pid = given["d"].lstrip(",").split(":")
    device = next((d for d in devices if (d["vid"], d["pid"]) == (vid, pid)), None)
    if device is None:
        assert "w" in given
        print("Waiting for device, exit with ctrl-C", flush=True)
        time.sleep(60)
        die("it did not come", 74)
    alt = int(given["a"])
    if alt >= len(device["settings"]):
        die("No such Alternate Setting")
    if "U" in given:
        upload(device, device["settings"][alt], given, faults)
    elif "D" in given:
        download(device, device["settings"][alt], given, faults)
    elif faults.get("no_detach"):
        die("Unsupported mode: 5", 1)
    if "reset" in given or "R" in given or "leave" in given.get("s", ""):
        (FOLDER / "resets").open("a").write("reset\n")
        save("devices.json", [])


def list_devices(devices):
    print("Found Runtime: [1d6b:0002] ver=0100, devnum=1, cfg=1, intf=0, path=\"1-0\", alt=0, "
          'name="UNKNOWN", serial="X"')  # fmt: skip
    for device in devices:
        for alt, setting in reversed(list(enumerate(device["settings"]))):
            print(
                f"Found DFU: [{device['vid']}:{device['pid']}] ver=0200, devnum=12, cfg=1, intf=0, "
                f'path="{device["path"]}", alt={alt}, name="{setting["name"]}", '
                f'serial="{device["serial"]}"'
            )


def span(setting, given):
    """Where -s points in the file: (offset, length or None)."""
    fields = [field for field in given.get("s", "").split(":") if field and field != "leave"]
    if not fields:
        return 0, None
    return int(fields[0], 0) - setting["address"], int(fields[1]) if len(fields) > 1 else None


def upload(device, setting, given, faults):
    if faults.get("fail") == "U":
        die("error during upload (LIBUSB_ERROR_PIPE)")
    target = Path(given["U"])
    if target.exists() and target.stat().st_size:
        die(f"{target}: File exists")
    offset, length = span(setting, given)
    content = (FOLDER / setting["file"]).read_bytes()
    data = content[offset:] if length is None else content[offset : offset + length]
    if faults.get("short", 0) >= 0:
        data = data if length is not None else data + bytes(4)
        target.write_bytes(data[: faults.get("short", len(data))])
    print("Upload\t[=========================] 100%")


def download(device, setting, given, faults):
    if faults.get("fail") == "D":
        die("Error sending dfu abort request")
    data = Path(given["D"]).read_bytes()
    offset, _ = span(setting, given)
    if offset + len(data) > setting["size"]:
        die("dfu-util: Address out of range")
    path = FOLDER / setting["file"]
    flash = bytearray(path.read_bytes())
    stop = faults.get("stop_after")
    left = len(data) if stop is None else min(len(data), stop)
    sector = device["sector"]
    for start in range(0, left, min(sector, 4096)):
        end = min(start + min(sector, 4096), left)
        place = offset + start
        if place % sector == 0:
            flash[place : place + sector] = b"\xff" * min(sector, len(flash) - place)
        flash[place : offset + end] = data[start:end]
        if start <= left // 2 < end:
            path.write_bytes(flash)
            pause(FOLDER, faults)
    if faults.get("spoil_writes", 0) > 0:
        faults["spoil_writes"] -= 1
        save("faults.json", faults)
        flash[offset + len(data) // 2] ^= 1
    path.write_bytes(flash)
    if stop is not None:
        faults["stop_after"] = stop - left
        if left < len(data):
            del faults["stop_after"]
            save("faults.json", faults)
            die("dfu-util: error sending download packet (LIBUSB_ERROR_NO_DEVICE)")
        save("faults.json", faults)
    print("Download\t[=============            ]  50%\rDownload\t[=====] 100%\nDone!")


main()
