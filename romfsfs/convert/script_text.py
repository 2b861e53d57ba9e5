"""The text of a script: its encoding, and characters that look like Python's but are not.

MicroPython reads bytes. It takes every byte above 127 for a letter, so mpy-cross compiles what an
editor's automatic quotes, an input method or another encoding left in the code, and the script
fails on the camera with a NameError. CPython's parser is asked about such characters only.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings

from romfsfs.convert.types import Diagnostic, error

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: An encoding declaration (PEP 263), which editors for CPython follow and MicroPython does not.
_DECLARED = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
#: A string (`text`), which is kept, or a comment, which is blanked.
_TOKENS = re.compile(
    rb"""(?P<text>'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|'(?:[^\\'\n]|\\.)*'|"""
    rb"""\"(?:[^\\"\n]|\\.)*\")|#[^\n]*""",
    re.S,
)
_INVALID = re.compile(r"invalid (?:non-printable )?character .*U\+([0-9A-F]+)")
#: Categories of characters typed by mistake for Python's: punctuation, signs, spaces, invisible
#: ones. Not emoji and the like: MicroPython accepts them in names, and a user may want that.
_CATEGORIES = frozenset({"Pi", "Pf", "Po", "Ps", "Pe", "Pd", "Sm", "Zs", "Cf", "Cc", "Zl", "Zp"})
_INVISIBLE = frozenset({"Cf", "Cc", "Zl", "Zp"})
_NAME_ESCAPE = re.compile(r"\\N\{([^}\n]*)\}")


def text_problem(path: str, source: bytes) -> Diagnostic | None:
    """What is wrong with the bytes of a script, whether or not it compiles."""
    if source.startswith(_UTF_16):
        return error("encoding", f"{path} is UTF-16; save it as UTF-8")
    if source.startswith(_BYTE_ORDER_MARK):
        message = f"{path} starts with a byte order mark, which MicroPython takes for part of the "
        return error("byte-order-mark", f"{message}first name; save it as UTF-8 without BOM")
    if source.isascii():
        return None
    # Comments are ignored: they are not in bytecode, and harmless where the source is stored.
    code = _TOKENS.sub(lambda match: match["text"] or b" " * len(match[0]), source)
    try:
        code.decode("utf-8")
    except UnicodeDecodeError as caught:
        return _not_utf_8(path, source, caught.start)
    return _look_alike(path, source)


def _not_utf_8(path: str, source: bytes, offset: int) -> Diagnostic:
    declared = next(filter(None, map(_DECLARED.match, source.split(b"\n", 2)[:2])), None)
    says = f" (it declares {declared[1].decode('ascii', 'replace')})" if declared else ""
    number = 1 + len(re.findall(b"\r\n|\r|\n", source[:offset]))
    message = f"{path}:{number}: not UTF-8{says}, the only encoding that MicroPython reads; save "
    message += "it as UTF-8"
    return error("encoding", message, excerpt(source, number, None))


def _look_alike(path: str, source: bytes) -> Diagnostic | None:
    """A diagnostic for the first character in the code that only looks like one of Python's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes that future Pythons will refuse
            ast.parse(source.decode("utf-8", "replace"))
    except SyntaxError as caught:
        found = _INVALID.match(caught.msg)
        number, column = caught.lineno or 1, caught.offset or 0
        if found:
            character = chr(int(found[1], 16))
        else:  # before 3.11.4 Python blames the number in front of the character
            character = (caught.text or "")[column : column + 1]
            if "literal" not in caught.msg or not character or character.isascii():
                return None  # MicroPython's syntax differs: its own compiler reports the rest
            column += 1
        if unicodedata.category(character) not in _CATEGORIES:
            return None
        name = unicodedata.name(character, "a control character").lower()
        shown = "" if unicodedata.category(character) in _INVISIBLE else f"{character} "
        code = f"U+{ord(character):04X}"
        message = f"{path}:{number}: {shown}({code}, {name}) is not valid in Python code"
        return error(
            "look-alike", f"{message}; {_instead(character)}", excerpt(source, number, column)
        )
    except (ValueError, RecursionError, MemoryError):  # NUL bytes, or nested too deeply
        pass
    return None


def _instead(character: str) -> str:
    category, plain = unicodedata.category(character), unicodedata.normalize("NFKC", character)
    if category in _INVISIBLE:
        return "remove it: it cannot be seen"
    if category in ("Pi", "Pf") or "QUOTATION" in unicodedata.name(character, ""):
        return "type \" or '"
    if category == "Zs":
        return "type a plain space"
    if category == "Pd" or character == "\N{MINUS SIGN}":
        return "type -"
    return f"type {plain}" if plain.isascii() else "replace it"


def name_escape(path: str, source: bytes) -> Diagnostic | None:
    r"""The diagnostic for a `\N{NAME}`, which MicroPython refuses: where, and what to write."""
    for number, line in enumerate(source.decode("utf-8", "replace").split("\n"), 1):
        match = _NAME_ESCAPE.search(line)
        if match:
            try:
                code = ord(unicodedata.lookup(match[1]))
                instead = f"write \\u{code:04x}" if code < 1 << 16 else f"write \\U{code:08x}"
            except (KeyError, TypeError):
                instead = "write the character itself"
            message = f"{path}:{number}: MicroPython does not know {match[0]}; {instead}"
            return error("script-error", message, excerpt(source, number, match.start() + 1))
    return None


def excerpt(source: bytes, number: int, column: int | None) -> str:
    """Line `number` and a caret under `column` (both from 1; None: its first character).

    "" for a blank line, or one that does not exist."""
    # MicroPython's line ends: `splitlines` would also end a line at a form feed.
    lines = re.split("\r\n|\r|\n", source.decode("utf-8", "replace"))
    if not 1 <= number <= len(lines) or not lines[number - 1].strip():
        return ""  # e.g. at the end of the script
    line = lines[number - 1].expandtabs(4)[:200]
    start = len(line) - len(line.lstrip()) if column is None else max(column - 1, 0)
    return f"    {line}\n    {' ' * min(start, len(line))}^\n"
