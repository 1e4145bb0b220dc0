"""The configuration of `pickeropt label`, with its defaults."""

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

from pickeropt.errors import GeometryError, OutputError, PickeroptError
from pickeropt.finetune.finetune_config import MODEL_FILE

USUAL_CLASSES = ("particle", "contaminant", "carbon", "background")
"""In the order of their keys; classes of the user follow."""
COLOURS = (
    "#009E73", "#D55E00", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#999999", "#7F3C8D",
)  # fmt: skip
"""Of the classes in turn, from the colour-blind safe palette of Okabe and Ito."""
TARGETS = (10, 20, 30)
"""Labels per class that the page counts towards."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class LabelConfig:
    """One session of labelling.

    out : the labelled STAR file, which is read first where it exists
    diameter_angstrom : particle diameter, Å
    micrographs : folders to look for the micrographs in
    pixel_size : Å/px; None: from optics block and header
    model : the file that fine-tuning writes and pruning reads; None: model.safetensors beside `out`
    class_names : of the user, after the usual four
    host, port : to serve on; 0 takes a free port, None that of `out`, which is the same every time
    trust_frame : prune without the check whether picks are flipped, swapped or binned
    """

    out: Path
    diameter_angstrom: float
    micrographs: tuple[Path, ...] = ()
    pixel_size: float | None = None
    model: Path | None = None
    class_names: tuple[str, ...] = ()
    host: str = LOOPBACK
    port: int | None = None
    device: str = "auto"
    trust_frame: bool = False

    @property
    def model_file(self) -> Path:
        return self.model or self.out.parent / MODEL_FILE

    @property
    def pruned(self) -> Path:
        """The folder that pruning writes."""
        return self.out.parent / "pruned"

    @property
    def skipped_file(self) -> Path:
        """Skipped picks, beside the labels; `finetune` never reads them."""
        return self.out.with_name(f"{self.out.stem}.skipped.star")


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_config(config: LabelConfig) -> None:
    """Raises PickeroptError where a setting is out of range."""
    diameter, size = config.diameter_angstrom, config.pixel_size
    if not 0 < diameter < math.inf:
        raise GeometryError(f"--diameter is {diameter:g}; give the particle's diameter in Å, above 0")
    if size is not None and not 0 < size < math.inf:
        raise GeometryError(f"--pixel-size is {size:g}; give a number of Å/px above 0")
    if config.out.is_dir():
        raise OutputError(f"{config.out} is a folder; give the labels' file, such as {config.out}/labels.star")
    if config.model_file.is_dir():
        what = f"--model {config.model_file} is a folder"
        raise OutputError(f"{what}; give the model's file, such as {config.model_file}/{MODEL_FILE}")
    if config.port is not None and not 0 <= config.port < 2**16:
        raise PickeroptError(f"--port {config.port}: give a number from 0 to 65535; 0 takes a free one")
