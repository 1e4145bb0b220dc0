"""Training views: cut once, with the teacher's maps, and kept on disk while the run lasts.

A view is cut from a micrograph at a random place and size, or is one box. One safetensors file holds the
views of a micrograph or of a few boxes; a run that was stopped finds them again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import FormatError, GeometryError, MicrographError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.views import GRID, make_view, normalised
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import DataSet, LabelledBox, LabelledMicrograph
from pickeropt.records import DEFAULT_CLASSES, FloatArray

BOXES_PER_PIECE = 16
PADDING_DIAMETER = 36.0
"""Px; half of it is the replicated edge around a micrograph without labels."""


@dataclass(frozen=True)
class TrainingView:
    """One training view.

    pixels : (s, s) float16, normalised, s of the form 16 k + 1
    diameter : particle diameter in view px
    points : (n, 2) float32 y, x in view px; labels : (n,) int64 source classes
    centred : whether it is a piece of a micrograph, so that maps count from its typical feature
    maps : the teacher's, one (c, h, w) float16 a stage; empty before it has processed the view
    """

    pixels: Tensor
    diameter: float
    points: Tensor
    labels: Tensor
    centred: bool
    maps: tuple[Tensor, ...] = ()


Cut = Callable[[np.random.Generator], list[TrainingView]]
"""Cuts the views of one piece: a micrograph, or a handful of boxes."""


def labelled_pieces(data: DataSet, config: PretrainConfig) -> list[Cut]:
    """One a micrograph, or one for the boxes of each."""
    parents = np.array([DEFAULT_CLASSES.index(parent) for parent in data.classes.parents])
    pieces: list[Cut] = [partial(_of_micrograph, m, parents, config) for m in data.micrographs]
    groups = box_groups(data.boxes)
    for group in sorted(set(groups)):
        boxes = [box for box, mine in zip(data.boxes, groups, strict=True) if mine == group]
        pieces.append(partial(_of_boxes, boxes, data, config))
    return pieces


def box_groups(boxes: Sequence[LabelledBox]) -> list[int]:
    """(n,) number of the micrograph of each box; where not known, of a handful that spans all classes."""
    number = {name: i for i, name in enumerate(dict.fromkeys(box.micrograph for box in boxes))}
    handfuls = -(-len(boxes) // BOXES_PER_PIECE)
    return [number[box.micrograph] if box.micrograph else len(number) + i % handfuls for i, box in enumerate(boxes)]


def unlabelled_pieces(paths: Sequence[Path], config: PretrainConfig) -> list[Cut]:
    """One a micrograph or picture."""
    return [partial(_of_picture, path, config) for path in paths]


def _of_micrograph(
    micrograph: LabelledMicrograph,
    parents: NDArray[np.int64],
    config: PretrainConfig,
    rng: np.random.Generator,
) -> list[TrainingView]:
    pixels, found = read_micrograph(micrograph.path).pixels, []
    for _ in range(config.views):
        diameter = _log_uniform(config.view_diameters, rng)
        try:
            whole, frame = make_view(pixels, micrograph.diameter_px, diameter)
        except GeometryError as error:
            raise MicrographError(f"{micrograph.path}: {error}") from error
        piece, corner = _random_piece(whole[0, 0], config.view_px, rng)
        points = frame.to_view(micrograph.coordinates) - torch.tensor(corner)
        inside = ((points > 0) & (points < piece.shape[0] - 1)).all(1).numpy()
        rows = rng.permutation(np.flatnonzero(inside))
        parent = parents[micrograph.labels[rows]]
        rows = np.concatenate([rows[parent == p][: config.points_per_class] for p in range(len(DEFAULT_CLASSES))])
        labels = torch.from_numpy(micrograph.labels[rows])
        found.append(TrainingView(piece.half(), diameter, points[rows].float(), labels, centred=True))
    return found


def _of_boxes(
    boxes: Sequence[LabelledBox], data: DataSet, config: PretrainConfig, rng: np.random.Generator
) -> list[TrainingView]:
    found = []
    for box in boxes:
        for _ in range(config.views):
            diameter = _log_uniform(config.view_diameters, rng)
            side = max(1, round(data.box_diameters * diameter / (2 * GRID))) * 2 * GRID + 1
            view = fitted_box(box, data, diameter, side)[0, 0].half()
            centre, label = torch.full((1, 2), float(side // 2)), torch.tensor([box.label])
            found.append(TrainingView(view, diameter, centre, label, centred=False))
    return found


def fitted_box(box: LabelledBox, data: DataSet, diameter: float, side: int) -> Tensor:
    """(1, 1, side, side), particle `diameter` px across; in the micrograph's grey values or scaled by itself.

    Raises FormatError for a box without noise where it is to be scaled by itself.
    """
    size = max(1, round(diameter * data.box_diameters))
    pixels = torch.from_numpy(box.pixels)[None, None]
    view = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    at = (size // 2 + torch.arange(side) - side // 2).clamp(0, size - 1)
    cut = view[:, :, at[:, None], at]
    if data.by_micrograph:
        return cut
    try:
        return normalised(cut)
    except GeometryError as error:
        raise FormatError(f"{box.source}: {error}; remove it") from error


def _of_picture(path: Path, config: PretrainConfig, rng: np.random.Generator) -> list[TrainingView]:
    """Nothing says how large a particle is: the short side becomes 0.7 to 1.5 views long."""
    pixels = _read_picture(path)
    found = []
    for _ in range(config.unlabelled_views):
        factor = _log_uniform((0.7, 1.5), rng) * config.view_px / min(pixels.shape)
        diameter_px = min(PADDING_DIAMETER / factor, min(pixels.shape))
        try:
            whole, _ = make_view(pixels, diameter_px, diameter_px * factor)
        except GeometryError as error:
            raise MicrographError(f"{path}: {error}") from error
        piece, _ = _random_piece(whole[0, 0], config.view_px, rng)
        nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
        found.append(TrainingView(piece.half(), PADDING_DIAMETER, *nothing, centred=True))
    return found


def _read_picture(path: Path) -> FloatArray:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return read_micrograph(path).pixels
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"), dtype=np.float32)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise MicrographError(f"{path}: cannot be decoded ({error}); write it again, or remove it") from error


def _random_piece(whole: Tensor, most: int, rng: np.random.Generator) -> tuple[Tensor, tuple[int, int]]:
    """A square at a random place, side of the form 16 k + 1, and its upper left corner y, x."""
    side = (min(most, *whole.shape) - 1) // GRID * GRID + 1
    top, left = (int(rng.integers(0, size - side + 1)) for size in whole.shape)
    return whole[top : top + side, left : left + side], (top, left)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


@dataclass(frozen=True)
class ViewStore:
    """n views on disk.

    places : (n,) file of each view, and its number in that file
    pieces : (n,) number of the micrograph, or handful of boxes, that each was cut from
    """

    places: tuple[tuple[Path, int], ...]
    pieces: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def load(self, index: int) -> TrainingView:
        """Read one view."""
        path, number = self.places[index]
        with safe_open(str(path), framework="pt") as file:
            described = json.loads(file.metadata()["views"])[number]
            maps = tuple(file.get_tensor(f"{number}.map{i}") for i in range(described["maps"]))
            pixels, points, labels = (file.get_tensor(f"{number}.{name}") for name in ("pixels", "points", "labels"))
        return TrainingView(pixels, described["diameter"], points, labels, described["centred"], maps)


def write_piece(path: Path, views: Sequence[TrainingView]) -> None:
    """The views of one piece with their maps, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    described = []
    for number, view in enumerate(views):
        described.append({"diameter": view.diameter, "centred": view.centred, "maps": len(view.maps)})
        named = {"pixels": view.pixels, "points": view.points, "labels": view.labels}
        named |= {f"map{i}": feature_map for i, feature_map in enumerate(view.maps)}
        tensors |= {f"{number}.{name}": tensor.contiguous() for name, tensor in named.items()}
    write_bytes_atomically(path, save(tensors, {"views": json.dumps(described)}))


def open_store(paths: Sequence[Path]) -> ViewStore:
    """The views of the files of pieces, in order."""
    places, pieces = [], []
    for piece, path in enumerate(paths):
        for number in range(_count(path)):
            places.append((path, number))
            pieces.append(piece)
    return ViewStore(tuple(places), tuple(pieces))


def _count(path: Path) -> int:
    with safe_open(str(path), framework="pt") as file:
        return len(json.loads(file.metadata()["views"]))


def missing(paths: Sequence[Path]) -> Iterator[int]:
    """Numbers of the pieces that are not on disk yet."""
    return (number for number, path in enumerate(paths) if not path.is_file())
