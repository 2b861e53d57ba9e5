"""The model zoo: models that can be copied into an image, filtered for the board.

    members    what a zoo holds: files by path, models with their labels
    index      `index.csv`, which board a model is for; patterns: the program that evaluates it
    catalog    the models of a zoo for a board, and finding one
    sources    a zoo: a folder, or a zip here or at a URL; copying models from it
    choose     the source: option, environment, the last choice, the OpenMV IDE
    tree       the zoo as `.romfs/zoo/` in a mount

Names, sizes and CRC-32 of what is downloaded are checked; the patterns of an `index.csv` run in a
process with limits on CPU time and memory.
"""

from romfsfs.zoo.tree import ZooTree, open_zoo

__all__ = ["ZooTree", "open_zoo"]
