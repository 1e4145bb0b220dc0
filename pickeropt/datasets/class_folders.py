"""Cut a class-folder data set from labelled micrographs: what `dataset build` writes.

One stack a class, `OUT/NAME.mrcs` (n, s, s) float32, and `OUT/dataset.json`. Every box shows its particle
`diameter_px` px across, whatever the micrograph's pixel size and the particle's, because one folder has one
scale: `finetune --shots OUT --diameter D --pixel-size D/diameter_px` reads it, with any D. Grey values are
in units of the micrograph's own noise from its own median (`datasets.views`, clipped at 10): the contrast
against the micrograph is evidence that pre-training may use; `finetune`, which cannot know it for boxes of
other programs, scales each box by itself and so does not mind.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.boxes import cut_boxes
from pickeropt.datasets.class_config import BY, BuildConfig
from pickeropt.datasets.class_points import ClassPoints, gather_points
from pickeropt.errors import GeometryError, MicrographError, OutputError, PickeroptError, ShotsError
from pickeropt.finetune.splits import choose_shots
from pickeropt.io.labels import read_labels
from pickeropt.io.micrographs import read_micrograph
from pickeropt.io.mrc import write_mrc
from pickeropt.io.tables import partial_name, write_bytes_atomically
from pickeropt.models.views import level_and_noise, make_view
from pickeropt.records import FloatArray

FORMAT = "pickeropt class folders 1"

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


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
    rows = {
        name: [row for row in sorted(boxes) if points.labels[row] == i] for i, name in enumerate(points.names)
    }
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


def _cut(
    points: ClassPoints, config: BuildConfig, on_progress: OnProgress
) -> tuple[dict[int, FloatArray], int]:
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


def _cut_micrograph(
    points: ClassPoints, rows: NDArray[np.int64], config: BuildConfig
) -> dict[int, FloatArray]:
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
