"""Rows of text as Python objects, where there are few of them at once, and numbers as text."""

from collections.abc import Iterator

from pickeropt.io.text import Spans

LONGEST_LINE = 2**16
"""Bytes; no row of picks is longer where lines become Python objects."""


def spans_in_turn(spans: Spans) -> Iterator[tuple[int, int]]:
    """The spans as Python numbers, some thousand at once."""
    for first in range(0, len(spans), 10_000):
        yield from map(tuple, spans[first : first + 10_000].tolist())


def plain(value: float) -> str:
    """A coordinate with at most four decimals, whole numbers without."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
