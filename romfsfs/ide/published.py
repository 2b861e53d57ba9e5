"""The resources that OpenMV publishes for its IDE: default images, the model zoo (docs/cameras.md).

A text file names the newest version; each version is a zip in a GitHub release, laid out like an
IDE's resource folder. Only the parts that are needed are fetched, after the user agreed once.
"""

from __future__ import annotations

import re
from contextlib import suppress

from romfsfs.errors import RomfsError
from romfsfs.ide.archive import Fetching, Zip, zip_folder
from romfsfs.system.files import replace_atomically

VERSION_URL = (
    "https://raw.githubusercontent.com/openmv/openmv-ide-version/main/"
    "openmv-ide-resources-version-v2.txt"
)
RELEASE_URL = "https://github.com/openmv/openmv-ide/releases/download/"
#: Their origin, for messages.
WHERE = "github.com/openmv"
_VERSION = re.compile(r"\s*v?(\d+\.\d+\.\d+)\s*")


def known_version() -> str:
    """The newest version when the server was last asked; '' if it never was."""
    with suppress(FileNotFoundError, UnicodeDecodeError):
        text = (zip_folder(VERSION_URL) / "version").read_text("ascii")
        return text if _VERSION.fullmatch(text) else ""
    return ""


def is_known() -> bool:
    """Whether the zip of `known_version` was looked at before (`remote.is_known`)."""
    from romfsfs.ide.remote import is_known

    version = known_version()
    return bool(version) and is_known(_url(version))


def resources(fetching: Fetching, size: str, version: str = "") -> Zip:
    """The zip of this version ('': the newest). size: how much will be fetched, for the question.

    RomfsError without a network, `Missing` if that version was not published; what `agree` raises.
    """
    from romfsfs.ide.remote import remote_zip

    version = version or _newest(fetching, size)
    return remote_zip(_url(version), fetching)


def _url(version: str) -> str:
    return f"{RELEASE_URL}v{version}/openmv-ide-resources-{version}.zip"


def _newest(fetching: Fetching, size: str) -> str:
    known = known_version()
    if known and (fetching.offline or not fetching.update):
        return known
    if fetching.offline:
        what = "nothing has been downloaded yet"
        raise RomfsError(what, where=WHERE, next_step="repeat without --offline")
    if not known:
        fetching.agree(f"{size} from {WHERE}")
    from romfsfs.ide.remote import fetch_text

    text = fetch_text(VERSION_URL, 100)
    found = _VERSION.fullmatch(text)
    if found is None:
        raise RomfsError(f"not a version number: {text[:40]!r}", where=VERSION_URL)
    with replace_atomically(zip_folder(VERSION_URL) / "version") as file:
        file.write(found[1].encode())
    return found[1]
