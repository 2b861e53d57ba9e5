"""A dfu-util that keeps its devices in a folder; what of dfu-util 0.11 is used, and no kinder.

$FAKE_DFU/devices.json: [{"vid", "pid", "serial", "path", "denied", "settings": [{"name", "file",
"size", "erase", "address"}]}]; each file is a partition. Calls are logged to $FAKE_DFU/calls.

As OpenMV's loaders: blocks of 4,096 B from the partition's start on; `erase` bytes are erased when
the first of them is written; programming clears bits, page by page (erase 16: MRAM, which is
replaced); a read runs to the end of the partition and 4 bytes further. As dfu-util: `-w` waits for
ever; `--reset -e` fails when the device has left; a device that may not be opened is a line of
`-l`, which ends with 0.

$FAKE_DFU/faults.json: {"appear_after": listings until the devices are there, "fail": "U"|"D",
"stop_after": bytes written before the cable is pulled, "pull_read": the cable is pulled in a read,
"spoil_writes": how many downloads drop a byte, "short": bytes of a read that end up in the file,
-1: there is none, "stuck_after": bytes of a read after which nothing more comes, "no_detach": as
before 0.10, "detach_status": of a detach that works, "pause_at": the call, counted from 1, that
stops half-way}.
"""

import fcntl
import getopt
import json
import os
import sys
import time
from pathlib import Path

from pausing import pause

FOLDER = Path(os.environ["FAKE_DFU"])
BLOCK, PAGE = 4096, 256


def load(name, default):
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else default


def save(name, value):
    made = FOLDER / f"{name}.{os.getpid()}"
    made.write_text(json.dumps(value))
    made.replace(FOLDER / name)


def die(message, status=74):
    print(message, file=sys.stderr)
    sys.exit(status)


def leave(device):
    """It is gone from the bus, by itself or with its cable."""
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may leave at the same time
        save("devices.json", [each for each in load("devices.json", []) if each != device])


def main():
    with open(FOLDER / "calls", "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    faults = load("faults.json", {})
    try:
        options, rest = getopt.gnu_getopt(
            sys.argv[1:], "lwd:p:a:U:D:s:eRS:", ["list", "reset", "detach"]
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
    device = choose(devices, given)
    alt = int(given["a"])
    if alt >= len(device["settings"]):
        die("No such Alternate Setting")
    resets = {"reset", "R"} & set(given) or "leave" in given.get("s", "")
    if "U" in given:
        upload(device, device["settings"][alt], given, faults)
    elif "D" in given:
        download(device, device["settings"][alt], given, faults)
    elif faults.get("no_detach"):
        die("Unsupported mode: 5", 1)
    if "e" in given or resets:
        (FOLDER / "resets").open("a").write("reset\n")
        leave(device)
    if "e" in given:
        if resets:
            die("dfu-util: can't detach", 251)
        sys.exit(faults.get("detach_status", 0))


def choose(devices, given):
    vid, pid = given["d"].lstrip(",").split(":")
    found = [d for d in devices if (d["vid"], d["pid"]) == (vid, pid) and not d.get("denied")]
    if "p" in given:
        found = [d for d in found if d["path"] == given["p"]]
    while not found and "w" in given:
        found = wait_for(vid, pid)
    if not found:
        die("dfu-util: No DFU capable USB device available")
    if len(found) > 1:
        die("dfu-util: More than one DFU capable USB device found!", 69)
    return found[0]


def wait_for(vid, pid):
    """Until one is there that may be opened; of one that may not it complains each time."""
    print("Waiting for device, exit with ctrl-C", flush=True)
    time.sleep(0.05)
    faults = load("faults.json", {})
    if faults.get("appear_after", 0) > 0:
        save("faults.json", {**faults, "appear_after": faults["appear_after"] - 1})
        return []
    list_devices([d for d in load("devices.json", []) if d.get("denied")])
    return [
        d for d in load("devices.json", [])
        if (d["vid"], d["pid"]) == (vid, pid) and not d.get("denied")
    ]  # fmt: skip


def list_devices(devices):
    print("Found Runtime: [1d6b:0002] ver=0100, devnum=1, cfg=1, intf=0, path=\"1-0\", alt=0, "
          'name="UNKNOWN", serial="X"')  # fmt: skip
    for device in devices:
        if device.get("denied"):
            print(
                f"dfu-util: Cannot open DFU device {device['vid']}:{device['pid']} found on "
                "devnum 12 (LIBUSB_ERROR_ACCESS)",
                file=sys.stderr,
            )
            continue
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
    if length is None:  # the file keeps only the beginning of a large partition
        data += b"\xff" * (setting.get("real", 0) - len(data)) + bytes(4)
    if faults.get("short", 0) < 0:
        return
    data = data[: faults.get("short", len(data))]
    with open(target, "wb", buffering=0) as file:
        for start in range(0, len(data), BLOCK):
            file.write(data[start : start + BLOCK])
            if faults.get("pull_read"):
                leave(device)
                die("dfu-util: error during upload (LIBUSB_ERROR_NO_DEVICE)")
            if start + BLOCK >= faults.get("stuck_after", 1 << 30):
                time.sleep(600)
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
    erase = setting["erase"]
    for start in range(0, len(data), BLOCK):
        place = offset + start
        if erase > 16 and place % erase == 0:
            flash[place : place + erase] = b"\xff" * min(erase, len(flash) - place)
        program(device, path, flash, place, data[start : start + BLOCK], erase, start, stop)
        if start <= len(data) // 2 < start + BLOCK:
            path.write_bytes(flash)
            pause(FOLDER, faults)
    if faults.get("spoil_writes", 0) > 0:
        faults["spoil_writes"] -= 1
        save("faults.json", faults)
        flash[offset + len(data) // 2] ^= 1
    path.write_bytes(flash)
    if stop is not None:
        faults["stop_after"] = stop - len(data)
        save("faults.json", faults)
    print("Download\t[=============            ]  50%\rDownload\t[=====] 100%\nDone!")


def program(device, path, flash, place, block, erase, done, stop):
    """A block, page by page, as far as the cable holds. done: bytes written before it."""
    unit = min(PAGE, erase)
    for page in range(0, len(block), unit):
        if stop is not None and done + page >= stop:
            path.write_bytes(flash)
            leave(device)
            if device["vid"] == "2341":  # what it says with DfuSe
                die("Error during download get_status")
            die("dfu-util: error sending download packet (LIBUSB_ERROR_NO_DEVICE)")
        for index, byte in enumerate(block[page : page + unit], place + page):
            flash[index] = byte if erase <= 16 else flash[index] & byte


main()
