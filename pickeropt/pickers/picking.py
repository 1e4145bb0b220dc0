"""Picking: from micrographs to one coordinate file each."""

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import pickeropt
from pickeropt.errors import GeometryError, MicrographError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.cbox import write_cbox
from pickeropt.io.eman import write_box
from pickeropt.io.find import EXTENSIONS, MicrographFinder
from pickeropt.io.inputs import SUMMARY
from pickeropt.io.micrographs import choose_pixel_size, read_micrograph, read_micrograph_header
from pickeropt.io.relion_star import write_star
from pickeropt.models.fitting import choose_device
from pickeropt.pickers.picker_config import PickRunConfig, PickRunReport
from pickeropt.pickers.picker_file import PickerFile, load_picker, read_picker
from pickeropt.pickers.picker_records import Detections, OnProgress, Picker
from pickeropt.records import FloatArray
from pickeropt.resumable import Workspace, check_not_input, check_out, open_workspace, record_key

ENDINGS = {"star": "_autopick.star", "box": ".box", "cbox": ".cbox"}
"""What follows a micrograph's name without extension in that of its file of picks."""
COLUMNS = 5
"""Of a record: x, y, score, width, height; the latter two 0 where the picker does not measure them."""


@dataclass(frozen=True)
class PickingTarget:
    """One micrograph to pick on: its (h, w) px, Å/px, and size and time of change of its file."""

    path: Path
    pixel_size: float
    stamp: tuple[int, int]


def pick(
    micrographs: Sequence[Path],
    config: PickRunConfig,
    *,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PickRunReport:
    """Pick on files and folders of micrographs; make `config.out`.

    Every micrograph gets a file, an empty one where nothing was found. A run that was killed goes on from
    `OUT.partial` when the same command is given; format and threshold may differ. Micrographs are only read.

    Raises PickeroptError before anything is computed: settings, picker, device, micrographs that cannot be
    read, two of one name, unknown pixel sizes, a particle larger than its micrograph, output in the way;
    later MicrographError for pixels that are constant or not finite.
    """
    begun = time.perf_counter()
    config.check()
    check_out(config.out, config.overwrite)
    file = read_picker(config.picker)
    device = choose_device(config.device)
    diameter = config.diameter_angstrom or file.diameter_angstrom
    targets = find_targets(micrographs, config.pixel_size, diameter)
    folders = [path for path in micrographs if path.is_dir()]
    check_not_input(config.out, folders, [config.picker, *(target.path for target in targets)])
    threshold = file.threshold if config.threshold is None else config.threshold
    picker = load_picker(file, config.picker, device)
    settings = {
        "the version": pickeropt.__version__,
        "the picker": file.digest,
        "--diameter": repr(diameter),
        "--pixel-size": "of the files" if config.pixel_size is None else repr(config.pixel_size),
    }
    with open_workspace(config.out, settings, config.overwrite) as workspace:
        found, resumed = _detect_all(targets, picker, (file.digest, diameter), workspace, on_progress)
        shutil.rmtree(workspace.staging, ignore_errors=True)
        kept = [detections.above(threshold) for detections in found]
        for target, detections in zip(targets, kept, strict=True):
            path = workspace.staging / f"{target.path.stem}{ENDINGS[config.format]}"
            write_bytes_atomically(path, encoded(detections, target, diameter, config.format))
        report = PickRunReport(
            out=config.out,
            micrographs=len(targets),
            picks=sum(map(len, kept)),
            empty=sum(not len(detections) for detections in kept),
            resumed=resumed,
            threshold=threshold,
            seconds=time.perf_counter() - begun,
        )
        _write_summary(workspace.staging / SUMMARY, report, file, targets, kept)
        workspace.publish()
    return report


def find_targets(given: Sequence[Path], pixel_size: float | None, diameter: float) -> list[PickingTarget]:
    """The micrographs in files and folders, sorted by path, each once.

    Raises MicrographError where there is none, one is missing or cannot be read, or two have one name
    without folder and extension; GeometryError for an unknown pixel size and a particle that does not fit.
    """
    paths: set[Path] = set()
    for path in given:
        inside = (
            [one for one in MicrographFinder([path]).paths() if one.suffix.lower() != ".mrcs"]
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise MicrographError(f"{path}: no micrograph in it ({', '.join(EXTENSIONS)}); give their folder")
        paths |= {one.resolve() for one in inside}
    if not paths:
        raise MicrographError("no micrographs given; give their files or folders")
    owners: dict[str, Path] = {}
    for path in sorted(paths):
        other = owners.setdefault(path.stem, path)
        if other != path:
            what = f"{other} and {path} have the same name without their folders"
            raise MicrographError(f"{what}; pick on them one after the other")
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda path: _target(path, pixel_size, diameter), sorted(paths)))


def _target(path: Path, flag: float | None, diameter: float) -> PickingTarget:
    header = read_micrograph_header(path)
    pixel_size = choose_pixel_size(flag, header, {})
    height, width = header.shape
    if diameter / pixel_size > min(height, width):
        what = f"{path}: a particle of {diameter:g} Å is {diameter / pixel_size:.0f} px across"
        raise GeometryError(f"{what}, the micrograph {width} x {height} px; check --diameter and --pixel-size")
    status = path.stat()
    return PickingTarget(path, pixel_size, (status.st_size, status.st_mtime_ns))


def _detect_all(
    targets: Sequence[PickingTarget],
    picker: Picker,
    made_by: tuple[str, float],
    workspace: Workspace,
    on_progress: OnProgress,
) -> tuple[list[Detections], int]:
    """The detections of each micrograph, and how many of them an earlier run had done.

    made_by : digest of the picker and diameter in Å
    """
    keys = [record_key(*made_by, str(t.path), t.pixel_size, t.stamp) for t in targets]
    records = [workspace.load(key, (None, COLUMNS)) for key in keys]
    todo = [i for i, record in enumerate(records) if record is None]
    with ThreadPoolExecutor(1) as reader:  # the next micrograph is read while this one is processed
        ahead = [reader.submit(read_micrograph, targets[i].path) for i in todo[:1]]
        for place, i in enumerate(todo):
            micrograph = ahead.pop().result()
            ahead = [reader.submit(read_micrograph, targets[j].path) for j in todo[place + 1 : place + 2]]
            found = picker.detect(micrograph, targets[i].pixel_size, made_by[1])
            records[i] = _record(found)
            workspace.save(keys[i], _record(found))
            on_progress("picking", len(targets) - len(todo) + place + 1, len(targets))
    return [_detections(record) for record in records if record is not None], len(targets) - len(todo)


def _record(found: Detections) -> FloatArray:
    sizes = np.zeros((len(found), 2)) if found.sizes is None else found.sizes
    return np.column_stack([found.coordinates, found.scores, sizes]).astype(np.float32).reshape(-1, COLUMNS)


def _detections(record: FloatArray) -> Detections:
    numbers = record.astype(np.float64)
    return Detections(numbers[:, :2], numbers[:, 2], numbers[:, 3:] if numbers[:, 3:].any() else None)


def encoded(found: Detections, target: PickingTarget, diameter: float, kind: str) -> bytes:
    """The file of one micrograph's picks; boxes that were not measured have the particle's diameter."""
    picks = found.as_picks(target.path.stem)
    if kind == "star":
        return write_star(picks)
    boxes = found.sizes if found.sizes is not None else np.full((len(found), 2), diameter / target.pixel_size)
    return write_box(picks, boxes) if kind == "box" else write_cbox(picks, boxes)


def _write_summary(
    path: Path, report: PickRunReport, file: PickerFile, targets: Sequence[PickingTarget], kept: Sequence[Detections]
) -> None:
    summary = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(report).items()}
    summary |= {"version": pickeropt.__version__, "picker": file.kind, "picker_digest": file.digest}
    summary["picks_on"] = {str(t.path): len(found) for t, found in zip(targets, kept, strict=True)}
    write_bytes_atomically(path, json.dumps(summary, indent=1).encode())
