"""The classifier: backbone, head and the geometry they were made for, in one safetensors file; never a pickle."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pickeropt import __version__
from pickeropt.errors import CheckpointError
from pickeropt.files import write_bytes_atomically
from pickeropt.models.backbone import Backbone, initial_backbone, initial_head, shipped_bytes
from pickeropt.models.head import BranchedHead, ModelSpec, joint_logits, spec_of
from pickeropt.models.source_head import CARBON, CONTAMINANT, SourceHead, SourcePrior, carbon_evidence
from pickeropt.records import DEFAULT_CLASSES, PARTICLE


class PickClassifier(nn.Module):
    """A backbone, a branched head on its pooled features, and a temperature that makes probabilities honest.

    temperature : logits are divided by it; 1 until it is measured on held-out shots
    """

    def __init__(self, spec: ModelSpec, backbone: Backbone):
        super().__init__()
        self.temperature: Tensor
        self.spec, self.backbone = spec, backbone
        self.head = BranchedHead(spec.layout, len(spec.class_names), len(spec.loss_weights), spec.limit)
        self.opinion = SourcePrior(spec.layout.width, spec.parents, spec.class_names) if spec.parents else None
        self.register_buffer("temperature", torch.ones(()))

    def leaning(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits that stand before any shot has been seen; 0 without an opinion."""
        leaning, film = self._opinions(features)
        return leaning + film

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits, all branches read.

        The evidence for carbon says in full which kind of reject a pick is, and in part (`carbon_share`)
        whether it is a particle: the other classes are moved together until it is so. A part of it
        (`carbon_alike`) is for a contaminant as well, or those that look like film would be called carbon.
        """
        leaning, film = self._opinions(features)
        logits = joint_logits(self.head(features), self.spec.loss_weights) + leaning
        said = logits + film
        rest = [i for i, name in enumerate(self.spec.class_names) if name != PARTICLE]
        heard = logits[:, rest] + self.spec.carbon_share * film[:, rest]
        said[:, rest] += (heard.logsumexp(1) - said[:, rest].logsumexp(1))[:, None]
        return said

    def _opinions(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the opinion counts for, and its evidence for carbon beside that: (n, k) each."""
        names, spec = self.spec.class_names, self.spec
        leaning = film = features.new_zeros(len(features), len(names))
        if self.opinion is not None:
            opinion = self.opinion(features)
            leaning = spec.lean * opinion
            if spec.carbon_lean and CARBON in names:
                film = torch.zeros_like(leaning)
                carbon = names.index(CARBON)
                film[:, carbon] = spec.carbon_lean * carbon_evidence(opinion, carbon, spec.carbon_most)
                if CONTAMINANT in names:
                    film[:, names.index(CONTAMINANT)] = spec.carbon_alike * film[:, carbon]
        return leaning, film

    def probabilities(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) probabilities, rows sum to 1."""
        return self.calibrated(self.logits(features), self.temperature)

    def calibrated(self, logits: Tensor, temperature: Tensor | float) -> Tensor:
        """(n, k) logits -> probabilities of picks of which half are particles.

        The shots hold every class alike, so the logits take particles for one in k; a picker's picks are
        particles far more often. Half is the neutral assumption, at which P(particle) = 0.5 means that the
        pick looks as much like a particle as like anything else.
        """
        prior = torch.zeros(logits.shape[1])
        prior[self.spec.class_names.index(PARTICLE)] = math.log(logits.shape[1] - 1)
        return torch.softmax(logits / temperature + prior, 1)


def general_classifier(backbone: Backbone, source: SourceHead) -> PickClassifier:
    """A classifier that says its pretraining's opinion and nothing else: no shot has been seen.

    Its classes are `DEFAULT_CLASSES`; the softmax over the source classes is summed by parent.
    """
    spec = replace(source.spec, class_names=DEFAULT_CLASSES, parents=source.parents, lean=1.0, loss_weights=(1.0,))
    classifier = PickClassifier(spec, backbone)
    assert classifier.opinion is not None
    classifier.opinion.load(source)
    for parameter in classifier.head.parameters():
        nn.init.zeros_(parameter)
    return classifier.eval()


FORMAT = "pickeropt classifier 1"


@dataclass(frozen=True)
class Checkpoint:
    """A classifier and what it was made for.

    diameter_angstrom : particle diameter in Å; with the pixel size of a micrograph it fixes the view.
        None for the general model, which is of no particle
    provenance : recipe, seed, shots a class, initial weights, figures on held-out shots, versions
    digest : sha256 of the file
    """

    classifier: PickClassifier
    diameter_angstrom: float | None
    provenance: Mapping[str, Any]
    digest: str


def save_checkpoint(
    path: Path | None, classifier: PickClassifier, diameter_angstrom: float, provenance: Mapping[str, Any]
) -> str:
    """Write a classifier, whole or not at all; returns the sha256 of the file. A path of None writes nothing.

    The header's metadata say in JSON, for any reader: backbone, class names, diameter in Å, size of the
    particle in the network's view (so Å/px of the view), box size, normalisation, recipe, seed, shots,
    versions.
    """
    versions = {name: version(name) for name in ("torch", "timm", "numpy")}
    spec = classifier.spec
    described = {
        "spec": asdict(spec),
        "diameter_angstrom": diameter_angstrom,
        "view_angstrom_per_px": [diameter_angstrom / d for d in spec.view_diameters],
        "input_size_px": None if spec.dense else [spec.box_px(d) for d in spec.view_diameters],
        "provenance": {**provenance, "versions": {"pickeropt": __version__, **versions}},
    }
    state = {name: value.detach().contiguous().cpu() for name, value in classifier.state_dict().items()}
    content = with_sorted_metadata(save(state, {"format": FORMAT, "pickeropt": json.dumps(described)}))
    if path is not None:
        write_bytes_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted by name: safetensors writes them in any order, and the
    digest must not change from run to run. The header is 8 bytes of its length, JSON, blanks up to 8 bytes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a classifier, on the CPU in float32, in evaluation mode.

    Raises CheckpointError for a missing file, a pickle (never opened as one), a safetensors file that
    is not a pickeropt classifier, and for one that lacks a weight.
    """
    if not path.is_file():
        raise CheckpointError.missing_model(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {_what_it_is(path)}; make a model with `pickeropt finetune`") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a {FORMAT!r}: it says {metadata.get('format')!r}; "
            "backbone weights go to `pickeropt finetune --init`, which makes a model of them"
        )
    try:
        described = json.loads(metadata["pickeropt"])
        spec = spec_of(described["spec"])
        classifier = PickClassifier(spec, Backbone(spec.backbone, spec.stages))
        classifier.load_state_dict(state)
        diameter = float(described["diameter_angstrom"])
    except (CheckpointError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a damaged pickeropt model ({error}); fine-tune again") from error
    classifier.eval()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(classifier, diameter, described.get("provenance", {}), digest)


def general_checkpoint() -> Checkpoint:
    """The general model of the package: what its pretraining thinks, without a shot of the user's."""
    source = initial_head("shipped")
    if source is None:
        raise CheckpointError("the weights in the package hold no classifier; install pickeropt again")
    backbone = initial_backbone("resnet18", "shipped", None, source.spec.stages)
    digest = hashlib.sha256(shipped_bytes()).hexdigest()
    return Checkpoint(general_classifier(backbone, source), None, {"general": True}, digest)


def _what_it_is(path: Path) -> str:
    start = path.read_bytes()[:8]
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "a pickle or torch.save file, which can run code when opened, so it is refused"
    return "not a safetensors file, or a truncated one"
