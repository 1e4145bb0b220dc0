"""The public face: what a notebook calls, and what the command line calls.

Each function is thin: it names the arguments as a notebook would, and hands over to the room that does the work.
Those are imported inside the functions, so that `import pickeropt` takes no time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pickeropt.convert.convert_config import ConvertReport
    from pickeropt.evaluate.evaluation import Evaluation
    from pickeropt.finetune.finetune_config import FinetuneReport
    from pickeropt.frame.checking import CheckReport
    from pickeropt.frame.frame_config import FrameSite, Score
    from pickeropt.prune.prune_config import PruneSummary
    from pickeropt.prune.scoring import CheckpointScorer
    from pickeropt.records import FloatArray, Scores
    from pickeropt.shots import BoxShots, Shots

AnyPath = str | PathLike[str]
"""A path as text or as `pathlib.Path`."""
Paths = AnyPath | Iterable[AnyPath]
"""One path or several."""


def read_labels(
    labels: AnyPath | Mapping[str, AnyPath] | Sequence[tuple[str, AnyPath]], *, micrographs: Paths = ()
) -> "Shots | BoxShots":
    """Read labelled shots, the examples that a model is fine-tuned on.

    labels : a STAR file with the class of each row (`_pickeroptClass`), as `pickeropt label` writes it;
        or a coordinate file for each class, as a mapping or as pairs of class name and path;
        or a folder that holds a folder of boxes, or an .mrcs stack, for each class
    micrographs : folders or files to look for the micrographs in; boxes need none

    Returns k classes, `particle` first, and n shots: labels (n,) int64, coordinates (n, 2) px, x, y, or boxes.
    Raises FormatError for a file that cannot be read, MicrographError for a micrograph that is not found,
    ShotsError for classes that cannot train a classifier, GeometryError for shots outside their micrograph.

    >>> labels = pickeropt.read_labels("labels.star", micrographs="micrographs")
    >>> labels.class_names
    ('particle', 'background', 'carbon')
    >>> labels.coordinates.shape
    (24, 2)
    """
    from pickeropt.shots import read_class_boxes, read_class_files, read_labelled_star

    folders = _paths(micrographs)
    if not isinstance(labels, str | PathLike):
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        return read_class_files([(name, Path(path)) for name, path in pairs], folders)
    path = Path(labels)
    return read_class_boxes(path) if path.is_dir() else read_labelled_star(path, folders)


class Model:
    """A classifier of picks, ready on its device.

    report : what came of its fine-tuning; None for a model that was loaded

    >>> model = pickeropt.Model.load("model.safetensors", device="cpu")
    >>> model.class_names
    ('particle', 'background', 'carbon')
    >>> model.diameter
    200.0
    """

    def __init__(self, scorer: "CheckpointScorer", report: "FinetuneReport | None" = None) -> None:
        self.scorer, self.report = scorer, report

    def __repr__(self) -> str:
        return f"Model(class_names={self.class_names}, diameter={self.diameter:g})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The k classes, `particle` first.

        >>> pickeropt.Model.load("model.safetensors").class_names
        ('particle', 'background', 'carbon')
        """
        return self.scorer.class_names

    @property
    def diameter(self) -> float:
        """Particle diameter, Å.

        >>> pickeropt.Model.load("model.safetensors", diameter=180).diameter
        180.0
        """
        return self.scorer.diameter_angstrom

    @classmethod
    def load(
        cls,
        path: AnyPath | None = None,
        *,
        diameter: float | None = None,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> "Model":
        """Load a model file of `finetune`, or the general model of the package.

        path : a safetensors file; None for the general model, which needs `diameter`
        diameter : of the particle, Å; None takes the model's
        device : auto, cpu, cuda or cuda:N
        batch_size : boxes, or pieces of a micrograph, computed at once; changes no result
        Raises CheckpointError for a file that is no pickeropt model, GeometryError for a general model without
        a diameter, PickeroptError for a device that is not there.

        >>> pickeropt.Model.load("model.safetensors")
        Model(class_names=('particle', 'background', 'carbon'), diameter=200)
        >>> pickeropt.Model.load(diameter=180).class_names
        ('particle', 'background', 'contaminant', 'carbon')
        """
        from pickeropt.prune.scoring import load_scorer

        return cls(load_scorer(None if path is None else Path(path), device, batch_size, diameter))

    def save(self, path: AnyPath, *, overwrite: bool = False) -> None:
        """Write the model as one safetensors file: weights, geometry, classes, provenance. Never a pickle.

        Raises OutputError where the file exists and `overwrite` is False, or cannot be written; CheckpointError
        for the general model, which is of the package.

        >>> model = pickeropt.Model.load("model.safetensors")
        >>> model.save("copy.safetensors")
        >>> pickeropt.Model.load("copy.safetensors").class_names == model.class_names
        True
        """
        from pickeropt.errors import CheckpointError
        from pickeropt.finetune.finetuning import check_model_out
        from pickeropt.models.classifier import save_checkpoint

        made = self.scorer.checkpoint
        if made.diameter_angstrom is None:
            raise CheckpointError("the general model is in the package already; save a model of `finetune`")
        check_model_out(Path(path), overwrite)
        save_checkpoint(Path(path), made.classifier, made.diameter_angstrom, made.provenance)

    def score_array(self, pixels: "FloatArray", coordinates: "NDArray[np.float64]", *, pixel_size: float) -> "Scores":
        """Score the picks of one micrograph in memory.

        pixels : (h, w) float32, rows as stored in the MRC file
        coordinates : (m, 2) float64, x and y of the pick centres, px; any may lie outside
        pixel_size : Å/px
        Returns m picks, k classes: `probabilities` (m, k) float32, rows sum to 1; `particle` (m,).
        Raises GeometryError for arrays of other shapes or a pixel size that is no number above 0,
        MicrographError for pixels that are constant or not finite, and for a particle that does not fit.

        >>> import mrcfile
        >>> pixels = mrcfile.read("micrographs/m0.mrc")
        >>> found = model.score_array(pixels, [[60.0, 80.0], [120.5, 90.0]], pixel_size=5.0)
        >>> found.probabilities.shape
        (2, 3)
        """
        import numpy as np

        from pickeropt.errors import GeometryError, MicrographError
        from pickeropt.records import Micrograph, Scores

        image, xy = np.asarray(pixels, np.float32), np.asarray(coordinates, np.float64)
        if image.ndim != 2 or xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
            what = f"pixels of shape {image.shape} and coordinates of shape {xy.shape}"
            raise GeometryError(f"{what}; give (h, w) pixels and finite coordinates (m, 2), x and y in px")
        if not 0 < pixel_size < np.inf:
            raise GeometryError(f"the pixel size is {pixel_size:g}; give a number of Å/px above 0")
        if not np.isfinite(image).all() or not np.ptp(image):
            raise MicrographError("the pixels are constant or not finite; exclude this micrograph")
        micrograph = Micrograph(Path("the array"), image, pixel_size)
        return Scores(self.class_names, self.scorer.score(micrograph, xy, pixel_size))


def finetune(
    labels: "Shots | BoxShots",
    diameter: float,
    *,
    out: AnyPath | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Model:
    """Fine-tune a classifier on labelled shots; 10 to 30 of each class are enough.

    labels : as `read_labels` gives them
    diameter : of the particle, Å
    out : the model file to write; None keeps the model in memory (`Model.save`)
    on_progress : called with what is being done, how much of it is done, and how much there is
    settings : the other fields of `FinetuneConfig`: pixel_size (Å/px), shots_per_class, backbone, init, weights,
        recipe, loss_weights, validation_fraction, seed, device, invert, trust_frame

    The model's `report` has accuracy, macro-F1 and F1 a class on held-out shots, mean over five splits.
    Raises PickeroptError for settings, shots, micrographs or weights that cannot be used, before any compute.
    Method: Li et al. 2022, J. Comput. Biol., and docs/method.md.

    >>> labels = pickeropt.read_labels("labels.star", micrographs="micrographs")
    >>> model = pickeropt.finetune(labels, diameter=200, device="cpu")
    >>> model.report.train_shots["particle"] >= 2
    True
    """
    from pickeropt.finetune.finetune_config import FinetuneConfig
    from pickeropt.finetune.finetuning import learn
    from pickeropt.prune.prune_config import ScorerConfig
    from pickeropt.prune.scoring import make_scorer

    config = FinetuneConfig(diameter_angstrom=diameter, **settings)
    target = None if out is None else Path(out)
    checkpoint, report = learn(labels, config, target, overwrite=overwrite, on_progress=on_progress)
    return Model(make_scorer(checkpoint, ScorerConfig(target, device=config.device)), report)


def prune(
    picks: Paths,
    model: Model,
    *,
    out: AnyPath = "pruned",
    threshold: float = 0.5,
    micrographs: Paths = (),
    on_progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> "PruneSummary":
    """Score every pick in its micrograph, and write the files less the picks that are no particles.

    picks : files of any picker, an autopick.star list, or folders of them
    out : the folder to write: kept/NAME, rejected/NAME, scores.csv, summary.json, report.html
    threshold : a pick is kept where P(particle) is at least this
    micrographs : folders or files to look for the micrographs in
    on_progress : called with the number of picks done and of all
    settings : the other fields of `PruneConfig` (pixel_size in Å/px, overwrite, write_score, prior, picker_shots,
        trust_frame) and of its `Filters` (min_std, max_std, max_extreme, max_domain, min_distance in Å)

    Inputs are never written to. A run that was stopped goes on when it is called again.
    Raises PickeroptError for what does not fit before any compute, MicrographError for pixels that are constant
    or not finite, OutputError where `out` exists or cannot be written.

    >>> model = pickeropt.Model.load("model.safetensors")
    >>> run = pickeropt.prune("picks.star", model, out="another", micrographs="micrographs", trust_frame=True)
    >>> run.kept + run.rejected == run.picks
    True
    """
    from pickeropt.prune.prune_config import Filters, PruneConfig
    from pickeropt.prune.pruning import prune as run_prune
    from pickeropt.report.reporting import finish_with_report

    bounds = {field.name: settings.pop(field.name) for field in fields(Filters) if field.name in settings}
    if bounds:
        settings["filters"] = Filters(**bounds)
    config = PruneConfig(micrographs=_paths(micrographs), out=Path(out), threshold=threshold, **settings)
    return run_prune(_paths(picks), config, model.scorer, on_progress=on_progress, finish=finish_with_report)


def rethreshold(
    folder: AnyPath, threshold: float, *, out: AnyPath | None = None, overwrite: bool = False
) -> "PruneSummary":
    """Apply another threshold to a finished pruning, in seconds: no model and no micrograph is read.

    folder : of the pruning, or the scores.csv in it
    threshold : a pick is kept where P(particle) is at least this, from 0 to 1
    out : a new folder; None replaces the pruning's own in one step
    Raises OutputError for a folder that is no pruning, and for files of picks that are gone or have changed;
    FormatError for a table that does not fit them.

    >>> pickeropt.rethreshold("pruned", 0.0).rejected
    0
    """
    from pickeropt.prune.rethreshold import rethreshold as run_rethreshold
    from pickeropt.report.reporting import finish_with_report

    target = None if out is None else Path(out)
    return run_rethreshold(Path(folder), threshold, target, overwrite=overwrite, finish=finish_with_report)


def evaluate(folder: AnyPath, truth: AnyPath, *, radius: float | None = None) -> "Evaluation":
    """Measure a pruning against true particles: precision, recall and F1 before and after, both rankings.

    folder : of the pruning, or the scores.csv in it
    truth : a file, or a folder of files, with the coordinates of the true particles
    radius : how far a pick may be from its particle, px; None takes half the diameter of the pruning
    Raises FormatError for what cannot be read, GeometryError where nothing says the radius.

    >>> found = pickeropt.evaluate("pruned", truth="truth.csv")
    >>> 0 <= found.after.precision <= 1
    True
    """
    from pickeropt.evaluate.evaluation import evaluate_scores
    from pickeropt.pruned_run import SCORES, diameter_px

    inside = Path(folder) / SCORES
    scores = inside if inside.is_file() else Path(folder)
    return evaluate_scores(scores, Path(truth), radius, diameter_px=diameter_px(scores))


def check(
    picks: Paths,
    *,
    micrographs: Paths = (),
    model: Model | None = None,
    diameter: float | None = None,
    pixel_size: float | None = None,
) -> "CheckReport":
    """Check whether picks fit their micrographs: frame, names, pixel sizes, boxes, picks outside, duplicates.

    picks : as `prune` takes them
    micrographs : folders or files to look for the micrographs in
    model : judges the frame by P(particle) in place of local contrast; slower
    diameter : of the particle, Å; None takes the model's, or tries several
    pixel_size : Å/px; None takes that of the files
    Raises MicrographError where no micrograph can be read. Nothing is changed.

    >>> report = pickeropt.check("picks.star", micrographs="micrographs", diameter=200)
    >>> report.level
    'fine'
    >>> [finding.what for finding in report.findings][:2]
    ['frame', 'names']
    """
    from pickeropt.frame.checking import CheckConfig
    from pickeropt.frame.checking import check as run_check
    from pickeropt.io.inputs import read_inputs

    given = _paths(picks)
    files = [source.file for source in read_inputs(given, empty=True).sources]
    score = None
    if model is not None:
        score, diameter = _particle_score(model), model.diameter
    return run_check(files, CheckConfig(given, _paths(micrographs), diameter, pixel_size), score)


def convert(
    source: AnyPath, out: AnyPath, *, micrographs: Paths = (), diameter: float | None = None, **settings: Any
) -> "ConvertReport":
    """Write picks in another format; coordinates and scores are carried.

    source : a file of picks, a list, or a folder of them, recognised by its content
    out : a file, or a folder, which gets a file a micrograph
    micrographs : folders or files of the micrographs that `out` is for
    diameter : Å, for formats with boxes; None takes the boxes of `source`
    settings : the other fields of `ConvertConfig`: to (the format; else by the ending of `out`), scale, swap_xy,
        flip_x, flip_y, shift (px), pixel_size (Å/px), overwrite

    Returns the number of picks and micrographs, the files written, and notes on what `out` cannot hold.
    Raises FormatError for what cannot be read, OutputError for a file that exists, PickeroptError for a format
    that is not written; nothing is written then.

    >>> pickeropt.convert("picks.star", "picks.csv").format
    'csv'
    """
    from pickeropt.convert.conversion import convert as run_convert
    from pickeropt.convert.convert_config import ConvertConfig

    config = ConvertConfig(micrographs=_paths(micrographs), diameter_angstrom=diameter, **settings)
    return run_convert(Path(source), Path(out), config)


def _particle_score(model: Model) -> "Score":
    """P(particle) at places on a micrograph: what judges a frame."""
    import numpy as np

    from pickeropt.errors import GeometryError
    from pickeropt.io.micrographs import read_micrograph
    from pickeropt.records import PARTICLE

    column = model.class_names.index(PARTICLE)

    def score(site: "FrameSite", places: "NDArray[np.float64]") -> "NDArray[np.float64]":
        if site.pixel_size is None:
            raise GeometryError(f"{site.header.path}: its pixel size is unknown; give it with --pixel-size")
        found = model.scorer.score(read_micrograph(site.header.path, site.header), places, site.pixel_size)
        return np.asarray(found[:, column], dtype=np.float64)

    return score


def _paths(given: Paths) -> tuple[Path, ...]:
    return (Path(given),) if isinstance(given, str | PathLike) else tuple(map(Path, given))
