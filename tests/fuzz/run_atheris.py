"""One fuzz target under atheris; what `scripts/fuzz` starts.

    python tests/fuzz/run_atheris.py TARGET CORPUS [libFuzzer options]

CORPUS keeps the inputs that reached something new; the seeds are put there first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path

import atheris

os.environ.setdefault("ROMFSFS_FUZZ_EXTRACTED", "8")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
with atheris.instrument_imports(include=["romfsfs", "zipfile", "http.client"]):
    import targets

from seeds import seeds  # noqa: E402


def main() -> None:
    name, corpus, *options = sys.argv[1:]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    regressions = Path(__file__).with_name("regressions") / name
    found = [path.read_bytes() for path in sorted(regressions.glob("*"))]
    for data in (*seeds(name), *found):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    os.environ["ROMFSFS_CACHE_DIR"] = tempfile.mkdtemp(prefix="romfsfs-fuzz-cache-")
    logging.disable()
    atheris.Setup([sys.argv[0], *options, corpus], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
