"""The outputs of a pruning: kept and rejected picks, and what its table and its summary hold.

The summary names the files that the run read, which is enough to write the outputs again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import OutputError
from pickeropt.io.inputs import Inputs, ListSource, Source
from pickeropt.io.lists import is_suffix_file, read_coordinate_list, read_suffix_file, rewrite_coordinate_list
from pickeropt.io.picks import companion_subsets, read_picks, subset
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.scores import with_scores
from pickeropt.prune.prune_config import REASONS, PruneSummary
from pickeropt.pruned_run import FILTER, KEPT, PROBABILITIES, REJECTED, ScoresTable

if TYPE_CHECKING:
    from pickeropt.prune.decision import Decision
    from pickeropt.prune.plan import PrunePlan


FILES, LISTS, PLACES = "files", "lists", "places"


def record(inputs: "PrunePlan") -> dict[str, Any]:
    """Name, path and sha256 of each file of picks and each list; path and Å/px of each micrograph."""
    files = [{"name": source.name, **_place(source.file.path, _contents(source.file))} for source in inputs.sources]
    lists = [
        {
            "name": listed.name,
            **_place(listed.coordinates.path, [listed.coordinates.content]),
            "targets": list(listed.targets),
        }
        for listed in inputs.lists
    ]
    places = {site.name: [str(site.path), float(site.pixel_size)] for site in inputs.picks.sites}
    return {FILES: files, **({LISTS: lists} if lists else {}), PLACES: places}


def read_recorded(summary: Mapping[str, Any]) -> Inputs:
    """The inputs of a run, read again.

    Raises OutputError for a summary that has none, and for a file that is gone or has changed;
    FormatError as `read_picks` does.
    """
    try:
        files = [(Path(entry["path"]), str(entry["name"]), entry["sha256"]) for entry in summary[FILES]]
        lists = [
            (Path(entry["path"]), str(entry["name"]), entry["sha256"], tuple(map(str, entry["targets"])))
            for entry in summary.get(LISTS, ())
        ]
    except (KeyError, TypeError) as error:
        what = "summary.json does not say which files the run read; it is of an earlier pickeropt, or changed"
        raise OutputError(f"{what}: prune once more") from error
    _check_there([*(entry[0] for entry in files), *(entry[0] for entry in lists)])
    sources = []
    for path, name, digest in files:
        file = read_picks(path)
        _check_same(path, _digest(_contents(file)), digest)
        sources.append(Source(file, name))
    listed = []
    for path, name, digest, targets in lists:
        coordinates = read_suffix_file(path) if is_suffix_file(path) else read_coordinate_list(path)
        _check_same(path, _digest([coordinates.content]), digest)
        listed.append(ListSource(coordinates, name, targets))
    return Inputs(tuple(sources), tuple(listed), ())


def _place(path: Path, contents: Sequence[bytes]) -> dict[str, str]:
    return {"path": str(path.absolute()), "sha256": _digest(contents)}


def _contents(file: PicksFile) -> list[bytes]:
    """The bytes of a file of picks, and of those that go with it."""
    return [file.content, *(companion.path.read_bytes() for companion in file.companions)]


def _digest(contents: Sequence[bytes]) -> str:
    """sha256 of the bytes of one file, or of several one after the other."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


def _check_there(paths: Sequence[Path]) -> None:
    gone = [str(path) for path in paths if not path.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise OutputError(f"{gone[0]}{more}: the run read it, but it is gone; put it back, or prune once more")


def _check_same(path: Path, found: str, recorded: object) -> None:
    if found != recorded:
        raise OutputError(f"{path}: has changed since the run read it; prune once more")


def write_picks(
    folder: Path, inputs: Inputs, keep: NDArray[np.bool_], out: Path, scores: NDArray[np.floating] | None
) -> None:
    """`kept/NAME` and `rejected/NAME` of every input, under `folder`.

    keep : (n,) bool; out : the name that `folder` will have, in the paths of a list
    scores : (n,) P(particle) to put into the files, None to leave them as they are
    """
    start = 0
    for source in inputs.sources:
        rows = slice(start, start + len(source.file.picks))
        start = rows.stop
        file = source.file if scores is None else with_scores(source.file, scores[rows])
        for side, chosen in ((KEPT, keep[rows]), (REJECTED, ~keep[rows])):
            place = folder / side / source.name
            _write(place, subset(file, chosen))
            for name, data in companion_subsets(file, chosen).items():
                _write(place.parent / name, data)
    for side in (KEPT, REJECTED):
        for listed in inputs.lists:
            paths = [(out / side / target).as_posix() for target in listed.targets]
            _write(folder / side / listed.name, rewrite_coordinate_list(listed.coordinates, paths))


def scores_table(plan: "PrunePlan", decision: "Decision") -> ScoresTable:
    """The scores of a run as they are written.

    With filters come what they measured, and in `filter` the one that is against the pick.
    """
    picks = plan.picks
    sizes = np.diff(picks.starts)
    x, y = picks.coordinates.T
    columns = {
        "file": np.repeat(np.arange(len(sizes)), sizes),
        "row": np.concatenate([np.arange(size) for size in sizes]),
        "micrograph": picks.micrograph,
        "x": x,
        "y": y,
        "figure_of_merit": picks.figure_of_merit,
        "class": decision.judged.best,
        "score": decision.scores.particle,
        PROBABILITIES: decision.scores.probabilities,
        **({FILTER: decision.judged.reasons} if decision.filtered else {}),
        "kept": decision.judged.keep,
    }
    return ScoresTable(
        class_names=decision.scores.class_names,
        files=tuple(source.name for source in plan.sources),
        micrographs=tuple(site.name for site in picks.sites),
        reasons=REASONS,
        columns=columns,
        measures=decision.measures,
    )


def summary_content(
    summary: PruneSummary, settings: Mapping[str, Any], inputs: tuple[Sequence[Path], "PrunePlan"]
) -> dict[str, Any]:
    """`summary.json`: the counts, the settings of the run and its folder, and which files it read.

    settings : as `recorded_settings` gives them
    inputs : as they were given, and as they were found
    """
    given, plan = inputs
    content = {"pickeropt": pickeropt.__version__, **fields_of(summary)}
    content |= {"inputs": [str(path) for path in given], "folder": str(Path.cwd())}
    return {**content, "settings": settings, **record(plan)}


def fields_of(summary: PruneSummary) -> dict[str, Any]:
    """The summary as `summary.json` has it."""
    worst = [{"micrograph": name, "picks": picks, "rejected": lost} for name, picks, lost in summary.worst]
    return {**asdict(summary), "worst": worst}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
