"""A dfu-util that keeps its devices in a folder: what of dfu-util 0.11 is used, and no kinder.

That it says and does what the real one does, with its exit codes, is a scenario of `scripts/vm`
(tests/vm/scenarios/tools.py).

$FAKE_DFU/devices.json: [{"vid", "pid", "serial", "path", "denied", "settings": [{"name", "file",
"size", "erase", "address", "read_only"}]}]; each file is a partition. Calls are logged to
$FAKE_DFU/calls.

As OpenMV's loaders: blocks of 4,096 B from the partition's start on; `erase` bytes are erased when
the first of them is written; programming clears bits, page by page (erase 16: MRAM, which is
replaced); a read runs to the end of the partition and 4 bytes further. Arduino's (DfuSe): all that
is to be written is erased first. As dfu-util: `-w` waits for ever; `--reset -e` fails when the
device has left; a device that may not be opened is a line of `-l`, which ends with 0; a setting
that is not there is a device that is not there.

$FAKE_DFU/faults.json: {"appear_after": listings until the devices are there, "fail": "U"|"D",
"stop_after": bytes written before the cable is pulled, "pull_read": bytes of a read before it is,
"spoil_writes": how many downloads drop a byte, "short": bytes of a read that end up in the file,
-1: there is none, "stuck_after": bytes of a read after which nothing more comes, "no_detach": as
before 0.10, "detach_status": of a detach that works, "gone_at_reset": it has left before `--reset`
comes to it, "pause_at": the call, counted from 1, that stops half-way}.
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
USAGE, NO_INPUT, CANNOT_CREATE, IO_ERROR = 64, 66, 73, 74
NO_DEVICE = "No DFU capable USB device available"
ARDUINO = "2341"
HEAD = """\
dfu-util 0.11

Copyright 2005-2009 Weston Schmidt, Harald Welte and OpenMoko Inc.
Copyright 2010-2021 Tormod Volden and Stefan Schmidt
This program is Free Software and has ABSOLUTELY NO WARRANTY
Please report bugs to http://sourceforge.net/p/dfu-util/tickets/
"""
IDLE = "DFU state(2) = dfuIDLE, status(0) = No error condition is present"
#: of a loader that refuses a block
TOO_FAR = "status(8) = Cannot program memory due to received address that is out of range"
NOT_WRITABLE = "status(3) = Device is unable to write memory"


def load(name, default):
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else default


def save(name, value):
    made = FOLDER / f"{name}.{os.getpid()}"
    made.write_text(json.dumps(value))
    made.replace(FOLDER / name)


def say(text, end="\n"):
    print(text, end=end, flush=True)


def warn(message):
    print(f"dfu-util: {message}", file=sys.stderr, flush=True)


def die(message, status=IO_ERROR):
    warn(message)
    sys.exit(status)


def bar(what, done, total):
    share = done / total if total else 1.0
    say(f"\r{what}\t[{'=' * int(25 * share):25}] {int(100 * share):3}% {done:12} bytes", end="")


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
        die(f"Error: {error}", USAGE)
    given = {name.lstrip("-"): value for name, value in options}
    if rest:
        die(f"Error: Unexpected argument: {rest[0]}", USAGE)
    if "S" in given:
        die("-S waits for ever", USAGE)
    say(HEAD)
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
        die("You need to specify one of -D or -U", USAGE)
    data = content_of(given["D"]) if "D" in given else b""
    device = choose(devices, given)
    setting = device["settings"][int(given["a"])]
    begin(device, given["a"])
    resets = {"reset", "R"} & set(given)
    if "U" in given:
        upload(device, setting, given, faults)
    elif "D" in given:
        download(device, setting, given, faults, data)
    elif faults.get("no_detach"):
        die("Unsupported mode: 5", 1)
    if "e" in given or resets:
        end(device, given, resets, faults)


def end(device, given, resets, faults):
    (FOLDER / "resets").open("a").write("reset\n")
    leave(device)
    if resets:
        say("Resetting USB to switch back to Run-Time mode")
        if "e" in given:
            warn("can't detach")
        if faults.get("gone_at_reset"):
            die("error resetting after download: LIBUSB_ERROR_NO_DEVICE", IO_ERROR)
        sys.exit(251)
    sys.exit(faults.get("detach_status", 0))


def content_of(name):
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        die(f"Could not open file {name} for reading: {error.strerror}", NO_INPUT)
    warn("Warning: Invalid DFU suffix signature")
    warn("A valid DFU suffix will be required in a future dfu-util release")
    return data


def choose(devices, given):
    vid, pid = given["d"].lstrip(",").split(":")

    def matching(devices):
        return [
            d for d in devices
            if (d["vid"], d["pid"]) == (vid, pid) and given.get("p", d["path"]) == d["path"]
            and not d.get("denied") and int(given["a"]) < len(d["settings"])
        ]  # fmt: skip

    complain(devices, given)
    found = matching(devices)
    while not found and "w" in given:
        found = matching(wait_for(given))
    if not found:
        die(NO_DEVICE)
    if len(found) > 1:
        die("More than one DFU capable USB device found! Try `--list' and specify the serial "
            "number or disconnect all but one device\n")  # fmt: skip
    return found[0]


def wait_for(given):
    """What is there after a moment; of one that may not be opened it complains each time."""
    say("Waiting for device, exit with ctrl-C")
    time.sleep(0.05)
    faults = load("faults.json", {})
    if faults.get("appear_after", 0) > 0:
        save("faults.json", {**faults, "appear_after": faults["appear_after"] - 1})
        return []
    devices = load("devices.json", [])
    complain(devices, given)
    return devices


def complain(devices, given):
    """Of those at the port that is named by `-p`, if any: others are not even looked at."""
    for device in devices:
        if device.get("denied") and given.get("p", device["path"]) == device["path"]:
            warn(f"Cannot open DFU device {device['vid']}:{device['pid']} found on "
                 "devnum 12 (LIBUSB_ERROR_ACCESS)")  # fmt: skip


def list_devices(devices):
    complain(devices, {})
    for device in devices:
        for alt, setting in reversed(list(enumerate(device["settings"]))):
            if device.get("denied"):
                continue
            say(
                f"Found DFU: [{device['vid']}:{device['pid']}] ver=0200, devnum=12, cfg=1, intf=0, "
                f'path="{device["path"]}", alt={alt}, name="{setting["name"] or "UNKNOWN"}", '
                f'serial="{device["serial"] or "UNKNOWN"}"'
            )


def begin(device, alt):
    version = "011a" if device["vid"] == ARDUINO else "0101"
    say(f"""\
Opening DFU capable USB device...
Device ID {device["vid"]}:{device["pid"]}
Device DFU version {version}
Claiming USB DFU Interface...
Setting Alternate Interface #{alt} ...
Determining device status...
{IDLE}
DFU mode device DFU version {version}
Device returned transfer size {BLOCK}""")


def memory(device, setting):
    if device["vid"] == ARDUINO:
        say(f'DfuSe interface name: "{setting["name"].lstrip("@").partition("/")[0]}"')


def span(setting, given):
    """Where -s points in the file: (offset, length or None)."""
    fields = [field for field in given.get("s", "").split(":") if field and field != "leave"]
    if not fields:
        return 0, None
    return int(fields[0], 0) - setting["address"], int(fields[1]) if len(fields) > 1 else None


def upload(device, setting, given, faults):
    target = Path(given["U"])
    if target.exists():
        die(f"Cannot open file {target} for writing: File exists", CANNOT_CREATE)
    memory(device, setting)
    arduino = device["vid"] == ARDUINO
    if not arduino:
        say("Copying data from DFU device to PC")
    offset, length = span(setting, given)
    content = (FOLDER / setting["file"]).read_bytes()
    data = content[offset:] if length is None else content[offset : offset + length]
    if length is None:  # the file keeps only the beginning of a large partition
        data += b"\xff" * (setting.get("real", 0) - len(data)) + bytes(4)
    if faults.get("short", 0) < 0:
        return
    data = data[: faults.get("short", len(data))]
    bar("Upload", 0, 1)
    with open(target, "wb", buffering=0) as file:
        for start in range(0, len(data), BLOCK):
            if faults.get("fail") == "U":
                cut(arduino, start, "PIPE")
            if start >= faults.get("pull_read", 1 << 30):
                leave(device)
                cut(arduino, start, "NO_DEVICE")
            file.write(data[start : start + BLOCK])
            if start + BLOCK >= faults.get("stuck_after", 1 << 30):
                time.sleep(600)
    bar("Upload", len(data), len(data))
    say("\nUpload done.")
    if not arduino:
        say(f"Received a total of {len(data)} bytes")
    if "leave" in given.get("s", ""):
        say("Submitting leave request...")
        (FOLDER / "resets").open("a").write("reset\n")
        leave(device)
        if not faults.get("detach_status", IO_ERROR):
            sys.exit(0)
        die("Error during download get_status", faults.get("detach_status", IO_ERROR))


def cut(arduino, done, error):
    """A read has ended that way after so many bytes."""
    if arduino:
        number = {"NO_DEVICE": -4, "PIPE": -9}[error]
        die(f"dfuse_upload: libusb_control_transfer returned {number} (LIBUSB_ERROR_{error})")
    warn(f"\nError during upload (LIBUSB_ERROR_{error})")
    if not done:
        say("\n\nFailed.")
    else:
        say(f"\nReceived a total of {done} bytes")
    sys.exit(IO_ERROR)


def download(device, setting, given, faults, data):
    memory(device, setting)
    arduino = device["vid"] == ARDUINO
    offset, _ = span(setting, given)
    path = FOLDER / setting["file"]
    flash = bytearray(path.read_bytes())
    erase = setting["erase"]
    if arduino:
        start = setting["address"] + offset
        say(f"Downloading element to address = 0x{start:08x}, size = {len(data)}")
        last = start + len(data) - 1
        if not 0 <= offset <= setting["size"] - len(data):
            die(f"Last page at 0x{last:08x} is not writeable", USAGE)
        bar("Erase   ", 0, 1)
        for place in range(offset, offset + len(data), erase):
            flash[place : place + erase] = b"\xff" * min(erase, len(flash) - place)
        bar("Erase   ", len(data), len(data))
        say("\nErase    done.")
    else:
        say("Copying data from PC to DFU device")
    bar("Download", 0, 1)
    if faults.get("fail") == "D" or setting.get("read_only"):
        refused(NOT_WRITABLE)
    stop = faults.get("stop_after")
    for start in range(0, len(data), BLOCK):
        place = offset + start
        block = data[start : start + BLOCK]
        if place + len(block) > setting["size"]:
            path.write_bytes(flash)
            refused(TOO_FAR)
        if erase > 16 and place % erase == 0 and not arduino:
            flash[place : place + erase] = b"\xff" * min(erase, len(flash) - place)
        program(device, path, flash, place, block, erase, start, stop)
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
    bar("Download", len(data), len(data))
    say("\nDownload done.")
    say("File downloaded successfully" if arduino else f"{IDLE}\nDone!")


def refused(status):
    say(f" failed!\nDFU state(10) = dfuERROR, {status}")
    sys.exit(IO_ERROR)


def program(device, path, flash, place, block, erase, done, stop):
    """A block, page by page, as far as the cable holds. done: bytes written before it."""
    unit = min(PAGE, erase)
    for page in range(0, len(block), unit):
        if stop is not None and done + page >= stop:
            path.write_bytes(flash)
            leave(device)
            end = "" if device["vid"] == ARDUINO else " (LIBUSB_ERROR_NO_DEVICE)"
            die(f"Error during download get_status{end}")
        for index, byte in enumerate(block[page : page + unit], place + page):
            flash[index] = byte if erase <= 16 else flash[index] & byte


main()
