"""A simulated camera on a pty, for trying and testing without hardware.

    from romfsfs.simulator import Simulator, preset

    with Simulator(preset("OPENMV4P", images={0: image})) as camera:
        ...  # open camera.port with pyserial, mpremote or romfsfs
        camera.faults.power_cut_after_programmed(100_000)
        camera.replug()  # after the cut: up again, with the flash as it was left
        assert camera.flash[0].content.startswith(image)
        print(camera.statistics)

`preset` gives the board's `SimulatorConfig`; the call may change any of its fields.
Snippets are run by the real MicroPython, which `find_micropython` finds; without one, ToolMissing
is raised (no substitute, on purpose: a snippet that MicroPython cannot run must fail).
Modules that are frozen into the firmware, such as `ml`, are files of `firmware/`.
`camera.port` is a symbolic link and stays the same over `unplug` and `replug`; the pty behind it
changes.
"""

from __future__ import annotations

from romfsfs.simulator.config import (
    PartitionConfig,
    SimulatorConfig,
    preset,
    preset_names,
)
from romfsfs.simulator.executor import find_micropython
from romfsfs.simulator.faults import TO_CAMERA, TO_HOST, Faults, Statistics
from romfsfs.simulator.server import Simulator, run_simulator

__all__ = [
    "TO_CAMERA",
    "TO_HOST",
    "Faults",
    "PartitionConfig",
    "Simulator",
    "SimulatorConfig",
    "Statistics",
    "find_micropython",
    "preset",
    "preset_names",
    "run_simulator",
]
