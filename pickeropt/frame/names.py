"""Names of micrographs that match no file: the rule that would make them match."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pickeropt.io.find import EXTENSIONS

SAMPLE = 20
"""Names that rules are guessed from; each is then tried on all."""
LEAST = 3
"""Letters that a name must have to be looked for inside another."""
_DIGIT = re.compile(r"\d")
_PREFIX = re.compile(r"^\d{15,21}_")


@dataclass(frozen=True)
class Rule:
    """A change of names.

    what : in words, e.g. ``without _DW``
    matched : how many of the missing names it makes match; example : one of them, and the file
    """

    what: str
    matched: int
    example: tuple[str, str]


@dataclass(frozen=True)
class _Change:
    """Text that is taken off or put before and behind a stem, and whether case counts."""

    drop_before: str = ""
    drop_behind: str = ""
    before: str = ""
    behind: str = ""
    any_case: bool = False
    drop_number: bool = False

    def apply(self, stem: str) -> str | None:
        """The changed stem, None where there is nothing to take off."""
        if self.drop_number:
            stem, count = _PREFIX.subn("", stem)
            if not count:
                return None
        if not (stem.startswith(self.drop_before) and stem.endswith(self.drop_behind)):
            return None
        kept = stem[len(self.drop_before) : len(stem) - len(self.drop_behind)]
        changed = self.before + kept + self.behind
        return changed.lower() if self.any_case else changed

    @property
    def words(self) -> str:
        parts = ["without the number that cryoSPARC puts before the name"] if self.drop_number else []
        parts += [f"without {text!r}" for text in (self.drop_before, self.drop_behind) if text]
        parts += [f"with {self.before!r} before it"] if self.before else []
        parts += [f"with {self.behind!r} behind it"] if self.behind else []
        parts += ["with capitals and small letters as in the files"] if self.any_case else []
        return " and ".join(parts) or "with the extension of the files"


def propose_rule(missing: Sequence[str], files: Sequence[Path]) -> Rule | None:
    """The rule under which most of the missing names are those of files, None where there is none.

    Extensions and folders count for nothing here; a rule must lead to one file only.
    """
    stems: dict[str, list[Path]] = {}
    lower: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(path.stem, []).append(path)
        lower.setdefault(path.stem.lower(), []).append(path)
    guesses = Counter(g for name in missing[:SAMPLE] for g in set(_guesses(stem_of(name), stems)))
    rules = []
    likely = [change for change, _ in guesses.most_common(SAMPLE)]
    for change in [_Change(), _Change(any_case=True), *likely]:
        known = lower if change.any_case else stems
        pairs = [(name, known.get(change.apply(stem_of(name)) or "", [])) for name in missing]
        hits = [(name, found[0].name) for name, found in pairs if len(found) == 1]
        if len({file for _, file in hits}) == len(hits) > 0:
            rules.append(Rule(change.words, len(hits), hits[0]))
    return max(rules, key=lambda rule: (rule.matched, -len(rule.what)), default=None)


def stem_of(name: str) -> str:
    """The file name without folders and the extension of a micrograph."""
    last = PurePath(name).name
    return last[: last.rindex(".")] if last.lower().endswith(EXTENSIONS) else last


def _guesses(stem: str, stems: Iterable[str]) -> Iterator[_Change]:
    """Changes that make this one match: a file's stem in the name, the name in a file's stem, other ends.

    Digits tell micrographs apart, so none is changed at an end that differs, and no number is cut.
    """
    bare = _PREFIX.sub("", stem)
    if bare != stem:
        yield _Change(drop_number=True)
        return
    for other in stems:
        if min(len(stem), len(other)) < LEAST or other == stem:
            continue
        inner, outer = sorted((stem, other), key=len)
        before, found, behind = outer.partition(inner)
        if found and not _cuts_number(before, inner) and not _cuts_number(inner, behind):
            if outer == stem:
                yield _Change(drop_before=before, drop_behind=behind)
            else:
                yield _Change(before=before, behind=behind)
            continue
        length = next((i for i, (a, b) in enumerate(zip(stem, other, strict=False)) if a != b), 0)
        if length >= max(LEAST, len(stem) // 2) and not _DIGIT.search(stem[length:] + other[length:]):
            yield _Change(drop_behind=stem[length:], behind=other[length:])


def _cuts_number(left: str, right: str) -> bool:
    return left[-1:].isdigit() and right[:1].isdigit()
