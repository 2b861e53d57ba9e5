"""MicroPython's bytecode files as every part needs to know them."""

from __future__ import annotations

#: Native architectures, as mpy-cross spells them, in the order of their numbers in the header of
#: an `.mpy` file and in `sys.implementation._mpy` (MicroPython, py/persistentcode.h); 0 is "no
#: native code".
ARCHITECTURES = (
    "", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa",
    "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip
