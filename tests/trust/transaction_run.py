"""One sequence of `transactions.py`: after each step, what is there is one of the worlds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import worlds
from crash_table import CRASHED
from transaction_steps import (
    EDITS,
    Place,
    SerialPlace,
    Step,
    forked,
    given,
    hurt,
)
from worlds import (
    Held,
    Refused,
    Tree,
    World,
    differences,
    image_part,
    image_tree,
    junk,
    previous,
    related,
    told,
)


class Fault(Exception):
    """Something is not as it must be."""


class Run:
    """One sequence: the place, and the worlds that it may be."""

    def __init__(self, folder: Path, counts: Counter[str]) -> None:
        self.folder = folder
        self.counts = counts
        self.place: Place
        self.worlds: list[World] = []
        self.settled = True
        #: paths that were edited while nobody knew how an operation had ended
        self.vague: set[str] = set()
        self.kept: dict[str, bytes] = {}  # of the log: entries and images by their names
        self.owed: set[str] = set()  # digests of images that were overwritten
        self.last: Held | None = None
        self.log: list[dict[str, Any]] = []  # before the operation

    def step(self, step: Step) -> None:
        self.counts["steps"] += 1
        name = step[0]
        if name == "target":
            serial, camera = step[1] == "serial", step[1] == "camera"
            self.place = SerialPlace(self.folder) if serial else Place(self.folder, camera)
            self.place.put(given(step[2]))
            self.worlds = [World(self.place.held(), self.place.camera)]
            self.behind: list[World] = []
            self.last = self.place.held()
        elif name == "elsewhere":
            self.elsewhere(step[1], step[2])
        elif name in EDITS:
            self.edit(step)
        else:
            self.operation(step)
        self.check_log()

    # -- what others do

    def edit(self, step: Step) -> None:
        before = self.place.tree()
        if before is None:
            return
        self.place.edit(step)
        self.counts["edits"] += 1
        self.edited(before, self.place.tree() or {})

    def edited(self, before: Tree, after: Tree) -> None:
        """The tree was changed like this, whichever world it is."""
        changed = [p for p in before.keys() | after.keys()
                   if (p in before, before.get(p)) != (p in after, after.get(p))]  # fmt: skip
        if not self.settled:
            self.vague.update(p for p in changed if p not in after or after[p] is None)
        found = []
        for world in self.worlds:
            tree = dict(world.tree or {})
            for path in changed:
                tree.pop(path, None)
                if after.get(path) is not None:  # a file has nothing below it
                    tree = {p: d for p, d in tree.items() if not worlds.below(p, (path,))}
                if path in after:  # written into a folder, which is there then
                    tree |= dict.fromkeys(worlds.parents(path)) | {path: after[path]}
            found.append(world.edit(tree) if world.tree is not None else world)
        self.worlds = found

    def elsewhere(self, what: str, number: int) -> None:
        old = [self.place.logged(entry) for entry in self.place.log().values()]
        data: bytes | None = given(number)
        if what == "old" and old:
            data = old[number % len(old)]
        elif what in ("blank", "gone"):
            data = b"" if what == "blank" else None
        elif what == "garbage":
            data = b"no image at all" * 9
        elif what == "tail" and not self.place.camera:
            data = (data or b"") + b"\xff" * 100
        self.place.put(data)
        held = self.place.held()
        kept = self.worlds if not self.settled and self.place.camera else []
        self.worlds = [*(replace(world, target=held) for world in self.worlds), *kept]
        self.last = held
        self.counts["elsewhere"] += 1

    # -- what the product does

    def operation(self, step: Step) -> None:
        hurts = bool(step[-1])
        before, self.log = (self.place.held(), self.place.tree()), list(self.place.log().values())
        code, said = forked(lambda: hurt(self.place, step), hurts)
        after = self.place.held(), self.place.tree()
        self.counts[("hurt " if code and hurts else "refused " if code else "") + step[0]] += 1
        if code not in (0, 1, CRASHED):
            raise Fault(f"{step[0]}: {said}")
        led, refused = [], []
        for world in self.worlds:
            try:
                led += self.leads_to(world, step)
            except Refused as reason:
                refused.append(str(reason))
        if code == 0:
            self.succeeded(step, led, before, after, refused)
        elif not hurts:
            self.refused(step, refused, before, after, said)
        else:
            self.was_hurt(step, led, before, after)

    def leads_to(self, world: World, step: Step) -> list[World]:
        name, path, number = (*step[:-1], "", 0)[:3]
        if name == "mount":
            return [worlds.mount(world)]
        if name in ("push", "reset"):
            image = given(number)
            return [worlds.push(world, Held(image, told(image_tree(image))), path > "d")]
        if self.place.session is None:
            raise Refused("no session")
        if name in ("recover", "rollback"):
            return [world, *(self.behind if name == "rollback" and not self.settled else ())]
        if name == "umount" and world.tree is None:
            return [world]
        if world.base is None:
            raise Refused("nothing was read yet")
        if name == "commit with a writer" and not junk(path):
            raise Refused("a file is open")
        if name.startswith("commit"):
            return [worlds.commit(world, "force" in name)]
        if name.startswith("undo"):
            return self.undone(world, number if name == "undo to" else None)
        if name.startswith("revert"):
            return [worlds.revert(world, (path,) if name == "revert" else ())]
        if name == "umount":
            gone = worlds.umount(world)
            return [gone] if self.settled and not step[-1] else [gone, world]
        raise AssertionError(name)

    def undone(self, world: World, number: int | None) -> list[World]:
        log = self.log
        if not self.settled:  # what was interrupted may have been entered first
            log = list(self.place.log().values())
        if number is None and world.elsewhere:  # deleted, or erased: what was there last
            log = log[-1:]
        elif number is None and self.settled:
            log = [entry for entry in log if entry["number"] == previous(log)]
        elif number is not None:
            log = [entry for entry in log if entry["number"] == number]
        found = []
        for entry in log:
            data = self.place.logged(entry)
            part = image_part(data)
            if entry["missing"]:
                found.append(worlds.undo(world, Held(None, None, there=False)))
            elif part is not None:
                held = Held(part if self.place.camera else data, told(image_tree(part)))
                found.append(worlds.undo(world, held))
        return found or [worlds.undo(world, None)]

    def succeeded(self, step: Step, led: list[World], before: tuple[Held, Tree | None],
                  after: tuple[Held, Tree | None], refused: list[str]) -> None:  # fmt: skip
        found, wrong = [], [f"it should have been refused: {reason}" for reason in refused]
        # Of these the target knows nothing; but a revert finishes what was interrupted.
        alone = step[0] == "umount" or (step[0].startswith("revert") and self.settled)
        if alone and not self.settled and (before == after or after[1] is not None):
            self.edited(before[1] or {}, after[1] or {})  # what was interrupted is finished later
            return
        for world in led:
            held = world.target if alone and after[0] == before[0] else after[0]
            told_world, why = worlds.seen(world, held, after[1], self.vague)
            wrong.append(why)
            if told_world is not None and told_world not in found:
                found.append(told_world)
        if not found:
            raise Fault(f"{step[0]} succeeded, but {'; or '.join(dict.fromkeys(wrong))}")
        self.worlds = found
        if not alone or self.settled:
            self.settled = True
            self.vague.clear()
            self.overwritten(after[0])

    def overwritten(self, now: Held) -> None:
        last, self.last = self.last, now
        if last is None or last.is_as(now) or not last.data or last.tree is None:
            return
        self.owed.add(hashlib.sha256(last.data).hexdigest())

    def refused(self, step: Step, refused: list[str], before: tuple[Held, Tree | None],
                after: tuple[Held, Tree | None], said: str) -> None:  # fmt: skip
        if step[0] == "undo" and not self.settled:
            refused = ["there may be no earlier image"]
        if step[0] == "rollback" and any(not world.target.tree for world in self.worlds):
            refused = ["there is no image to go back to"]
        if not refused:
            raise Fault(f"{step[0]} was refused without a reason: {said}")
        if self.settled and before != after:
            raise Fault(f"{step[0]} was refused ({said}), and changed something: "
                        f"{differences(before[1] or {}, after[1] or {})}")  # fmt: skip
        self.was_hurt(step, [], before, after, settled=self.settled)

    def was_hurt(
        self, step: Step, led: list[World], before: tuple[Held, Tree | None],
        after: tuple[Held, Tree | None], settled: bool = False,
    ) -> None:  # fmt: skip
        """Nobody knows whether it took place; what no operation may cost is there."""
        held, tree = after
        allowed = [world for world in (*self.worlds, *led) if world.target.is_as(held)]
        broken = self.place.camera and held.tree is None
        if not allowed and not broken and not held.is_as(before[0]):
            raise Fault(f"{step[0]} was hurt, and the target is neither old nor new: {held.tree}")
        name = step[0].split()[0]
        if name == "revert" and self.settled:  # nobody finishes it: what is there is there
            if before[1] is not None:
                self.reverted_in_part(step, led, tree)
            return
        if name == "revert":  # it may have gone: nobody knows which of the edits
            chosen = (step[1],) if step[0] == "revert" else ()
            self.vague |= {p for w in self.worlds for p in worlds.reverted(w, chosen)}
        dropped = name in ("umount", "revert") and any(world.tree is None for world in led)
        for world in self.worlds:
            lost = [p for p in world.edits() | set(filter(junk, world.tree or {}))
                    if p not in self.vague and not p.endswith(worlds.LITTER)
                    and (world.tree or {}).get(p) not in (None, (tree or {}).get(p))]  # fmt: skip
            if lost and not dropped:
                if len(self.worlds) > 1:
                    continue
                raise Fault(f"{step[0]} was hurt, and edits are lost: {lost}")
        both = [*self.worlds, *(world for world in led if world not in self.worlds)]
        if not self.place.camera:  # a file is the one or the other; a rollback turns it back
            self.behind = [world for world in both if not world.target.is_as(held)]
            both = [world for world in both if world not in self.behind] or both
        self.worlds = both
        self.settled = settled

    def reverted_in_part(self, step: Step, led: list[World], tree: Tree | None) -> None:
        if tree is None:
            if not any(world.tree is None for world in led) and self.worlds[0].tree is not None:
                raise Fault(f"{step[0]} was hurt, and the work tree is gone")
            self.worlds = [replace(world, tree=None) for world in self.worlds]
            return
        found = []
        paths = (step[1],) if step[0] == "revert" else ()
        for world in self.worlds:
            if world.tree is None:
                continue
            chosen = worlds.reverted(world, paths)
            others = {p: d for p, d in world.tree.items() if d is not None and p not in chosen}
            gone = [p for p, d in others.items() if tree.get(p) != d and p not in self.vague
                    and not p.endswith(worlds.LITTER) and not related(p, paths)]  # fmt: skip
            wrong = [p for p in chosen if tree.get(p) is not None
                     and tree[p] not in (world.tree.get(p), world.clean.get(p))]  # fmt: skip
            if gone or wrong:
                if len(self.worlds) == 1:
                    raise Fault(f"{step[0]} was hurt, and lost {gone}, made {wrong}")
                continue
            found.append(world.edit(tree))
        self.worlds = found or self.worlds

    def check_log(self) -> None:
        if self.place.session is None:
            return
        history = self.place.session / "history"
        log = self.place.log()
        now = {name: json.dumps(entry).encode() for name, entry in log.items()}
        for entry in log.values():
            digest = entry["digest"]
            data = (history / f"{digest}.img").read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise Fault(f"the image {digest[:8]} of the log is another")
            now[digest] = data
        base = self.place.session / "base.json"
        if base.exists():
            digest = json.loads(base.read_bytes())["digest"]
            data = (history / f"{digest}.img").read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise Fault("the base's image is another")
        gone = [name for name, data in self.kept.items() if now.get(name) != data]
        if gone:
            raise Fault(f"gone from the log, or another: {gone}")
        self.kept = now

    # -- the end

    def finish(self) -> bytes:
        """Whatever state it is in, a user can go on; the image at the end.

        What may stand in the way is put aside as a user would: scripts are removed, and what
        changed elsewhere is overwritten."""
        if self.place.session is None or not any(world.base for world in self.worlds):
            if self.place.held().tree is None:
                self.step(["elsewhere", "image", 0])
            self.step(["mount", "", 0, None])
        self.step(["recover", "", 0, None])
        if self.place.tree() is None:
            if self.place.held().tree is None:
                self.step(["elsewhere", "image", 0])
            self.step(["mount", "", 0, None])
        for path, data in sorted((self.place.tree() or {}).items()):
            if path.endswith((".py", ".mpy")) and data is not None:
                self.edit(["remove", path, "a.txt", 0])
        self.edit(["write", "later.txt", "", 0])
        self.step(["commit --force", "", 0, None])
        self.step(["umount", "", 0, None])
        self.step(["mount", "", 0, None])
        for digest in self.owed:
            if digest not in self.kept:
                raise Fault(f"the image {digest[:8]} was overwritten, and is not in the log")
        held = self.place.held()
        if held.tree is None or held.tree != self.worlds[0].target.tree:
            raise Fault("the target at the end")
        return image_part(held.data or b"") or b""
