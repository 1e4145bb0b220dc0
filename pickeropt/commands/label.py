"""The verb `label`: its options and one call."""

from functools import partial
from pathlib import Path
from typing import Annotated

from pickeropt.commands import options as given
from pickeropt.label.label_config import LabelConfig

_option = given.option
LabelsOut = Annotated[Path, _option("--out", "FILE", "The labelled STAR file; continued where it exists.")]
LabelModel = Annotated[
    Path | None,
    _option(
        "--model", "FILE", "The model that the page writes and uses. [default: model.safetensors beside the labels]"
    ),
]
Classes = Annotated[list[str] | None, _option("--class", "NAME", "A further class; may be repeated.")]
Host = Annotated[
    str, _option("--host", "ADDRESS", "Address to serve on; any but the default is open to other machines.")
]
Port = Annotated[
    int | None,
    _option("--port", "N", "Port to serve on; 0 takes a free one. [default: one per labels' file]", min=0, max=65535),
]
TrustFrame = Annotated[
    bool, _option("--trust-frame", None, "Prune without the check whether picks are flipped, swapped or binned.")
]


def run_label(
    picks: given.Picks,
    diameter: given.Diameter,
    out: LabelsOut = Path("labels.star"),
    micrographs: given.Folders = None,
    pixel_size: given.PixelSize = LabelConfig.pixel_size,
    model: LabelModel = LabelConfig.model,
    classes: Classes = None,
    host: Host = LabelConfig.host,
    port: Port = LabelConfig.port,
    device: given.Device = LabelConfig.device,
    trust_frame: TrustFrame = LabelConfig.trust_frame,
) -> None:
    """Label picks in the browser.

    Serves a page with the picks in their micrographs and prints its address. Labels are saved at every
    click; the same command continues with them. Runs until Ctrl-C.
    """
    config = LabelConfig(
        out=out,
        diameter_angstrom=diameter,
        micrographs=tuple(micrographs or ()),
        pixel_size=pixel_size,
        model=model,
        class_names=tuple(classes or ()),
        host=host,
        port=port,
        device=device,
        trust_frame=trust_frame,
    )
    from pickeropt.label.serving import serve

    serve(picks, config, partial(print, flush=True), _with_report)


def _with_report(folder: Path) -> tuple[str, ...]:
    """The report of a pruning from the page; imported only then."""
    from pickeropt.report.reporting import finish_with_report

    return finish_with_report(folder)
