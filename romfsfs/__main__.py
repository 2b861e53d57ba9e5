"""`python -m romfsfs`.

Python puts the current folder first on `sys.path`. It may be a mount, whose files came from a
camera: it is removed before anything else is imported. (A package `romfsfs` in that folder itself
would still be run; the command `romfsfs` never looks there.)
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
