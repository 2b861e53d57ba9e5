"""What must be there after each transaction, said without asking the product.

A `World` is one account of a target, its session and its work tree; `apply` says which worlds an
operation may lead to. While nobody knows whether an operation that was hurt took place, there are
two; what is seen later tells which of them it is. The images are read by a reader of its own
(docs/format.md), and compiled scripts are told by a word that is in their source and in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

#: Contents by path; None for a folder. A compiled script is `made(word)`.
Tree = dict[str, bytes | None]

JUNK = ("~", ".swp", ".DS_Store")
LITTER = ".DS_Store"
MAGIC = b"\xd2\xcd\x31"
_WORD = re.compile(rb"word_\d+_")


class Refused(Exception):
    """The operation is refused in this world, for this reason."""


def script(word: int) -> bytes:
    return b"say = 'word_%d_'\n" % word


def made(text: bytes) -> bytes:
    """What stands for the bytes that a script with this text becomes."""
    found = _WORD.search(text)
    assert found
    return b"compiled " + found[0]


def normal(path: str, data: bytes) -> bytes:
    found = _WORD.search(data) if path.endswith(".mpy") else None
    return data if found is None else made(found[0])


def told(tree: Tree) -> Tree:
    """The tree, compiled scripts replaced by what stands for them."""
    return {p: None if data is None else normal(p, data) for p, data in tree.items()}


def junk(path: str) -> bool:
    return any(part.endswith(JUNK) for part in path.split("/"))


def parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def below(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(each + "/") for each in paths)


# -- the format


def image_part(data: bytes) -> bytes | None:
    """The image at the beginning; b'' where there is none but erased flash, None for what is no
    image."""
    if not data.strip(b"\xff"):
        return b""
    if not data.startswith(MAGIC):
        return None
    size, start = _varuint(data, 3)
    return data[: start + size] if start + size <= len(data) else None


def _varuint(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = data[offset]
        value, offset = value << 7 | byte & 0x7F, offset + 1
        if byte < 0x80:
            return value, offset


def image_tree(image: bytes) -> Tree:
    tree: Tree = {}
    if image:
        _read_folder(image, _varuint(image, 3)[1], len(image), "", tree)
    return tree


def _records(image: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    while offset < end:
        kind, offset = _varuint(image, offset)
        size, offset = _varuint(image, offset)
        yield kind, offset, offset + size
        offset += size


def _read_folder(image: bytes, offset: int, end: int, above: str, tree: Tree) -> None:
    for kind, start, stop in _records(image, offset, end):
        if kind not in (4, 5):
            continue
        length, start = _varuint(image, start)
        path = above + image[start : start + length].decode()
        start += length
        if kind == 4:
            tree[path] = None
            _read_folder(image, start, stop, path + "/", tree)
            continue
        for what, begin, last in _records(image, start, stop):
            if what == 2:
                tree[path] = image[begin:last]
            elif what == 3:
                size, begin = _varuint(image, begin)
                place, _ = _varuint(image, begin)
                tree[path] = image[place : place + size]


# -- worlds


@dataclass(frozen=True)
class Held:
    """What a target holds. data: its image, all bytes of a file; None while only the tree is
    known. tree: None where it is no image. there: whether there is anything."""

    data: bytes | None
    tree: Tree | None
    there: bool = True

    def is_as(self, other: Held) -> bool:
        if self.data is not None and other.data is not None:
            return self.data == other.data
        return (self.tree, self.there) == (other.tree, other.there)


@dataclass(frozen=True)
class World:
    """target: now. base: what it held when the session last read or wrote it, None before the
    first time. tree: the work tree, None where there is none. clean: the tree without an edit.
    stored: what the files of `clean` are called in the image, where it is another name. known:
    sources by what they were stored as. camera: whether the target is one."""

    target: Held
    camera: bool = False
    base: Held | None = None
    tree: Tree | None = None
    clean: Tree = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    known: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        return self.base is not None and not self.target.is_as(self.base)

    def edits(self) -> set[str]:
        tree = self.tree or {}
        return {p for p in tree.keys() | self.clean.keys() if not junk(p)
                if (p in tree, tree.get(p)) != (p in self.clean, self.clean.get(p))}  # fmt: skip

    def edit(self, tree: Tree) -> World:
        """The user has been at it."""
        return replace(self, tree=dict(tree))

    def shown(self, image: Tree) -> tuple[Tree, dict[str, str]]:
        """The tree that shows an image, and what its files are called there."""
        tree: Tree = {}
        stored = {}
        for path, data in image.items():
            source = path[:-3] + "py"
            text = self.known.get((path, data)) if data is not None else None
            if path.endswith(".mpy") and text is not None and source not in image:
                tree[source], stored[source] = text, path
            else:
                tree[path] = data
        return tree, stored

    def followed(self, clean: Tree) -> Tree:
        """The tree when it has followed to another clean one: what is edited stays."""
        if self.tree is None:
            return dict(clean)
        edited = self.edits()
        tree = {p: data for p, data in self.tree.items() if p in edited or junk(p)}
        kept = {above for p in tree if not p.endswith(LITTER) for above in parents(p)}
        for path, data in clean.items():
            if path in edited or any(tree.get(p) is not None for p in parents(path)):
                continue
            if data is None or path not in kept:
                tree[path] = data
        for path in [each for each in tree if not each.endswith(LITTER)]:
            for above in parents(path):  # a folder that was removed too, where a file came into it
                tree.setdefault(above, None)
        return tree

    def stands_on(self, held: Held, *, extract: bool = False) -> World:
        """The session has read this, or written it."""
        clean, stored = self.shown(held.tree or {})
        tree = self.tree
        if tree is not None or extract:
            tree = self.followed(clean)
        return replace(self, target=held, base=held, tree=tree, clean=clean, stored=stored)

    def packed(self) -> tuple[Tree, dict[str, str], set[str]]:
        """The image that the tree becomes, what its files are called there, and which compiled
        files a source stands in for."""
        tree, edited = self.tree or {}, self.edits()
        image: Tree = {}
        names: dict[str, list[str]] = {}
        for path, data in tree.items():
            if junk(path):
                continue
            name = path if data is None else self.stored.get(path, path)
            if path in edited and data is not None:
                name = path
                if path.endswith(".py"):
                    if b"word" not in data:
                        raise Refused("a script with an error")
                    name, data = path[:-2] + "mpy", made(data)
                elif path.endswith(".mpy") and not data.startswith((b"M", b"compiled")):
                    raise Refused("no compiled file")
            elif name != path and data is not None:
                data = made(data)
            names.setdefault(name, []).append(path)
            if len(names[name]) == 1 or path in edited:
                image[name] = data
        over = set()
        for name, paths in names.items():
            raw = [p for p in paths if p == name and p not in edited and tree[p] is not None]
            if len(paths) > 1:
                if not (raw and any(p in edited for p in paths)):
                    raise Refused(f"two files for {name}")
                over.add(name)
        stored = {p: name for name, paths in names.items() for p in paths if p != name}
        return image, stored, over


def commit(world: World, force: bool = False) -> World:
    if world.tree is None:
        raise Refused("no work tree")
    image, stored, over = world.packed()
    assert world.base is not None
    if world.elsewhere and not force:
        raise Refused("changed elsewhere")
    if image == world.base.tree and not world.elsewhere:
        clean = {p: d for p, d in world.tree.items() if not junk(p)}
        return replace(world, clean=clean, stored=stored) if clean == world.clean else world
    tree = {p: data for p, data in world.tree.items() if p not in over}
    clean = {p: data for p, data in tree.items() if not junk(p)}
    known = dict(world.known)
    for path, name in stored.items():
        text = clean.get(path)
        if text is not None:
            known[name, made(text)] = text
    held = Held(None, image)
    return World(held, world.camera, held, tree, clean, stored, known)


def mount(world: World) -> World:
    if world.tree is not None and not world.elsewhere:
        return world
    if world.tree is not None and world.edits():
        raise Refused("changed elsewhere, with edits")
    if not world.target.there or world.target.tree is None:
        raise Refused("no image")
    return world.stands_on(world.target, extract=True)


def umount(world: World) -> World:
    kept = world.tree is None or world.edits() or any(map(junk, world.tree))
    return world if kept else replace(world, tree=None)


def revert(world: World, paths: tuple[str, ...]) -> World:
    if world.tree is None:
        raise Refused("no work tree")
    if not paths and not any(map(junk, world.tree)):
        return replace(world, tree=None)
    if paths:
        all_known = {*world.tree, *world.clean}
        if not all(any(below(p, (each,)) for p in all_known) for each in paths):
            raise Refused("no such path")
    chosen = reverted(world, paths)
    gives_way = world.tree.keys() & {p for p, d in world.clean.items() if d is not None}
    folders = tuple(p for p in chosen & gives_way if world.tree[p] is None)
    kept = {p for p in world.tree if p not in chosen and not (junk(p) and below(p, folders))}
    tree = {p: d for p, d in world.tree.items() if p in kept}
    tree |= {p: d for p, d in world.clean.items() if p in chosen}
    for path in [*tree]:  # folders above what came back or what stays
        for above in parents(path):
            tree.setdefault(above, None)
    return replace(world, tree=tree)


def reverted(world: World, paths: tuple[str, ...]) -> set[str]:
    """The edits that go: at these paths, or of files that are called so in the image."""
    edited, tree = world.edits(), world.tree or {}
    if not paths:
        return edited
    in_base = {world.stored.get(p, p) for p in world.clean}
    in_base = {name for name in in_base if below(name, paths)} | {
        world.stored.get(p, p) for p in world.clean if below(p, paths)
    }
    names = {p: p[:-2] + "mpy" if p.endswith(".py") else p for p in edited}
    return {
        p for p, name in names.items()
        if below(p, paths) or name in in_base or world.stored.get(p) in in_base
        or (below(name, paths) and name not in tree)
    }  # fmt: skip


def undo(world: World, to: Held | None) -> World:
    if world.tree is not None and world.edits():
        raise Refused("edits")
    if world.base is None:
        raise Refused("nothing was read yet")
    if world.elsewhere and world.target.data not in (None, b""):
        raise Refused("changed elsewhere")
    if to is None:
        raise Refused("no such image")
    return world.stands_on(to)


def push(world: World, image: Held, force: bool) -> World:
    if world.target.is_as(image):
        return world
    if world.target.tree is None and not force:
        raise Refused("no image there")
    return world.stands_on(image)


# -- looking


def seen(world: World, held: Held, tree: Tree | None, vague: set[str]) -> tuple[World | None, str]:
    """The world, with what was not known of it before; None and why where it is another. vague:
    paths that need not agree."""
    if not world.target.is_as(held):
        return None, f"the target: {differences(world.target.tree or {}, held.tree or {})}"
    same = world.base is not None and world.base.is_as(held)
    world = replace(world, target=held, base=held if same else world.base)
    if (tree is None) != (world.tree is None):
        return None, f"the work tree is {'gone' if tree is None else 'there'}"
    if tree is None or world.tree is None:
        return world, ""
    clean, stored, expected = dict(world.clean), dict(world.stored), dict(world.tree)
    for source, name in world.stored.items():  # a source that was forgotten
        text = clean.get(source)
        if text and source not in tree and tree.get(name) == made(text):
            clean[name] = expected[name] = made(text)
            del clean[source], stored[source]
            expected.pop(source, None)
    wrong = [each for each in differences(expected, tree) if each.split()[1] not in vague]
    if wrong:
        return None, f"the work tree: {wrong}"
    return replace(world, tree=tree, clean=clean, stored=stored), ""


def previous(log: list[dict[str, Any]]) -> int | None:
    """The number that an undo goes back to."""
    if not log:
        return None
    by_number = {entry["number"]: entry for entry in log}
    now = log[-1]
    while now["kind"] == "undo":
        now = by_number[now["restores"]]
    digest = log[-1]["digest"]
    older = [e["number"] for e in log if e["number"] < now["number"] and e["digest"] != digest]
    return max(older, default=None)


def related(path: str, paths: tuple[str, ...]) -> bool:
    return not paths or any(below(path, (each,)) or below(each, (path,)) for each in paths)


def differences(expected: Tree, found: Tree) -> list[str]:
    """What is missing, what should not be there, what is another. Litter comes and goes; a folder
    stays for what is never packed."""
    wrong = []
    for path in sorted(expected.keys() | found.keys()):
        if path.endswith(LITTER):
            continue
        if path not in found:
            wrong.append(f"- {path}")
        elif path not in expected:
            inside = [p for p in found if p.startswith(path + "/")]
            if found[path] is not None or not inside or not any(map(junk, inside)):
                wrong.append(f"+ {path}")
        elif expected[path] != found[path]:
            wrong.append(f"M {path}")
    return wrong
