"""`NamedTuple` without importing `typing`.

`import typing` pulls in `re` on Python 3.10 and 3.11 and costs as much as the rest of a short
command together, so the class syntax is kept for readers and type checkers while the class itself
comes from `collections.namedtuple`, which the interpreter loads in a millisecond.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False  # type checkers take any variable of this name as true
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _FromAnnotations(type):
        """Turns a class body of annotated fields into a `collections.namedtuple`."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = list(body["__annotations__"])
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in fields and key not in ("__module__", "__dict__", "__slots__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_FromAnnotations):
        """Base class, used as `typing.NamedTuple` is: fields annotated, defaults last, methods."""


__all__ = ["NamedTuple"]
