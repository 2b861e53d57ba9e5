"""What is passed to libfuse with `-o`, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

from romfsfs.errors import UsageError

SUBTYPE = "romfsfs"

# Options in /etc/fstab that are meant for mount(8) and systemd, or name the default; libfuse would
# refuse some of them.
_FSTAB_ONLY = frozenset(
    {"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev"}
    | {"relatime", "diratime", "nostrictatime", "nolazytime"}
)
#: What libfuse 3 always does, and refuses as an option.
_LIBFUSE_2_ONLY = frozenset({"big_writes", "large_read", "atomic_o_trunc", "async_read"})
#: Arguments of the bindings themselves, which take libfuse's options as keyword arguments too.
_BINDINGS_OWN = frozenset(
    {"encoding", "errors", "foreground", "mountpoint", "operations", "raw_fi", "self"}
)
#: libfuse refuses a value of these. It does not see the first two, and mfusepy keeps the others.
_WITHOUT_VALUE = frozenset(
    {"allow_other", "nonempty"}
    | {"hard_remove", "use_ino", "readdir_ino", "direct_io", "nopath", "intr"}
)
_FSTAB_PREFIXES = ("x-", "comment=", "user=", "uhelper=")

_IDLE_THREADS = 10  # libfuse's own default
# As many slow requests at once stop the mount from answering; libfuse's default is 10.
_THREADS = 200


def parse_extra(values: Iterable[str]) -> dict[str, str | bool]:
    """`-o` values ('allow_other,max_read=4096') as a mapping, without those for fstab alone.

    Raises UsageError for a name that the binding would take for an argument of its own, and for a
    value of an option that has none.
    """
    options: dict[str, str | bool] = {}
    for value in values:
        for word in value.split(","):
            word = word.strip()
            if not word or word in _FSTAB_ONLY or word.startswith(_FSTAB_PREFIXES):
                continue
            key, has_value, text = word.partition("=")
            if key in _BINDINGS_OWN:
                raise UsageError(f"no such mount option: {key}", where=f"-o {key}")
            if has_value and key in _WITHOUT_VALUE:
                raise takes_no_value(key, text)
            options[key] = text if has_value else True
    return options


def takes_no_value(key: str, text: str) -> UsageError:
    """The error for `-o KEY=TEXT`, where KEY alone turns something on."""
    next_step = f"write -o {key}, or leave it out"
    return UsageError(f"{key} takes no value", where=f"-o {key}={text}", next_step=next_step)


def fuse_options(
    libfuse: tuple[int, int],
    source: str,
    extra: Mapping[str, str | bool],
    *,
    read_only: bool,
    allow_other: bool,
    nonempty: bool,
) -> dict[str, str | bool]:
    """All options of a mount; what the user gave in `extra` wins. libfuse: (major, minor)."""
    options: dict[str, str | bool] = {
        "fsname": _escaped(source),
        # The work tree's own inode numbers: git's index and rsync stay valid across mounts.
        "use_ino": True,
    }
    if sys.platform == "darwin":
        options["volname"] = _escaped(source.rpartition("/")[2] or SUBTYPE)
    else:
        options["subtype"] = SUBTYPE
        # Pages of a file stay cached across opens as long as its size and time are the same.
        options["auto_cache"] = True
        if libfuse < (3,):
            options["big_writes"] = True  # sequential writes are 8 times faster; libfuse 3: always
            # As libfuse 3 does: `>` is one request, and converts no file that is not yet written.
            options["atomic_o_trunc"] = True
            if nonempty:
                options["nonempty"] = True  # libfuse 3 has no such option and does not check
        elif libfuse >= (3, 12):
            # libfuse 3.14 complains on standard error about its own default, -1.
            options["max_idle_threads"] = str(_IDLE_THREADS)
            options["max_threads"] = str(_THREADS)
    if read_only:
        options["ro"] = True
    # Other users get what the modes allow. For the mounting user alone, the work tree enforces its
    # modes, but not where the kernel answers from its cache: there this does. Modes do not bind
    # root: without this the kernel asks us, else access(2) would promise that `.romfs/` is
    # writable.
    if allow_other or os.geteuid() != 0:
        options["default_permissions"] = True
    if allow_other:
        options["allow_other"] = True
    unasked = _LIBFUSE_2_ONLY if libfuse >= (3,) else frozenset[str]()
    return {**options, **{key: value for key, value in extra.items() if key not in unasked}}


def _escaped(text: str) -> str:
    """Escape an option's value: libfuse splits at commas without a backslash before them."""
    visible = "".join(c if c.isprintable() else "?" for c in text)
    return visible.replace("\\", "\\\\").replace(",", "\\,")
