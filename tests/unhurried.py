"""`python unhurried.py WORDS`: romfsfs with these words, without its lines and bars of progress.

They come after some time, so what a command prints would depend on how busy the machine is.
"""

import sys

from romfsfs.cli import main, output

if __name__ == "__main__":
    output._SHOWN_AFTER_SECONDS = float("inf")
    sys.exit(main())
