"""What `pickeropt dataset empiar` can be told: its defaults, but for the addresses in manifest.toml."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pickeropt.datasets.empiar.request import Patience


@dataclass(frozen=True)
class EmpiarConfig:
    """One download.

    out : OUT/ACCESSION/micrographs, /particle_coordinates and /labels.star are made there
    base_url, labels_url : of EMPIAR's ACCESSION/ folders and of CryoPPP's ACCESSION.tar.gz
    max_micrographs : of each entry, spread over its names; 0 takes all
    shots : labelled STAR files of the user, for contaminant, carbon and what CryoPPP lacks
    patience : how long to try; None is the usual
    """

    out: Path
    base_url: str
    labels_url: str
    max_micrographs: int = 20
    shots: tuple[Path, ...] = ()
    patience: "Patience | None" = None
