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
        self.source_prior = SourcePrior(spec.layout.width, spec.parents, spec.class_names) if spec.parents else None
        self.register_buffer("temperature", torch.ones(()))

    def prior_logits(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits of the source prior, before any shot; 0 without one."""
        prior, carbon = self._prior_terms(features)
        return prior + carbon

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits, all branches summed.

        The evidence for carbon decides in full between the classes of rejects, and in part (`carbon_share`)
        between particle and reject: the logits of the other classes are shifted together until that holds. A
        contaminant gets a part of it (`contaminant_share`), or contaminants that resemble film would become carbon.
        """
        prior, carbon = self._prior_terms(features)
        without = joint_logits(self.head(features), self.spec.loss_weights) + prior
        logits = without + carbon
        rest = [i for i, name in enumerate(self.spec.class_names) if name != PARTICLE]
        partial = without[:, rest] + self.spec.carbon_share * carbon[:, rest]
        logits[:, rest] += (partial.logsumexp(1) - logits[:, rest].logsumexp(1))[:, None]
        return logits

    def _prior_terms(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted logits of the source prior, and its evidence for carbon: (n, k) each."""
        names, spec = self.spec.class_names, self.spec
        prior = evidence = features.new_zeros(len(features), len(names))
        if self.source_prior is not None:
            logits = self.source_prior(features)
            prior = spec.prior_weight * logits
            if spec.carbon_weight and CARBON in names:
                evidence = torch.zeros_like(prior)
                carbon = names.index(CARBON)
                evidence[:, carbon] = spec.carbon_weight * carbon_evidence(logits, carbon, spec.carbon_limit)
                if CONTAMINANT in names:
                    evidence[:, names.index(CONTAMINANT)] = spec.contaminant_share * evidence[:, carbon]
        return prior, evidence

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
    """A classifier of the source prior alone: no shot has been seen.

    Its classes are `DEFAULT_CLASSES`; the softmax over the source classes is summed by parent.
    """
    spec = replace(
        source.spec, class_names=DEFAULT_CLASSES, parents=source.parents, prior_weight=1.0, loss_weights=(1.0,)
    )
    classifier = PickClassifier(spec, backbone)
    assert classifier.source_prior is not None
    classifier.source_prior.load(source)
    for parameter in classifier.head.parameters():
        nn.init.zeros_(parameter)
    return classifier.eval()


FORMAT = "pickeropt classifier 1"


@dataclass(frozen=True)
class Checkpoint:
    """A classifier and what it was made for.

    diameter_angstrom : particle diameter in Å; with the pixel size of a micrograph it fixes the view.
        None for the general model, which was made for no single particle
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
        classifier.load_state_dict({_renamed(name): value for name, value in state.items()})
        diameter = float(described["diameter_angstrom"])
    except (CheckpointError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a damaged pickeropt model ({error}); fine-tune again") from error
    classifier.eval()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(classifier, diameter, described.get("provenance", {}), digest)


def _renamed(name: str) -> str:
    """The name of a weight, also where a file of an earlier version has the former one."""
    first, dot, rest = name.partition(".")
    return f"source_prior.{rest}" if dot and first == "opinion" else name


def general_checkpoint() -> Checkpoint:
    """The general model of the package: the source prior of its pretraining, without a shot of the user's."""
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
