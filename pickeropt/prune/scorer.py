"""A checkpoint that scores the picks of a micrograph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pickeropt.describe import describe_micrograph
from pickeropt.errors import GeometryError, MicrographError
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.classifier import Checkpoint, general_checkpoint, load_checkpoint
from pickeropt.models.fitting import choose_device, inference_dtype
from pickeropt.records import FloatArray, Micrograph

GENERAL = (
    "the general model was used, which has never seen this particle; label some twenty shots of each class "
    "and run `pickeropt finetune` for a model that has"
)


FAR = 2.0
"""By which factor a diameter is another particle's, or in another unit."""


@dataclass(frozen=True)
class CheckpointScorer:
    """A classifier on its device; implements `prune.config.MicrographScorer`.

    backbone : ready for forward passes, in the precision that the device is fast in
    diameter_angstrom : the user's where one was given, else the checkpoint's
    """

    checkpoint: Checkpoint
    backbone: Backbone
    diameter_angstrom: float
    batch_size: int | None

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
        given = (
            f"--diameter {self.diameter_angstrom:g} is far from the {own:g} Å that the model was taught at"
        )
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

    def score(
        self, micrograph: Micrograph, coordinates: NDArray[np.float64], pixel_size: float
    ) -> FloatArray:
        """(m, k) float32 probabilities of picks at (m, 2) x, y px; pixel_size in Å/px.

        Raises MicrographError where the particle does not fit, or the noise cannot be measured.
        """
        classifier = self.checkpoint.classifier
        diameter_px = self.diameter_angstrom / pixel_size
        try:
            features = describe_micrograph(
                self.backbone, classifier.spec, micrograph.pixels, diameter_px, coordinates, self.batch_size
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

    Raises CheckpointError for a file that is no pickeropt model, PickeroptError for a missing device, and
    GeometryError where no one has said the diameter.
    """
    checkpoint = general_checkpoint() if path is None else load_checkpoint(path)
    diameter = checkpoint.diameter_angstrom if diameter_angstrom is None else diameter_angstrom
    if diameter is None:
        raise GeometryError(
            "the general model is of no particle: give its diameter with --diameter (Å), or a model of your "
            "own with --model (`pickeropt finetune` makes one of a few labelled shots)"
        )
    place = choose_device(device)
    backbone = inference_copy(checkpoint.classifier.backbone, place, inference_dtype(place))
    return CheckpointScorer(checkpoint, backbone, diameter, batch_size)
