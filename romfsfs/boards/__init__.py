"""The cameras romfsfs knows: partitions, alignments, USB ids, NPUs, and how to recognise them."""

from romfsfs.boards.model import Board, DfuTarget, ImxTarget, NeuralArtNpu, Partition, VelaNpu
from romfsfs.boards.table import boards, by_dfu_id, by_usb_id, get_board, identify, parse_board

__all__ = [
    "Board", "DfuTarget", "ImxTarget", "NeuralArtNpu", "Partition", "VelaNpu", "boards",
    "by_dfu_id", "by_usb_id", "get_board", "identify", "parse_board",
]  # fmt: skip
