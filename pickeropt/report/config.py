"""What a report can be told; its defaults stand here only."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportConfig:
    """The settings of `pickeropt report`.

    overlays : pictures of whole micrographs, so many that lost most and so many that lost least
    stars : STAR files of micrographs with ice and defocus, beside the files that the run read
    """

    overlays: int = 3
    stars: tuple[Path, ...] = ()
