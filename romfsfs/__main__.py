"""`python -m romfsfs`."""

import sys

from romfsfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
