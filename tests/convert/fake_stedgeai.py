"""A stand-in for ST Edge AI with its interface: arguments, working folder, environment, results.

What it does is in the file `plan.json` beside it: {"folder": ..., "act": ..., "content": ...}.
It writes what it was called with to `calls.jsonl` beside it.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).parent


def main() -> int:
    plan = json.loads((HERE / "plan.json").read_text())
    act = plan.get("act", "convert")
    arguments = sys.argv[1:]
    options = dict(itertools.pairwise(arguments))
    profile, _, settings = options["--st-neural-art"].partition("@")
    call = {
        "argv": arguments,
        "profile": json.loads(Path(settings).read_text())["Profiles"][profile],
        "files": sorted(os.listdir(".")),
        "environment": dict(os.environ),
        "mode": oct(os.stat(".").st_mode & 0o777),
    }
    call["pool"] = json.loads(Path(call["profile"]["memory_pool"]).read_text())
    with (HERE / "calls.jsonl").open("a") as log:
        log.write(json.dumps(call) + "\n")
    print("ST Edge AI Core v3.0.0-00000 fake")
    if act == "fail":
        print("E010(InvalidModelError): Couldn't load TFLite model", file=sys.stderr)
        print("elapsed time (generate): 0.1s")
        return 1
    if act == "no-compiler":
        print("make: *** [arm-none-eabi-gcc: not found] Error 127", file=sys.stderr)
        return 2
    if act == "prompt":
        answer = input("Overwrite the output folder? [y/n] ")
        print("answered", answer)
    if act == "hang":
        print("compiling epoch 3 of 9", flush=True)
        time.sleep(600)
    if act == "nothing":
        return 0
    folder = Path(plan.get("folder", "st_ai_output"))
    folder.mkdir(parents=True, exist_ok=True)
    content = plan.get("content", "NBIN").encode()
    (folder / "network_rel.bin").write_bytes(content + Path(options["--model"]).read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
