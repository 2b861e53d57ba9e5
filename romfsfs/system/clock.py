"""How long a file's change time may stay the same although the file changes again."""

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
#: seconds: the longest wait (a clock that is set back would make it endless), the shortest pause
_LONGEST_WAIT, _PAUSE = 5.0, 0.002


def clock_ns() -> int:
    """The clock that file times are taken from, in nanoseconds. On Linux it lags `time.time_ns()`:
    by up to a tick, and by any time in a virtual machine whose processor was paused."""
    return time.clock_gettime_ns(_LINUX_CLOCK) if sys.platform == "linux" else time.time_ns()


def uncertain_for(changed_ns: int) -> float:
    """Seconds until any later change must get another time than this; 0 or less: it must now."""
    wanted = _TICK_SECONDS + (0.0 if changed_ns % 1_000_000_000 else _COARSE_SECONDS)
    return min(wanted, wanted - (clock_ns() - changed_ns) / 1e9)


def wait_until_certain(times: Collection[int]) -> None:
    """Wait until any later change must get another time than these, in ns; 5 s at most.

    For times further ahead than that, of a server's clock or from before ours was set back, one
    tick of theirs: the wait would end no sooner."""
    now = clock_ns()
    ahead = [each for each in times if each - now >= _LONGEST_WAIT * 1e9]
    if ahead:
        time.sleep(max(map(uncertain_for, ahead)))
        times = set(times) - set(ahead)
    end = time.monotonic() + _LONGEST_WAIT
    while (left := max(map(uncertain_for, times), default=0.0)) > 0 and time.monotonic() < end:
        time.sleep(max(left, _PAUSE))
