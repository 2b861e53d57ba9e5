"""What is said of a tool that gave no result, where its own output says nothing better."""

from __future__ import annotations

import signal

from romfsfs.convert.types import Diagnostic, error
from romfsfs.system.runner import Outcome


def time_out(tool: str, outcome: Outcome, limit: float) -> Diagnostic:
    """The diagnostic for a tool that had to be stopped after `limit` seconds."""
    last = f" its last output: {outcome.last_line}" if outcome.last_line else " it said nothing"
    message = f"{tool} did not finish in {limit:g} s and was stopped;{last}"
    return error("time-out", message, outcome.output)


def failure(tool: str, outcome: Outcome) -> Diagnostic:
    """The diagnostic for a tool that gave no result, when its output says nothing better."""
    if outcome.status < 0:
        try:
            how = f"was killed by {signal.Signals(-outcome.status).name}"
        except ValueError:
            how = f"was killed by signal {-outcome.status}"
    else:
        how = f"failed with exit status {outcome.status}" if outcome.status else "made no file"
    said = outcome.last_line or "it said nothing"
    return error("tool-failed", f"{tool} {how}: {said}", outcome.output)
