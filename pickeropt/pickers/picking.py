"""The two commands of a picker: train it from coordinates on micrographs, and pick on micrographs with it."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import CheckpointError, FormatError, GeometryError, MicrographError, PickeroptError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.cbox import write_cbox
from pickeropt.io.eman import write_box
from pickeropt.io.find import EXTENSIONS, MicrographFinder
from pickeropt.io.inputs import SUMMARY, read_inputs
from pickeropt.io.labels import labels_of
from pickeropt.io.micrographs import choose_pixel_size, read_micrograph, read_micrograph_header
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import write_star
from pickeropt.models.fitting import choose_device, seed_everything
from pickeropt.pickers import picker_records as kinds
from pickeropt.pickers.picker_config import PickRunConfig, PickRunReport, PickTrainConfig, PickTrainReport
from pickeropt.pickers.picker_records import (
    Detections,
    Material,
    PickedMicrograph,
    Picker,
    PickerFile,
    PickerTrainingJob,
    TrainedPicker,
    load_picker,
    picker_bytes,
    read_picker,
)
from pickeropt.records import PARTICLE, FloatArray, OnProgress
from pickeropt.resumable import TrainingFolder, Workspace, check_not_input, check_out, open_workspace, record_key
from pickeropt.sites import Site, SitedPicks, locate

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


def read_material(
    coords: Sequence[Path], micrographs: Sequence[Path], config: PickTrainConfig
) -> tuple[Material, tuple[str, ...]]:
    """The micrographs with their particles, those held back apart, and warnings.

    coords : files of coordinates of any format, or folders of them; where there are classes only those
        called `particle` count
    micrographs : folders to look for the micrographs in
    Raises FormatError for what cannot be read and where no particle is left, MicrographError for
    micrographs that are missing, GeometryError for particles outside their micrograph, for unknown
    diameters and for pixel sizes that are unknown or differ.
    """
    found = read_inputs(coords)
    files = [source.file for source in found.sources]
    particles = [_particles(file) for file in files]
    picks = locate([file for file, _ in particles], micrographs, config.pixel_size)
    if not len(picks):
        given = ", ".join(str(path) for path in coords)
        what = f"{given}: no particle in {len(files)} files"
        raise FormatError(f"{what}; where there are classes, particles must be called {PARTICLE!r}")
    diameters = np.concatenate([those for _, those in particles])
    sites = sorted(picks.sites, key=lambda site: site.path)
    labelled = [_labelled(site, picks, diameters[site.rows], config) for site in sites]
    material = split(labelled, config.held_back, config.seed)
    if config.particles is not None:
        material = replace(material, training=chosen(material.training, config.particles, config.seed))
    return material, (*found.warnings, *_warnings(material, config))


def read_unlabelled(folders: Sequence[Path], config: PickTrainConfig, diameter: float) -> Material:
    """All micrographs in folders, none of their particles known.

    diameter : Å, where `config` names none
    Raises MicrographError where there is no micrograph, GeometryError for unknown pixel sizes.
    """
    if not folders:
        raise MicrographError("no coordinates and no micrographs; give --coords, or --micrographs to pick on")
    paths = MicrographFinder(folders).paths()
    if not paths:
        given = ", ".join(str(folder) for folder in folders)
        raise MicrographError(f"{given}: no micrograph in it; give the folder of the micrographs")
    none = np.empty((0, 2))
    sizes = [choose_pixel_size(config.pixel_size, read_micrograph_header(path), {}) for path in paths]
    known = config.diameter_angstrom or diameter
    return Material(
        tuple(PickedMicrograph(path.resolve(), none, size, known) for path, size in zip(paths, sizes, strict=True)),
        (),
    )


def _particles(file: PicksFile) -> tuple[PicksFile, NDArray[np.float64]]:
    """The file's rows that are particles, and the diameters that it names, NaN where it names none."""
    picks = file.picks
    if picks.class_names is None:
        return file, np.full(len(picks), np.nan)
    rows = np.flatnonzero([name == PARTICLE for name in picks.class_names])
    kept = replace(
        picks,
        coordinates=picks.coordinates[rows],
        micrograph_index=picks.micrograph_index[rows],
        figure_of_merit=picks.figure_of_merit[rows],
        class_names=(PARTICLE,) * len(rows),
    )
    return replace(file, picks=kept, row_spans=file.row_spans[rows]), labels_of(file).diameters[rows]


def _labelled(
    site: Site, picks: SitedPicks, diameters: NDArray[np.float64], config: PickTrainConfig
) -> PickedMicrograph:
    height, width = site.shape
    xy = picks.coordinates[site.rows]
    outside = np.flatnonzero(((xy < -0.5) | (xy > np.array([width, height]) - 0.5)).any(axis=1))
    if len(outside):
        row = int(site.rows[outside[0]])
        x, y = picks.coordinates[row].tolist()
        what = f"{picks.place(row)}: the particle at x {x:g}, y {y:g} lies outside {site.path}, {width} x {height} px"
        raise GeometryError(f"{what}; give the micrographs that were picked with --micrographs")
    return PickedMicrograph(site.path, xy, site.pixel_size, _diameter(site.path, diameters, config.diameter_angstrom))


def _diameter(path: Path, said: NDArray[np.float64], flag: float | None) -> float:
    if flag is not None:
        return flag
    known = said[~np.isnan(said)]
    if not len(known):
        raise GeometryError(f"{path}: its coordinates name no particle diameter; give it with --diameter (Å)")
    if known.max() > known.min() * 1.01:
        what = f"{path}: particles of {known.min():g} Å and of {known.max():g} Å"
        raise GeometryError(f"{what}; give one diameter with --diameter")
    return float(known[0])


def split(labelled: Sequence[PickedMicrograph], share: float, seed: int) -> Material:
    """Hold back a share of the micrographs, one at least, none where there is only one."""
    count = min(max(1, round(share * len(labelled))), len(labelled) - 1)
    order = np.random.default_rng([seed, 1]).permutation(len(labelled))
    held = set(order[:count].tolist())
    return Material(
        tuple(one for i, one in enumerate(labelled) if i not in held),
        tuple(one for i, one in enumerate(labelled) if i in held),
    )


def chosen(training: Sequence[PickedMicrograph], particles: int, seed: int) -> tuple[PickedMicrograph, ...]:
    """At most so many of the particles, drawn at random; the rest become `others`."""
    sizes = [len(one.coordinates) for one in training]
    drawn = np.random.default_rng([seed, 2]).permutation(sum(sizes))[:particles]
    taken = np.zeros(sum(sizes), dtype=np.bool_)
    taken[drawn] = True
    parts = np.split(taken, np.cumsum(sizes)[:-1])
    return tuple(
        replace(
            one,
            coordinates=one.coordinates[part],
            others=np.concatenate([one.others, one.coordinates[~part]]),
        )
        for one, part in zip(training, parts, strict=True)
    )


def _warnings(material: Material, config: PickTrainConfig) -> list[str]:
    warnings = []
    if not material.testing:
        warnings.append("one micrograph only: the threshold is chosen on the particles that were learnt from")
    count = sum(len(one.coordinates) for one in material.training)
    if config.particles is not None and count < config.particles:
        warnings.append(f"{count} particles where --particles asks for {config.particles}; all of them are used")
    return warnings


def train_picker(
    coords: Sequence[Path],
    micrographs: Sequence[Path],
    out: Path,
    config: PickTrainConfig,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PickTrainReport:
    """Train a picker and write it to `out`.

    coords, micrographs : as `material.read_material` takes them. Without coordinates a picker that can
        (`kinds.ITERATES`) goes on from `config.init` on its best picks on all micrographs
    A training that was killed goes on from `OUT.partial` when it is called with the same arguments again,
    to the identical file on a CPU with as many threads.

    Raises PickeroptError before anything is computed: settings, coordinates, micrographs, device, a picker
    to start from that is of another kind, output in the way.
    """
    begun = time.perf_counter()
    config.check()
    start = _start(config)
    chosen = kinds.make_settings(config.picker, config.settings, start.settings if start else None)
    device = choose_device(config.device)
    material, warnings = _material(coords, micrographs, config, start)
    place, settings = TrainingFolder(out), _settings(material, config, asdict(chosen), start)
    if not place.check(settings, overwrite):
        place.begin(settings)
    seed_everything(config.seed)
    job = PickerTrainingJob(config.seed, device, place.folder, on_progress)
    if start is not None and not coords:
        before = TrainedPicker(dict(start.settings), dict(start.state), start.threshold, {})
        trained = kinds.iterate(config.picker, before, material.training, chosen, job)
    else:
        trained = kinds.train(config.picker, material, chosen, job, start.state if start else None)
    diameter = float(np.median([one.diameter_angstrom for one in (*material.training, *material.testing)]))
    counts = {
        "micrographs": len(material.training),
        "held_back": len(material.testing),
        "particles": sum(len(one.coordinates) for one in material.training),
    }
    provenance = {
        **counts,
        "seed": config.seed,
        "init": start.digest if start else None,
        "figures": trained.figures,
    }
    place.publish(out, picker_bytes(config.picker, trained, diameter, provenance))
    place.clear()
    return PickTrainReport(
        out=out,
        picker=config.picker,
        threshold=trained.threshold,
        figures=trained.figures,
        seconds=time.perf_counter() - begun,
        warnings=warnings,
        **counts,
    )


def _material(
    coords: Sequence[Path], micrographs: Sequence[Path], config: PickTrainConfig, start: PickerFile | None
) -> tuple[Material, tuple[str, ...]]:
    if coords:
        return read_material(coords, micrographs, config)
    if start is None or config.picker not in kinds.ITERATES:
        what = "no coordinates to learn from; give --coords"
        raise PickeroptError(f"{what}, or with --picker {'|'.join(kinds.ITERATES)} a trained one with --init")
    return read_unlabelled(micrographs, config, start.diameter_angstrom), ()


def _start(config: PickTrainConfig) -> PickerFile | None:
    """The picker to start from. Raises CheckpointError where it is of another kind."""
    if config.init is None:
        return None
    start = read_picker(config.init)
    if start.kind != config.picker:
        what = f"--init {config.init}: a {start.kind} picker, where --picker is {config.picker}"
        raise CheckpointError(f"{what}; give one of the same kind")
    return start


def _settings(
    material: Material, config: PickTrainConfig, chosen: Mapping[str, Any], start: PickerFile | None
) -> dict[str, Any]:
    """All that decides the result, for JSON."""
    settings = {
        "picker": config.picker,
        "seed": config.seed,
        "settings": chosen,
        "init": start.digest if start else None,
        "training": [_fingerprint(one) for one in material.training],
        "testing": [_fingerprint(one) for one in material.testing],
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _fingerprint(one: PickedMicrograph) -> list[Any]:
    status = one.path.stat()
    numbers = [len(one.known), float(one.coordinates.sum()), one.pixel_size, one.diameter_angstrom]
    return [str(one.path), status.st_size, status.st_mtime_ns, *numbers]
