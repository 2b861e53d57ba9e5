"""What a board is. Sizes and addresses in bytes; everything immutable, shared between threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from romfsfs.errors import UsageError
from romfsfs.image.rules import AlignmentRules

#: Native architectures, as mpy-cross spells them, in the order of their numbers in the header of
#: an `.mpy` file and in `sys.implementation._mpy` (MicroPython, py/persistentcode.h); 0 is "no
#: native code".
ARCHITECTURES = (
    "", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa",
    "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip


class DfuTarget(NamedTuple):
    """A partition as the DFU boot loader offers it.

    alt: number of the alternate setting. name: the setting's name, checked before writing because
    numbers differ between boards. Arduino's loaders offer whole memories: name is None there, and
    address is where the partition begins. erase_size: bytes that the LOADER erases when the first
    of them is written.
    """

    alt: int
    erase_size: int
    name: str | None = None
    address: int | None = None


#: USB id (vendor, product) of the resident boot loader of i.MX RT chips
IMX_LOADER_ID = (0x15A2, 0x0073)


class ImxTarget(NamedTuple):
    """A partition in the address space of the i.MX RT boot loader."""

    address: int
    size: int


class VelaNpu(NamedTuple):
    """An Arm Ethos-U: the arguments that Vela takes for it.

    sram_heap_bytes: RAM that the firmware has for a model's working memory.
    """

    system_config: str
    accelerator_config: str
    memory_mode: str
    sram_heap_bytes: int


class NeuralArtNpu(NamedTuple):
    """An ST Neural-ART: the arguments that ST Edge AI takes for it."""

    target: str
    profile: str


@dataclass(frozen=True, slots=True)
class Partition:
    """A ROMFS partition. erase_size: bytes of an erase block."""

    index: int
    name: str
    size: int
    erase_size: int
    alignment: AlignmentRules
    npu: VelaNpu | NeuralArtNpu | None = None
    dfu: DfuTarget | None = None
    imx: ImxTarget | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of camera. runtime_ids: (vendor, product) of its USB port while firmware runs; dfu_id:
    of its DFU boot loader. march: architecture for `mpy-cross`, '' for what the camera reports.
    says: how its firmware's names for it begin, as upper-case words (`table.identify`)."""

    name: str
    display_name: str
    arch_string: str
    march: str
    runtime_ids: tuple[tuple[int, int], ...]
    dfu_id: tuple[int, int] | None
    partitions: tuple[Partition, ...]
    says: tuple[tuple[str, ...], ...] = ()

    @property
    def loader_ids(self) -> tuple[tuple[int, int], ...]:
        """(vendor, product) of its boot loaders."""
        imx = any(partition.imx for partition in self.partitions)
        return tuple(each for each in (self.dfu_id, IMX_LOADER_ID if imx else None) if each)

    def partition(self, index: int = 0) -> Partition:
        """The partition with this number. UsageError, listing those there are, if it has none."""
        for partition in self.partitions:
            if partition.index == index:
                return partition
        have = ", ".join(f"{each.index} ({each.name})" for each in self.partitions)
        raise UsageError(f"{self.name} has no partition {index}", next_step=f"it has {have}")
