"""The scoring: every micrograph read once, every pick on it scored and measured; finished micrographs stay on disk.

`CheckpointScorer` is the classifier of a model file as `prune` uses it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import GeometryError, MicrographError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.classifier import Checkpoint, general_checkpoint, load_checkpoint
from pickeropt.models.features import describe_micrograph
from pickeropt.models.fitting import choose_device, inference_dtype
from pickeropt.prune.filters import Measure, domain_sizes, grid_of, pixel_measures
from pickeropt.prune.plan import PrunePlan
from pickeropt.prune.prune_config import MicrographScorer, ScorerConfig
from pickeropt.records import PARTICLE, FloatArray, Micrograph, OnCount
from pickeropt.resumable import Workspace, record_key
from pickeropt.sites import Site, SitedPicks

ROUNDING = 1e-3
"""How far the probabilities of a pick may sum from 1."""
PIECE = 40_000
"""Points that are scored at once where a map of scores is made."""


@dataclass(frozen=True)
class ScoringSetup:
    """What a run looks at picks with: k classes and q measures for the filters, so k + q figures a pick."""

    scorer: MicrographScorer
    measures: tuple[Measure, ...]

    @property
    def width(self) -> int:
        return len(self.scorer.class_names) + len(self.measures)


def score_all(
    plan: PrunePlan, setup: ScoringSetup, workspace: Workspace, on_progress: OnCount
) -> tuple[FloatArray, int]:
    """(n, k + q) probabilities and measures, and how many micrographs an earlier run had finished."""
    values = np.full((len(plan.picks), setup.width), np.nan, dtype=np.float32)
    keys = {site.path: _key(site, plan, setup) for site in plan.picks.sites}
    todo = []
    for site in plan.picks.sites:
        known = workspace.load(keys[site.path], (len(site.rows), setup.width))
        if known is None:
            todo.append(site)
        else:
            values[site.rows] = known
    done = len(plan.picks) - sum(len(site.rows) for site in todo)
    finished = resumed = len(plan.picks.sites) - len(todo)
    on_progress(done, len(plan.picks))
    try:
        for site, micrograph in _read_ahead(todo):
            found = _score_and_measure(site, micrograph, plan.picks.coordinates[site.rows], setup)
            workspace.save(keys[site.path], found)
            values[site.rows] = found
            del micrograph  # before the next but one is read
            finished += 1
            done += len(site.rows)
            on_progress(done, len(plan.picks))
    except PickeroptError as error:
        if not finished:
            raise
        kept = f"{finished} of {len(plan.picks.sites)} micrographs are finished and stay in {workspace.folder}"
        raise type(error)(f"{error}; {kept}: {_goes_on(error, workspace.overwrite)}") from error
    if np.isnan(values).any():
        raise ValueError("a pick has no score")
    return values, resumed


def score_picks(picks: SitedPicks, scorer: MicrographScorer, on_progress: OnCount) -> FloatArray:
    """(n, k) probabilities; nothing is written."""
    values = np.full((len(picks), len(scorer.class_names)), np.nan, dtype=np.float32)
    done = 0
    for site, micrograph in _read_ahead(picks.sites):
        values[site.rows] = _score_micrograph(site, micrograph, picks.coordinates[site.rows], scorer)
        done += len(site.rows)
        on_progress(done, len(picks))
    return values


def _goes_on(error: PickeroptError, overwrite: bool) -> str:
    """How a run that was stopped by an error goes on: with other picks only with --overwrite."""
    same = "the same command goes on from there"
    if overwrite or not isinstance(error, MicrographError):
        return same
    return f"{same}; when it is excluded, give the command with --overwrite: what is finished still counts"


def _key(site: Site, plan: PrunePlan, setup: ScoringSetup) -> str:
    scorer = setup.scorer
    model = (scorer.digest, tuple(scorer.class_names), float(scorer.diameter_angstrom))
    where = (str(site.path), site.stamp, float(site.pixel_size))
    measured = tuple(measure.name for measure in setup.measures)
    return record_key(pickeropt.__version__, model, where, measured, plan.picks.coordinates[site.rows].tobytes())


def _read_ahead(sites: Sequence[Site]) -> Iterator[tuple[Site, Micrograph]]:
    """Each micrograph, while the one after it is read in the background: two in memory."""
    if not sites:
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_read, sites[0])
        for i, site in enumerate(sites):
            current = ahead.result()
            if i + 1 < len(sites):
                ahead = pool.submit(_read, sites[i + 1])
            yield site, current
            del current


def _read(site: Site) -> Micrograph:
    try:
        micrograph = read_micrograph(site.path, site.header)
        status = site.path.stat()
    except (OSError, ValueError) as error:
        raise MicrographError(f"{site.path}: cannot be read ({error}); copy or write it again") from error
    if (status.st_size, status.st_mtime_ns) != site.stamp or micrograph.pixels.shape != site.shape:
        raise MicrographError(f"{site.path}: was changed while this run worked; start again")
    return micrograph


def _score_and_measure(
    site: Site, micrograph: Micrograph, coordinates: NDArray[np.float64], setup: ScoringSetup
) -> FloatArray:
    """(m, k + q): the probabilities of one micrograph's picks, and their measures."""
    diameter_px = setup.scorer.diameter_angstrom / site.pixel_size
    names = [measure.name for measure in setup.measures]
    by_name: dict[str, FloatArray] = {}
    if "std" in names or "extreme" in names:
        by_name["std"], by_name["extreme"] = pixel_measures(micrograph, coordinates, diameter_px)
    if "domain" in names:
        found, by_name["domain"] = _score_with_map(site, micrograph, coordinates, setup.scorer)
    else:
        found = _score_micrograph(site, micrograph, coordinates, setup.scorer)
    return np.column_stack([found, *(by_name[name] for name in names)])


def _score_with_map(
    site: Site, micrograph: Micrograph, coordinates: NDArray[np.float64], scorer: MicrographScorer
) -> tuple[FloatArray, FloatArray]:
    """(m, k) probabilities, and (m,) the size of each pick's domain on a grid of scores.

    Picks and grid are scored together: a dense model passes over the micrograph once for all of them.
    """
    grid, step = grid_of(site.shape, scorer.diameter_angstrom / site.pixel_size)
    points = np.concatenate([coordinates, grid.reshape(-1, 2)])
    parts = [
        _score_micrograph(site, micrograph, points[start : start + PIECE], scorer)
        for start in range(0, len(points), PIECE)
    ]
    scores = np.concatenate(parts)
    score_map = scores[len(coordinates) :, scorer.class_names.index(PARTICLE)].reshape(grid.shape[:2])
    return scores[: len(coordinates)], domain_sizes(score_map, coordinates, step)


def _score_micrograph(
    site: Site, micrograph: Micrograph, coordinates: NDArray[np.float64], scorer: MicrographScorer
) -> FloatArray:
    """(m, k) probabilities. Raises MicrographError where they are none."""
    found = np.asarray(scorer.score(micrograph, coordinates, site.pixel_size), dtype=np.float32)
    shape = (len(coordinates), len(scorer.class_names))
    if found.shape != shape:
        raise ValueError(f"the scorer gave {found.shape} for {shape} of {site.name}")
    wrong = ~((found >= 0).all(axis=1) & (np.abs(found.sum(axis=1) - 1) < ROUNDING))
    if wrong.any():
        x, y = coordinates[wrong.argmax()].tolist()
        what = f"{int(wrong.sum())} of {len(found)} scores are no probabilities, first at x {x:g}, y {y:g}"
        raise MicrographError(f"{site.name}: {what}; look at its pixels, or exclude it")
    return found


GENERAL = (
    "the general model was used, which has never seen this particle; label some twenty shots of each class "
    "and run `pickeropt finetune` for a model that has"
)


FAR = 2.0
"""By which factor a diameter is another particle's, or in another unit."""


@dataclass(frozen=True)
class CheckpointScorer:
    """A classifier on its device; implements `prune_config.MicrographScorer`.

    config : what it was loaded with
    backbone : ready for forward passes, in the precision that the device is fast in
    diameter_angstrom : the user's where one was given, else the checkpoint's
    """

    checkpoint: Checkpoint
    config: ScorerConfig
    backbone: Backbone
    diameter_angstrom: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """k names, `particle` first."""
        return self.checkpoint.classifier.spec.class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user of this model should know."""
        own = self.checkpoint.diameter_angstrom
        if own is None:
            return (GENERAL,)
        ratio = self.diameter_angstrom / own
        given = f"--diameter {self.diameter_angstrom:g} is far from the {own:g} Å that the model was taught at"
        return () if 1 / FAR < ratio < FAR else (f"{given}; is it in Å?",)

    @property
    def taught_pixel_size(self) -> float | None:
        """Å/px that the user gave where it was taught on micrographs; None where their files said it."""
        provenance = self.checkpoint.provenance
        size = provenance.get("settings", {}).get("pixel_size")
        return None if size is None or provenance.get("micrographs") is None else float(size)

    @property
    def digest(self) -> str:
        """sha256 of the model file."""
        return self.checkpoint.digest

    def score(self, micrograph: Micrograph, coordinates: NDArray[np.float64], pixel_size: float) -> FloatArray:
        """(m, k) float32 probabilities of picks at (m, 2) x, y px; pixel_size in Å/px.

        Raises MicrographError where the particle does not fit, or the noise cannot be measured.
        """
        classifier = self.checkpoint.classifier
        diameter_px = self.diameter_angstrom / pixel_size
        try:
            features = describe_micrograph(
                self.backbone, classifier.spec, micrograph.pixels, diameter_px, coordinates, self.config.batch_size
            )
        except GeometryError as error:
            raise MicrographError(f"{micrograph.path}: {error}; or exclude this micrograph") from error
        with torch.inference_mode():
            probabilities: FloatArray = classifier.probabilities(features).numpy()
        return probabilities


def load_scorer(
    path: Path | None,
    device: str = "auto",
    batch_size: int | None = None,
    diameter_angstrom: float | None = None,
) -> CheckpointScorer:
    """Load a model for pruning; None is the general model of the package.

    Raises CheckpointError for a file that is no pickeropt model, and as `make_scorer` does.
    """
    checkpoint = general_checkpoint() if path is None else load_checkpoint(path)
    return make_scorer(checkpoint, ScorerConfig(path, diameter_angstrom, batch_size, device))


def make_scorer(checkpoint: Checkpoint, config: ScorerConfig) -> CheckpointScorer:
    """A classifier in memory, made ready on its device.

    Raises PickeroptError for a missing device, and GeometryError where no one has said the diameter.
    """
    diameter = checkpoint.diameter_angstrom if config.diameter_angstrom is None else config.diameter_angstrom
    if diameter is None:
        raise GeometryError(
            "the general model has no particle diameter: give it with --diameter (Å), or give a model of your "
            "own with --model (`pickeropt finetune` makes one from a few labelled shots)"
        )
    place = choose_device(config.device)
    backbone = inference_copy(checkpoint.classifier.backbone, place, inference_dtype(place))
    return CheckpointScorer(checkpoint, config, backbone, diameter)
