"""Docstrings of this package as Markdown, for mkdocstrings.

A docstring lists names as ``name : text``, starts paragraphs with "Returns" or "Raises", and ends with an
example that runs as a test. These become a list, paragraphs, and a block of code.
"""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"(?P<names>[*\w]+(?:, [*\w]+)*) : (?P<text>.*)")
EXAMPLE = (">>> ", "... ")
PARAGRAPHS = ("Returns ", "Raises ")


class HouseDocstrings(griffe.Extension):
    """Rewrites the docstring of every object of the package."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The docstring with its entries as list items and its examples as code."""
    lines: list[str] = []
    listing = example = False
    for line in docstring.splitlines():
        if example and not line.strip():
            lines.append("```")
            example = False
        if not example and line.startswith(EXAMPLE[0]):
            lines += ["", "```pycon"]
            example, listing = True, False
        if example:
            lines.append(line)
            continue
        entry = ENTRY.fullmatch(line)
        if entry:
            lines += [] if listing else [""]
            line = "- " + ", ".join(f"`{name}`" for name in entry["names"].split(", ")) + f": {entry['text']}"
            listing = True
        elif line[:1].strip():
            lines += [""] if listing or line.startswith(PARAGRAPHS) else []
            listing = False
        lines.append("" if line.strip() == "::" else line)
    return "\n".join([*lines, "```"] if example else lines)
