"""Digests of work files, computed once for as long as a file does not change."""

from __future__ import annotations

import os
from collections.abc import Iterable

from romfsfs.session.keep.state import Signature
from romfsfs.system.clock import uncertain_for
from romfsfs.system.files import digest_fd

#: A cache drops stale entries once it has this many more than twice what was last kept.
SPARE = 100


def certain(signature: Signature) -> bool:
    """Whether a later change of the file must change this signature.

    A file that was changed just now may be changed again within the same tick of the kernel's clock
    and keep its signature: git calls such an entry racy. Such a signature proves nothing, so it is
    not kept.
    """
    return uncertain_for(signature.ctime_ns) <= 0


class DigestCache:
    """Signature to digest, in memory. Any thread may call; at worst a file is hashed twice."""

    def __init__(self) -> None:
        self._known: dict[Signature, str] = {}
        self._most = SPARE

    def digest(self, fd: int) -> tuple[str, Signature | None]:
        """The digest of an open file, and its signature if later changes must alter it. OSError.

        The signature is taken before the bytes are read: a change in between shows as a
        different signature the next time.
        """
        signature = Signature.of(os.fstat(fd))
        known = self._known.get(signature)
        if known is not None:
            return known, signature
        trusted = certain(signature)
        digest = digest_fd(fd)
        if not trusted:
            return digest, None
        self._known[signature] = digest
        return digest, signature

    def keep(self, signatures: Iterable[Signature | None]) -> None:
        """Drop all others (of files that are gone or have changed), once there are more than twice
        as many entries as were last kept, and `SPARE`."""
        known = self._known
        if len(known) > self._most:
            self._known = {each: known[each] for each in signatures if each in known}
            self._most = 2 * len(self._known) + SPARE
