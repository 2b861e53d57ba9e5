"""`--version` and plain `ls` of an image file, without click.

Importing click takes three times as long as starting Python; these two are called by scripts
and shell prompts often enough to matter. Anything but the plainest form is left to `app`.
"""

from __future__ import annotations

import os
import sys


def quick(arguments: list[str]) -> int | None:
    """The exit code if this was a quick command, None if click has to look at it."""
    if arguments == ["--version"]:
        from romfsfs import __version__

        return _print(f"romfsfs {__version__}\n")
    if len(arguments) < 2 or arguments[0] != "ls":
        return None
    long = "-l" in arguments[1:-1]
    rest = [word for word in arguments[1:] if word != "-l"]
    if len(rest) != 1 or rest[0].startswith("-") or not os.path.isfile(rest[0]):
        return None
    return _list(rest[0], long or "-l" in arguments[1:])


def _list(path: str, long: bool) -> int | None:
    from romfsfs.cli.listing import listing
    from romfsfs.errors import ImageFormatError, RomfsError, shell_word

    if hasattr(sys.stdout, "reconfigure"):  # as `app` does: no name is an error of the terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _print(listing(path, long))
    except ImageFormatError as error:
        located = ImageFormatError(
            error.reason, error.offset, where=path, next_step=f"romfsfs verify {shell_word(path)}"
        )
        sys.stderr.write(f"romfsfs: error: {located.line}\n")
        return located.exit_code
    except RomfsError as error:
        sys.stderr.write(f"romfsfs: error: {error.line}\n")
        return error.exit_code
    except OSError:
        return None  # `app` says what it means


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            from romfsfs.system.errors import os_error

            error.filename = "standard output"
            sys.stderr.write(f"romfsfs: error: {os_error(error).line}\n")
        return 1
    return 0
