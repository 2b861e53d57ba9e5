"""Digests of work files, computed once for as long as a file does not change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from romfsfs.devices.file import SETTLE_SECONDS
from romfsfs.files import digest_fd
from romfsfs.session.state import Signature

#: A file changed less than this before it was hashed may be changed again within the same tick
#: of the kernel's clock and keep its signature: git calls such an entry racy. Its signature
#: proves nothing, so it is not kept.
RACY_NS = int(SETTLE_SECONDS * 1e9)
#: Some file systems count whole seconds (HFS+, ext4 with small inodes, NFS on such), FAT every
#: second one. A time without a fraction is one of theirs.
_SECOND_NS = 1_000_000_000
_COARSE_NS = 2 * _SECOND_NS


def tick_ns(signature: Signature) -> int:
    """How long after this change another one may leave the same times."""
    return RACY_NS + (0 if signature.ctime_ns % _SECOND_NS else _COARSE_NS)


def settled(signature: Signature) -> bool:
    """Whether a later change of the file must change this signature."""
    return time.time_ns() - signature.ctime_ns > tick_ns(signature)


class DigestCache:
    """Signature to digest, in memory. Any thread may call; the worst case is hashing twice."""

    def __init__(self) -> None:
        self._known: dict[Signature, str] = {}

    def digest(self, fd: int) -> tuple[str, Signature | None]:
        """The digest of an open file, and its signature if that can be trusted later on.

        The signature is taken before the bytes are read: a change in between shows as a
        different signature the next time.
        """
        signature = Signature.of(os.fstat(fd))
        known = self._known.get(signature)
        if known is not None:
            return known, signature
        trusted = settled(signature)
        digest = digest_fd(fd)
        if not trusted:
            return digest, None
        self._known[signature] = digest
        return digest, signature

    def keep(self, signatures: Iterable[Signature | None]) -> None:
        """Forget all others: files that are gone, or were changed since."""
        known = self._known
        self._known = {each: known[each] for each in signatures if each in known}
