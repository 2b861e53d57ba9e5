"""The small faults that `scripts/mutants` puts into a source file: places in its text."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: what a comparison becomes: turned round, and for an order also with its bound moved
TURNED = {
    ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",)), ast.Lt: ("<", (">=", "<=")),
    ast.LtE: ("<=", (">", "<")), ast.Gt: (">", ("<=", ">=")), ast.GtE: (">=", ("<", ">")),
    ast.Is: ("is", ("is not",)), ast.IsNot: ("is not", ("is",)), ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)), ast.And: ("and", ("or",)), ast.Or: ("or", ("and",)),
}  # fmt: skip
#: what may be taken away with nothing else to notice it: a call, a change in place, a guard
DROPPED = (ast.AugAssign, ast.Raise, ast.Delete, ast.Break, ast.Continue)
#: fields whose text is for readers and type checkers, or that fail at import in any case
UNREAD = {"annotation", "returns", "decorator_list", "bases", "type_params"}


@dataclass(frozen=True)
class Mutation:
    """Bytes [start, end) of the file become `new`. name: stays the same while other places of the
    file change. line: of the statement around, as coverage counts them."""

    path: str
    name: str
    line: int
    start: int
    end: int
    new: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutations(path: str, source: bytes) -> list[Mutation]:
    names: dict[ast.AST, str] = {}
    functions: dict[int, str] = {}  # by line, dotted
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            names[child] = names.get(node, "")
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                names[child] = f"{names[child]}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                lines = range(child.body[0].lineno, (child.end_lineno or 0) + 1)
                functions.update(dict.fromkeys(lines, names[child]))
    texts = source.splitlines(keepends=True)
    starts = [sum(map(len, texts[:number])) for number in range(len(texts))]
    seen, found = Counter[str](), []

    def span(of: ast.AST) -> tuple[int, int]:
        begin = starts[of.lineno - 1] + of.col_offset
        return begin, starts[of.end_lineno - 1] + of.end_col_offset

    for node, line in _read(ast.parse(source), 1):
        for start, end, new in _faults(node, source, span):
            number = source.count(b"\n", 0, start)
            text, old = texts[number].decode().strip(), source[start:end].decode()
            name = f"{path}:{functions.get(number + 1, '')}:{text}:{old}->{new}"
            found.append(Mutation(path, f"{name}:{seen[name]}", line, start, end, new))
            seen[name] += 1
    return found


def _read(node: ast.AST, line: int) -> Iterator[tuple[ast.AST, int]]:
    """The nodes that matter when it runs, each with the line of its statement."""
    if isinstance(node, ast.stmt):
        line = node.lineno
    tests_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    if not isinstance(node, ast.Assert) and not tests_types:
        yield node, line
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if name not in UNREAD and isinstance(child, ast.AST):
                    yield from _read(child, line)


def _faults(
    node: ast.AST, source: bytes, span: Callable[[ast.AST], tuple[int, int]]
) -> Iterator[tuple[int, int, str]]:
    operands: list[ast.expr] = []
    operators: list[Any] = []
    if isinstance(node, ast.Compare):
        operands, operators = [node.left, *node.comparators], node.ops
    elif isinstance(node, ast.BoolOp):
        operands, operators = node.values, [node.op] * len(node.values)
    for left, operator, right in zip(operands, operators, operands[1:], strict=False):
        begin, (word, others) = span(left)[1], TURNED[type(operator)]
        between = source[begin : span(right)[0]]
        if match := re.search(word.replace(" ", r"\s+").encode(), between):
            for other in others:
                yield begin + match.start(), begin + match.end(), other
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int):
        new = str(not node.value) if isinstance(node.value, bool) else f"({node.value} + 1)"
        yield *span(node), new
    if isinstance(node, ast.With) and all(item.optional_vars is None for item in node.items):
        yield span(node)[0], span(node.items[-1].context_expr)[1], "if True"
    # A condition that is one comparison was turned round above.
    test = getattr(node, "test", None)
    if test is not None and not isinstance(test, (ast.Constant, ast.Compare)):
        begin, end = span(test)
        if isinstance(test, ast.UnaryOp) and source[begin:end].startswith(b"not "):
            yield begin, begin + 4, ""
        else:
            yield begin, end, f"not ({source[begin:end].decode()})"
    dropped = isinstance(node, DROPPED)
    if isinstance(node, ast.Assign):
        dropped = isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    elif isinstance(node, ast.Expr):  # not what is said, and to whom nobody listens
        said = isinstance(node.value, (ast.Constant, ast.Yield))
        dropped = not said and not ast.unparse(node.value).startswith("log.")
    if dropped:
        yield *span(node), "pass"
