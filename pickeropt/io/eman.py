"""Where the entries of one list of a JSON object lie, without making objects of the rest of it.

A walk over the tokens with a stack of open brackets: memory is one byte for each level of nesting.
Grammar: RFC 8259, and Python's NaN and Infinity, which EMAN2 writes.
"""

import re
from array import array
from collections.abc import Iterator

import numpy as np

from pickeropt.io.text import Spans

_BLANKS = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_CLOSES = {ord("]"): ord("["), ord("}"): ord("{")}
_ALLOWED = {
    "value": b"[{sv",
    "value or end": b"[{sv]",
    "key": b"s",
    "key or end": b"s}",
    "colon": b":",
    "comma or end": b",]}",
    "nothing": b"",
}
"""The tokens that may come next: brackets and signs, `s` for a string, `v` for another scalar."""


class JsonError(ValueError):
    """The text is no JSON from this offset on."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"no JSON at byte {offset}")
        self.offset = offset


def entry_spans(content: bytes, key: bytes) -> list[Spans]:
    """For each list called `key` in the outermost object, the (n, 2) spans of its entries.

    key : with its quotes. Several lists: the key stands there several times. Raises JsonError.
    """
    found: list[array[int]] = []
    named = inside = False
    for kind, (start, end), state, depth in _walk(content):
        if depth == 1 and state.startswith("key"):
            named = content[start:end] == key
        elif depth == 1 and state == "value" and named and kind == ord("["):
            inside = True
            found.append(array("q"))
        elif inside and depth == 2 and kind == ord("]"):
            inside = False
        elif inside:
            if depth == 2 and state.startswith("value"):
                found[-1].append(start)
            if (depth == 2 and kind in b"sv") or (depth == 3 and kind in b"]}"):
                found[-1].append(end)
    return [np.array(spans, dtype=np.int64).reshape(-1, 2) for spans in found]


def _walk(content: bytes) -> Iterator[tuple[int, tuple[int, int], str, int]]:
    """Every token: its kind, its span, and the state and number of open brackets before it."""
    open_ = bytearray()
    state = "value"
    at = _skip_blanks(content, 0)
    while at < len(content):
        kind, end = _token(content, at)
        if kind not in _ALLOWED[state]:
            raise JsonError(at)
        yield kind, (at, end), state, len(open_)
        state = _next(kind, state, open_, at)
        at = _skip_blanks(content, end)
    if state != "nothing":
        raise JsonError(at)


def _next(kind: int, state: str, open_: bytearray, at: int) -> str:
    """The state after a token; `open_` holds the brackets that are open."""
    if kind in b"[{":
        open_.append(kind)
        return "value or end" if kind == ord("[") else "key or end"
    if kind == ord(","):
        return "value" if open_[-1:] == b"[" else "key"
    if kind == ord(":"):
        return "value"
    if kind in b"]}":
        if open_[-1] != _CLOSES[kind]:
            raise JsonError(at)
        open_.pop()
    elif state.startswith("key"):
        return "colon"
    return "comma or end" if open_ else "nothing"


def _token(content: bytes, at: int) -> tuple[int, int]:
    """Kind and end of the token at an offset."""
    if content[at] in b"[]{}:,":
        return content[at], at + 1
    if content[at] == ord('"'):
        return ord("s"), _string_end(content, at + 1)
    scalar = _SCALAR.match(content, at)
    if scalar is None:
        raise JsonError(at)
    return ord("v"), scalar.end()


def _string_end(content: bytes, at: int) -> int:
    """After the closing quote of a string whose inside starts at an offset."""
    while True:
        plain = _PLAIN.match(content, at)
        assert plain is not None  # it matches nothing too
        at = plain.end()
        if content[at : at + 1] == b'"':
            return at + 1
        escape = _ESCAPE.match(content, at)
        if escape is None:
            raise JsonError(at)
        at = escape.end()


def _skip_blanks(content: bytes, at: int) -> int:
    blanks = _BLANKS.match(content, at)
    assert blanks is not None  # it matches nothing too
    return blanks.end()
