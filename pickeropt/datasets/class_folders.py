"""Class folders: one stack of boxes a class, cut from labelled micrographs by `dataset build`.

`OUT/NAME.mrcs` (n, s, s) float32, and `OUT/dataset.json`. Every box shows its particle `diameter_px` px
across, whatever the pixel size of the micrograph, because one folder has one scale:
`finetune --shots OUT --diameter D --pixel-size D/diameter_px` reads it, with any D. Grey values are in units
of the micrograph's noise from its median (`models.views`, clipped at 10), so that pretraining may use the
contrast against the micrograph. `finetune` scales each box by itself.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.dataset_config import BY, BuildConfig
from pickeropt.errors import GeometryError, MicrographError, OutputError, PickeroptError, ShotsError
from pickeropt.files import partial_name, write_bytes_atomically
from pickeropt.io.labels import PIXEL_SIZE, Labels, read_labels
from pickeropt.io.micrographs import AGREE, choose_pixel_size, read_micrograph, write_mrc
from pickeropt.io.picks_file import row_place
from pickeropt.models.views import cut_boxes, level_and_noise, make_view
from pickeropt.records import FloatArray, OnProgress
from pickeropt.shots import Rows, check_class_name, check_inside, choose_shots, common_pixel_size
from pickeropt.sites import Site, SitedPicks, locate

SMALLEST = 4.0
"""Particle diameter in px below which a particle cannot be resolved."""


@dataclass(frozen=True)
class ClassPoints:
    """n labelled points on micrographs, and the classes they make.

    names : of the classes to be written, sorted
    kinds : particle, contaminant, carbon, background … of each name
    labels : (n,) int64 into `names`; micrograph_index : (n,) int64 into `micrographs`
    coordinates : (n, 2) x, y px
    diameters : (n,) Å; pixel_sizes : Å/px a micrograph
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    labels: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph_index: NDArray[np.int64]
    micrographs: tuple[Path, ...]
    diameters: NDArray[np.float64]
    pixel_sizes: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def diameters_px(self) -> NDArray[np.float64]:
        """(n,) particle diameter in px of the point's micrograph."""
        sizes: NDArray[np.float64] = np.array(self.pixel_sizes, dtype=np.float64)[self.micrograph_index]
        return self.diameters / sizes


def gather_points(
    files: Sequence[Labels],
    folders: Sequence[Path],
    by: str,
    diameter: float | None,
    pixel_size: float | None,
) -> ClassPoints:
    """All points of the files, checked; repeated rows count once.

    by : "source" or "class", which column names the classes
    diameter : Å, of points whose file says none and whose micrograph has no other
    pixel_size : Å/px of all micrographs; None takes it from the rows, else from optics blocks and headers

    Raises PickeroptError: names that cannot be classes, one source in two classes, micrographs missing or
    broken, points outside, a diameter or pixel size that nothing says or that does not fit.
    """
    columns = [labels.source_names if by == "source" else labels.class_names for labels in files]
    kinds = _kinds(files, columns)
    names = tuple(sorted(kinds))
    number = {name: i for i, name in enumerate(names)}
    label = np.array([number[name] for column in columns for name in column], dtype=np.int64)
    if not len(label):
        raise ShotsError(f"{', '.join(str(labels.file.path) for labels in files)}: no labelled point")
    picks = locate([labels.file for labels in files], folders, pixel_sizes=False)
    paths = tuple(site.found for site in picks.sites)
    rows = Rows.of(picks, label).without_repeats()
    check_inside(rows, picks.sites)
    said = np.concatenate([labels.diameters for labels in files])[picks.starts[rows.origin[:, 0]] + rows.origin[:, 1]]
    sizes = _pixel_sizes(files, picks, pixel_size)
    points = ClassPoints(
        names,
        tuple(kinds[name] for name in names),
        rows.labels,
        rows.coordinates,
        rows.micrograph_index,
        paths,
        _diameters(said, rows, paths, diameter),
        sizes,
    )
    _check_fit(points, picks.sites)
    return points


def _kinds(files: Sequence[Labels], columns: Sequence[Sequence[str]]) -> dict[str, str]:
    """The class of each name. Raises ShotsError for names that are no class, and for a name in two."""
    kinds: dict[str, str] = {}
    for labels, column in zip(files, columns, strict=True):
        for row, (name, kind) in enumerate(zip(column, labels.class_names, strict=True)):
            if name not in kinds:
                check_class_name(name, row_place(labels.file, row))
                if "/" in name or name.startswith("."):
                    where = row_place(labels.file, row)
                    raise ShotsError(f"{where}: {name!r} cannot be the name of a file; rename the class")
                kinds[name] = kind
            elif kinds[name] != kind:
                what = f"{row_place(labels.file, row)}: {name!r} is {kind} here and {kinds[name]} above"
                raise ShotsError(f"{what}; give each source class one class")
    return kinds


def _pixel_sizes(files: Sequence[Labels], picks: SitedPicks, flag: float | None) -> tuple[float, ...]:
    """Å/px of each micrograph: the flag, else what its rows say, else optics blocks and header."""
    said = None if flag is not None else common_pixel_size([labels.file for labels in files])
    optics: Mapping[str, float] = {} if said is None else {"the labels": said}
    of_rows = np.concatenate([labels.pixel_sizes for labels in files])
    sizes = []
    for site in picks.sites:
        here = of_rows[site.rows]
        known = np.unique(here[~np.isnan(here)]).tolist()
        if flag is not None or not known:
            sizes.append(choose_pixel_size(flag, replace(site.header, path=site.found), optics))
            continue
        if known[-1] > known[0] * (1 + AGREE):
            what = f"{site.found}: {known[0]:g} and {known[-1]:g} Å/px by {PIXEL_SIZE} of the labels"
            raise GeometryError(f"{what}; mend the one that is wrong, or give --pixel-size")
        sizes.append(known[0])
    return tuple(sizes)


def _diameters(
    said: NDArray[np.float64], rows: Rows, paths: Sequence[Path], fallback: float | None
) -> NDArray[np.float64]:
    """(n,) Å: as the row says, else as other rows of its micrograph say, else the fallback."""
    diameters = said.copy()
    for i in np.unique(rows.micrograph_index[np.isnan(said)]).tolist():
        here = rows.micrograph_index == i
        known = np.unique(said[here & ~np.isnan(said)])
        value = known[0] if len(known) == 1 else fallback
        if value is None:
            row = int(np.flatnonzero(here & np.isnan(said))[0])
            what = f"{rows.place(row)}: no diameter for the particles of {paths[i]}"
            raise GeometryError(f"{what}; give it with --diameter (Å)")
        diameters[here & np.isnan(said)] = value
    return diameters


def _check_fit(points: ClassPoints, sites: Sequence[Site]) -> None:
    """Raises GeometryError for a particle of under 4 px, or larger than its micrograph."""
    for i, site in enumerate(sites):
        px = points.diameters_px[points.micrograph_index == i]
        height, width = site.shape
        if px.min() < SMALLEST or px.max() > min(height, width):
            wrong = px.min() if px.min() < SMALLEST else px.max()
            raise GeometryError(
                f"{site.found}: a particle of {wrong * points.pixel_sizes[i]:g} Å is {wrong:.1f} px across on "
                f"{width} x {height} px; check --diameter (Å) and --pixel-size (Å/px)"
            )


FORMAT = "pickeropt class folders 1"


@dataclass(frozen=True)
class BuildReport:
    """counts : boxes a class written; featureless : points left out because their box holds no texture"""

    out: Path
    counts: dict[str, int]
    kinds: dict[str, str]
    micrographs: int
    box_px: int
    featureless: int
    warnings: tuple[str, ...]


def build_class_folders(
    labels: Sequence[Path],
    config: BuildConfig,
    out: Path,
    micrographs: Sequence[Path] = (),
    on_progress: OnProgress | None = None,
) -> BuildReport:
    """Cut boxes around labelled points and write them as class folders, whole or not at all.

    labels : STAR files with `_pickeroptClass`; micrographs : folders to look in

    Points lie on as many micrographs as can be; edges are replicated. A box without any texture, as in a
    burnt-out gold bar, could not be read again, so another point takes its place.
    Raises PickeroptError before the first box for everything the user can mend; MicrographError for a
    micrograph that turns out broken.
    """
    _check(config, out)
    points = gather_points(
        [read_labels(path) for path in labels],
        micrographs,
        config.by,
        config.diameter_angstrom,
        config.pixel_size,
    )
    boxes, featureless = _cut(points, config, on_progress or (lambda what, done, of: None))
    if not boxes:
        raise ShotsError(f"{labels[0]}: no point lies where its micrograph has any texture; label others")
    rows = {name: [row for row in sorted(boxes) if points.labels[row] == i] for i, name in enumerate(points.names)}
    _write(out, points, config, boxes, {name: r for name, r in rows.items() if r})
    return BuildReport(
        out,
        {name: len(r) for name, r in rows.items() if r},
        dict(zip(points.names, points.kinds, strict=True)),
        len(points.micrographs),
        config.box_px,
        featureless,
        _warnings({name: len(r) for name, r in rows.items()}, config.per_class, featureless),
    )


def _check(config: BuildConfig, out: Path) -> None:
    if config.by not in BY:
        raise PickeroptError(f"--by {config.by}: there are {' and '.join(BY)}")
    for flag, value in (("--diameter", config.diameter_angstrom), ("--pixel-size", config.pixel_size)):
        if value is not None and not 0 < value < np.inf:
            raise GeometryError(f"{flag} is {value:g}; give a number above 0")
    if not 1 <= config.box_diameters <= 8:
        raise GeometryError(f"--box-diameters is {config.box_diameters:g}; give 1 to 8, such as 1.5")
    if config.per_class < 2:
        raise PickeroptError(f"--per-class {config.per_class}: give 2 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists; give another --out, or remove it")


def _cut(points: ClassPoints, config: BuildConfig, on_progress: OnProgress) -> tuple[dict[int, FloatArray], int]:
    """Boxes by row of the points, and how many points had to be left out."""
    usable = np.ones(len(points), dtype=np.bool_)
    done: dict[int, FloatArray] = {}
    while True:
        rows = np.flatnonzero(usable)
        groups = points.micrograph_index[rows]
        chosen = rows[choose_shots(points.labels[rows], groups, config.per_class, config.seed)]
        todo = chosen[[row not in done for row in chosen.tolist()]]
        if not len(todo):
            return {row: done[row] for row in chosen.tolist()}, int((~usable).sum())
        places = np.unique(points.micrograph_index[todo])
        for count, place in enumerate(places.tolist(), start=1):
            here = todo[points.micrograph_index[todo] == place]
            cut = _cut_micrograph(points, here, config)
            done |= cut
            usable[[row for row in here.tolist() if row not in cut]] = False
            on_progress("cutting boxes", count, len(places))


def _cut_micrograph(points: ClassPoints, rows: NDArray[np.int64], config: BuildConfig) -> dict[int, FloatArray]:
    """Boxes (s, s) of points on one micrograph; those without texture are missing."""
    path = points.micrographs[points.micrograph_index[rows[0]]]
    pixels = read_micrograph(path).pixels
    found = {}
    for diameter in np.unique(points.diameters_px[rows]).tolist():
        here = rows[points.diameters_px[rows] == diameter]
        try:
            view, frame = make_view(pixels, diameter, config.diameter_px)
        except GeometryError as error:
            raise MicrographError(f"{path}: {error}; exclude this micrograph") from error
        boxes = cut_boxes(view, frame, points.coordinates[here], config.box_px)
        for row, box in zip(here.tolist(), boxes, strict=True):
            if level_and_noise(box) is not None:
                found[row] = box[0].numpy().copy()
    return found


def _write(
    out: Path,
    points: ClassPoints,
    config: BuildConfig,
    boxes: dict[int, FloatArray],
    rows: dict[str, list[int]],
) -> None:
    partial = partial_name(out)
    try:
        partial.mkdir(parents=True)
        classes = {}
        for name, members in rows.items():
            diameters = np.unique(points.diameters[members])
            size = float(diameters[0]) / config.diameter_px if len(diameters) == 1 else None
            write_mrc(partial / f"{name}.mrcs", np.stack([boxes[row] for row in members]), size or 1.0)
            classes[name] = _described(name, points, members, size)
        about: dict[str, Any] = {
            "format": FORMAT,
            "classes": classes,
            "box_diameters": config.box_diameters,
            "box_px": config.box_px,
            "diameter_px": config.diameter_px,
            "grey": "units of the micrograph's noise from its median",
            "by": config.by,
            "seed": config.seed,
        }
        write_bytes_atomically(partial / "dataset.json", json.dumps(about, indent=1).encode())
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _described(name: str, points: ClassPoints, members: list[int], size: float | None) -> dict[str, Any]:
    """What dataset.json says of a class; `micrographs` has one name a box, to split by."""
    names = _unique_names(points)
    return {
        "count": len(members),
        "class": points.kinds[points.names.index(name)],
        "entry": entry_of(name),
        "pixel_size": size,
        "micrographs": [names[i] for i in points.micrograph_index[members].tolist()],
    }


def _unique_names(points: ClassPoints) -> list[str]:
    """The file name of each micrograph, with its folders where two have one name."""
    for parts in (1, 3):
        names = ["/".join(path.parts[-parts:]) for path in points.micrographs]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in points.micrographs]


def entry_of(source: str) -> str:
    """What to leave out together: `EMPIAR-10017` of `carbon_EMPIAR-10017`, else the source class itself."""
    start = source.find("EMPIAR-")
    return source[start:] if start >= 0 else source


def _warnings(counts: dict[str, int], per_class: int, featureless: int) -> tuple[str, ...]:
    found = [
        f"class {name!r} has {count} boxes where {per_class} are asked for; label more, or simulate more"
        for name, count in counts.items()
        if count < per_class
    ]
    if featureless:
        found.append(f"{featureless} points lie where the micrograph has no texture and were left out")
    return tuple(found)
