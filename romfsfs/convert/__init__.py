"""Conversions: what a source becomes in the image.

    types       Target, State, Diagnostic, Conversion
    options     what the user chooses, by pattern of paths; romfs_toml reads it from a tree
    registry    Converters: lookup and convert, for one target
    script, vela, stedgeai, haar    the converters; mpy and flatbuffer read formats
    admission   the check whether a stored file runs on the target
    cache       results by content, across processes
    pool        background workers
    junk        files that are never packed

Sources are data: none is executed. Only the converters' tools are, on private copies.
"""

from romfsfs.convert.admission import admit
from romfsfs.convert.junk import DEFAULT_PATTERNS, Excludes
from romfsfs.convert.options import FileOptions, Options, Rule
from romfsfs.convert.pool import WorkerPool
from romfsfs.convert.registry import Converters
from romfsfs.convert.types import Conversion, Diagnostic, StaleSource, State, Target, labels_name
from romfsfs.errors import Cancelled

__all__ = [
    "DEFAULT_PATTERNS", "Cancelled", "Conversion", "Converters", "Diagnostic", "Excludes",
    "FileOptions", "Options", "Rule", "StaleSource", "State", "Target", "WorkerPool", "admit",
    "labels_name",
]  # fmt: skip
