"""`python -m romfsfs`.

Python puts the current folder first where packages are looked for. It may be a mount, whose files
came from a camera: it is taken off before anything else is imported. (Nothing helps against a
`romfsfs` in that folder itself; the command `romfsfs` never looks there.)
"""

import os
import sys

try:
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
except FileNotFoundError:  # a folder that is gone holds nothing
    pass

from romfsfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
