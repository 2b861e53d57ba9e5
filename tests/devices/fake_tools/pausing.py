"""Where a fake tool stops half-way, for who kills its caller then."""

import os
import sys
import time


def pause(folder, faults):
    """Stop if this is the call that `pause_at` counts, until the caller has gone (a minute at
    most)."""
    calls = len((folder / "calls").read_text().splitlines())
    if calls == faults.get("pause_at"):
        caller = os.getppid()
        (folder / "paused").touch()
        for _ in range(6000):
            if os.getppid() != caller:
                sys.exit(1)  # as the real one, whose next word meets a closed pipe
            time.sleep(0.01)
