"""When the RT1060's loader is there: in $FAKE_BLHOST, `sent` is made when the camera is sent there.

It is for who was looking at that moment: one who starts to look afterwards comes too late, as
blhost does, which takes longer to start than the loader waits. Who talked to it in time holds it.
"""

import json
import os
import time
from pathlib import Path

FOLDER = Path(os.environ["FAKE_BLHOST"])
TOO_LATE = (FOLDER / "sent").exists()


def is_open():
    return not TOO_LATE and (FOLDER / "sent").exists()


def can_be_opened():
    """Not at the first attempt: the system is still making its device node."""
    tried = FOLDER / "tried"
    if tried.exists():
        return True
    tried.touch()
    return False


def hold():
    gap = time.time_ns() - (FOLDER / "sent").stat().st_mtime_ns
    (FOLDER / "held").write_text(json.dumps(gap / 1e9))
