"""`Converters`: which converter a file needs, and its result from the cache or from the tool.

`lookup` never runs a tool, `convert` does. A result is cached under a digest of the source's bytes
and of everything else that it depends on. The tool works on a private copy whose digest was
verified, so a file that changed never gets the result of its earlier bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

from romfsfs.convert.admission.impostors import impostor
from romfsfs.convert.cache import Cache, LockTimeout
from romfsfs.convert.options import OptionError, described
from romfsfs.convert.types import (
    Conversion,
    Converter,
    Decision,
    Diagnostic,
    Figures,
    Job,
    Product,
    Reader,
    StaleSource,
    State,
    Target,
    error,
    unchanged,
)
from romfsfs.errors import Cancelled, RomfsError, ToolMissing
from romfsfs.system.beside import Cancel
from romfsfs.system.files import CHUNK, named, opened

_AS_IT_IS = described({"convert": "no"})
#: At most so many failures that are not cached are remembered for `lookup`.
_MAX_REMEMBERED = 1000


def make_converters(target: Target, tools: Path) -> tuple[Converter, ...]:
    """The converters for this target; a file belongs to the first whose `concerns` is true.

    tools: the folder for copies of programs that lack the executable bit."""
    from romfsfs.convert.haar import HaarConverter
    from romfsfs.convert.script import ScriptConverter

    converters: list[Converter] = [ScriptConverter(target, tools), HaarConverter()]
    npu = target.partition.npu if target.partition is not None else None
    if npu is not None:
        from romfsfs.boards import VelaNpu

        if isinstance(npu, VelaNpu):
            from romfsfs.convert.vela import VelaConverter

            converters.append(VelaConverter(target, npu))
        else:
            from romfsfs.convert.stedgeai import NeuralArtConverter

            converters.append(NeuralArtConverter(target, npu))
    return tuple(converters)


class Converters:
    """Conversions for one target.

    Any thread may call any method, and other processes may use the same cache folder."""

    def __init__(self, target: Target, cache: Path) -> None:
        self.target = target
        self._cache = Cache(cache)
        self._converters = make_converters(target, cache / "tools")
        # Diagnostics of failures that must not be cached, by key.
        self._unfiled: dict[str, tuple[Diagnostic, ...]] = {}
        self._mutex = threading.Lock()

    def concerns(self, path: str) -> bool:
        """Whether this file may need conversion or a diagnostic, by its name and its options."""
        return self._find(path) is not None

    def made_for(self, path: str) -> str:
        """What the stored bytes of a file are made for, as worded by `options.described`.

        Equal texts mean equal bytes, as far as board and options decide. "": the file is stored as
        it is whatever they are. Tool versions are left out: a newer one alone makes nothing stale.
        """
        converter = self._concerned(path)
        if converter is None:
            return ""
        stored_as_it_is = self.target.options.for_path(path).convert is False
        return _AS_IT_IS if stored_as_it_is else converter.made_for(path)

    def lookup(self, path: str, source_fd: int, source_digest: str) -> Conversion:
        """What is known about a file, without running a tool. OSError of reading the source.

        A failure that is not cached (time-out) is remembered until `convert` is called again."""
        return self._look_up(path, source_fd, source_digest)[0]

    def _look_up(self, path: str, source_fd: int, source_digest: str) -> tuple[Conversion, str]:
        """`lookup`'s answer and the result's cache key; "": no tool is needed or can be run."""
        converter = self._find(path)
        size = os.fstat(source_fd).st_size
        if converter is None:
            return _decided(unchanged(path), source_digest, size), ""
        read = _reader(source_fd)
        wrong = impostor(path, read)
        if wrong is not None:
            return _failed(path, wrong), ""
        try:
            decision = converter.decide(path, read, size)
        except (ToolMissing, OptionError) as caught:
            return _failed(path, _not_begun(caught)), ""
        if decision.state is not State.PENDING:
            return _decided(decision, source_digest, size), ""
        key = _key(converter, decision, source_digest)
        filed = self._cache.get(key)
        if filed is not None:
            return _filed(decision, filed, source_digest, size), key
        with self._mutex:
            unfiled = self._unfiled.get(key)
        if unfiled is not None:
            return _failed(path, *unfiled), key
        return Conversion(State.PENDING, decision.stored_path), key

    def convert(
        self, path: str, source_fd: int, source_digest: str, cancel: Cancel | None = None
    ) -> Conversion:
        """The file's result; runs the tool if there is none yet, up to the time limit.

        A failed conversion is returned (FAILED), not raised. StaleSource: the file does not match
        `source_digest`. Cancelled: `cancel` was set. OSError: the source cannot be read."""
        found, key = self._look_up(path, source_fd, source_digest)
        converter = self._find(path)
        if converter is None or (found.state is not State.PENDING and not self._forget(key)):
            return found
        try:
            return self._convert(converter, path, source_fd, source_digest, cancel)
        except (ToolMissing, OptionError) as caught:
            return _failed(path, _not_begun(caught))
        except (Cancelled, StaleSource):
            raise
        except RomfsError as refused:  # of the cache folder: other users may write to it now
            problem = error("io", refused.line, refused.detail)
            return self._remember(key, path, Product(None, (problem,)))
        except OSError as caught:  # of the cache: no space, no permission, deleted meanwhile
            if caught.filename == path:
                raise
            return self._remember(key, path, Product(None, (_io(caught, self._cache.directory),)))

    def figures(self, path: str, read: Reader, size: int, digest: str) -> Figures | None:
        """What is known of a stored model (see `Cache.figures`). OSError of `read`."""
        return self._cache.figures(path, read, size, digest)

    def _convert(
        self, converter: Converter, path: str, fd: int, digest: str, cancel: Cancel | None
    ) -> Conversion:
        seconds = self.target.options.timeout_seconds
        with self._cache.work_folder() as folder:
            source = folder / converter.source_name
            size = _copy(fd, source, path, digest)
            with opened(source) as copy:
                decision = converter.decide(path, _reader(copy), size)
            if decision.state is not State.PENDING:
                return _decided(decision, digest, size)
            key = _key(converter, decision, digest)
            try:
                with self._cache.lock(key, seconds, cancel):
                    filed = self._cache.get(key)  # another may have finished it meanwhile
                    if filed is None:
                        job = Job(path, folder, source, cancel)
                        made = _run(converter, job, self._cache.directory)
                        if not made.cacheable:
                            return self._remember(key, path, made)
                        artifact = None if decision.keep_source or made.failed else made.artifact
                        filed = self._cache.put(key, Product(artifact, made.diagnostics))
                        if made.figures is not None and filed.digest:
                            self._cache.keep_figures(filed.digest, made.figures)
            except LockTimeout:
                message = f"another process has been converting this file for {seconds:g} s; retry"
                return self._remember(key, path, Product(None, (error("time-out", message),)))
        self._cache.keep_limit()
        return _filed(decision, filed, digest, size)

    def _find(self, path: str) -> Converter | None:
        converter = self._concerned(path)
        if converter is None or self.target.options.for_path(path).convert is False:
            return None
        return converter

    def _concerned(self, path: str) -> Converter | None:
        for each in self._converters:
            if each.concerns(path):
                return each
        return None

    def _remember(self, key: str, path: str, product: Product) -> Conversion:
        with self._mutex:
            if len(self._unfiled) >= _MAX_REMEMBERED:
                self._unfiled.clear()
            self._unfiled[key] = product.diagnostics
        return _failed(path, *product.diagnostics)

    def _forget(self, key: str) -> bool:
        """Drop a remembered failure; True if there was one: it is worth another try."""
        with self._mutex:
            return self._unfiled.pop(key, None) is not None


def _run(converter: Converter, job: Job, cache: Path) -> Product:
    try:
        return converter.convert(job)
    except OSError as caught:
        return Product(None, (_io(caught, cache),), cacheable=False)


def _key(converter: Converter, decision: Decision, digest: str) -> str:
    kind = "check" if decision.keep_source else "store"
    parts = (converter.name, str(converter.version), kind, digest, *decision.parameters)
    joined = "\0".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()


def _reader(fd: int) -> Reader:
    return lambda offset, size: os.pread(fd, size, offset)


def _copy(fd: int, target: Path, path: str, digest: str) -> int:
    """Copy an open file and return its size. StaleSource if its SHA-256 is not `digest`; OSError,
    with the name `path` if it cannot be read."""
    hashing = hashlib.sha256()
    offset = 0
    with target.open("xb") as out:
        while data := _piece(fd, path, offset):
            hashing.update(data)
            out.write(data)
            offset += len(data)
    if hashing.hexdigest() != digest:
        raise StaleSource("the file changed while it was read for conversion", where=path)
    return offset


def _piece(fd: int, path: str, offset: int) -> bytes:
    with named(path):
        return os.pread(fd, CHUNK, offset)


def _not_begun(caught: ToolMissing | OptionError) -> Diagnostic:
    if isinstance(caught, OptionError):
        return error("options", str(caught))
    return error("tool-missing", caught.line, caught.detail)


def _io(caught: OSError, cache: Path) -> Diagnostic:
    where = f" ({caught.filename or cache})"
    remedy = "free some space" if caught.errno in (errno.ENOSPC, errno.EDQUOT) else "try again"
    return error("io", f"could not convert: {caught.strerror or caught}{where}; {remedy}")


def _failed(stored: str, *diagnostics: Diagnostic) -> Conversion:
    return Conversion(State.FAILED, stored, diagnostics=diagnostics)


def _decided(decision: Decision, digest: str, size: int) -> Conversion:
    if decision.state is State.FAILED:
        return _failed(decision.stored_path, *decision.diagnostics)
    return Conversion(State.READY, decision.stored_path, None, digest, size, decision.diagnostics)


def _filed(decision: Decision, product: Product, digest: str, size: int) -> Conversion:
    if product.failed:
        return _failed(decision.stored_path, *product.diagnostics)
    if product.artifact is not None:
        digest, size = product.digest, product.size
    return Conversion(
        State.READY, decision.stored_path, product.artifact, digest, size, product.diagnostics
    )
