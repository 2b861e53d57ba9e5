"""The small faults that `scripts/mutants` puts into a source file: places in its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

#: what a comparison becomes: turned round, and for an order also with its bound moved
TURNED = {
    ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",)), ast.Lt: ("<", (">=", "<=")),
    ast.LtE: ("<=", (">", "<")), ast.Gt: (">", ("<=", ">=")), ast.GtE: (">=", ("<", ">")),
    ast.Is: ("is", ("is not",)), ast.IsNot: ("is not", ("is",)), ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}  # fmt: skip
#: what may be taken away with nothing else to notice it: a call, a change in place, a guard
DROPPED = (ast.AugAssign, ast.Raise, ast.Delete, ast.Break, ast.Continue)
#: fields whose text is for readers and type checkers, or that fail at import in any case
UNREAD = {"annotation", "returns", "decorator_list", "bases", "type_params"}


@dataclass(frozen=True)
class Mutation:
    """Bytes [start, end) of the file at `path` become `new`. lines: of the statement around."""

    path: str
    where: str  # the function, dotted; empty: the module
    lines: tuple[int, int] = field(compare=False)
    start: int = field(compare=False)
    end: int = field(compare=False)
    old: str
    new: str
    text: str  # the line, stripped
    nth: int  # of those that are the same in this function

    @property
    def name(self) -> str:
        """Stays the same while other places of the file change."""
        return f"{self.path}:{self.where}:{self.text}:{self.old}->{self.new}:{self.nth}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def places(source: bytes) -> dict[int, str]:
    """The function in which each line stands, dotted."""
    found: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
                if not isinstance(child, ast.ClassDef):
                    lines = range(child.body[0].lineno, (child.end_lineno or 0) + 1)
                    found.update(dict.fromkeys(lines, inner))
            visit(child, inner)

    visit(ast.parse(source), "")
    return found


def mutations(path: str, source: bytes) -> list[Mutation]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    functions, seen, found = places(source), {}, []
    for first, last, start, end, new in _walk(ast.parse(source), source, starts, (1, 1)):
        number = source.count(b"\n", 0, start) + 1
        text = source[starts[number - 1] : starts[number]].decode().strip()
        key = (functions.get(number, ""), text, source[start:end].decode(), new)
        seen[key] = nth = seen.get(key, -1) + 1
        found.append(Mutation(path, key[0], (first, last), start, end, key[2], new, text, nth))
    return found


Found = tuple[int, int, int, int, str]


def _walk(
    node: ast.AST, source: bytes, starts: list[int], lines: tuple[int, int]
) -> Iterator[Found]:
    def at(line: int | None, column: int | None) -> int:
        return starts[(line or 0) - 1] + (column or 0)

    def span(of: ast.AST) -> tuple[int, int]:
        return at(of.lineno, of.col_offset), at(of.end_lineno, of.end_col_offset)

    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno
        lines = (node.lineno, max(node.lineno, last or 0))
    if isinstance(node, ast.Assert) or (
        isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ):
        return
    for start, end, new in _faults(node, source, span):
        yield *lines, start, end, new
    for name, value in ast.iter_fields(node):
        if name not in UNREAD:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child, source, starts, lines)


Span = Callable[[ast.AST], tuple[int, int]]


def _faults(node: ast.AST, source: bytes, span: Span) -> Iterator[tuple[int, int, str]]:
    if isinstance(node, ast.Compare):
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            yield from _between(left, right, *TURNED[type(operator)], source, span)
            left = right
    elif isinstance(node, ast.BoolOp):
        words = ("and", ("or",)) if isinstance(node.op, ast.And) else ("or", ("and",))
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _between(left, right, *words, source, span)
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int):
        new = str(not node.value) if isinstance(node.value, bool) else f"({node.value} + 1)"
        yield *span(node), new
    elif isinstance(node, ast.With) and all(item.optional_vars is None for item in node.items):
        yield span(node)[0], span(node.items[-1].context_expr)[1], "if True"
    # A condition that is one comparison was turned round above.
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(
        node.test, (ast.Constant, ast.Compare)
    ):
        begin, end = span(node.test)
        if isinstance(node.test, ast.UnaryOp) and source[begin:end].startswith(b"not "):
            yield begin, begin + 4, ""
        else:
            yield begin, end, f"not ({source[begin:end].decode()})"
    if _may_be_dropped(node):
        yield *span(node), "pass"


def _between(
    left: ast.AST, right: ast.AST, word: str, others: tuple[str, ...], source: bytes, span: Span
) -> Iterator[tuple[int, int, str]]:
    begin, end = span(left)[1], span(right)[0]
    pattern = re.escape(word).replace(r"\ ", r"\s+").encode()
    if match := re.search(pattern, source[begin:end]):
        for other in others:
            yield begin + match.start(), begin + match.end(), other


def _may_be_dropped(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if isinstance(node, ast.Expr):  # not what is said, and to whom nobody listens
        said = isinstance(node.value, (ast.Constant, ast.Yield))
        return not said and not ast.unparse(node.value).startswith("log.")
    return isinstance(node, DROPPED)
