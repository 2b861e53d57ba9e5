"""How long a file's time of change may stay as it is although the file changes again."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

#: Longer than a tick of the kernel's clock: 4 ms at HZ=250, 10 ms at HZ=100.
_TICK_SECONDS = 0.02
#: Some file systems count whole seconds (HFS+, ext4 with small inodes, NFS on such), FAT every
#: second one. A time without a fraction is one of theirs.
_COARSE_SECONDS = 2.0
#: <linux/time.h>, CLOCK_REALTIME_COARSE; Python has no name for it.
_LINUX_CLOCK = 5
#: seconds: the longest wait, which a clock that was set back would make endless; the shortest pause
_LONGEST_WAIT, _PAUSE = 5.0, 0.002


def clock_ns() -> int:
    """The clock that file times are taken from. On Linux it is behind `time.time_ns()`: by a tick,
    and in a virtual machine whose processor was away for a while by any time."""
    return time.clock_gettime_ns(_LINUX_CLOCK) if sys.platform == "linux" else time.time_ns()


def uncertain_for(changed_ns: int) -> float:
    """Seconds until a later change must leave another time than this one; not above 0: it must."""
    wanted = _TICK_SECONDS + (0.0 if changed_ns % 1_000_000_000 else _COARSE_SECONDS)
    return min(wanted, wanted - (clock_ns() - changed_ns) / 1e9)


def wait_until_certain(times: Collection[int]) -> None:
    """Return when a later change must leave another time than any of these."""
    end = time.monotonic() + _LONGEST_WAIT
    while (left := max(map(uncertain_for, times), default=0.0)) > 0 and time.monotonic() < end:
        time.sleep(max(left, _PAUSE))
