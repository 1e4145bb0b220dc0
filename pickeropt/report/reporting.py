"""The report of a pruning, written into its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pickeropt.display import as_png
from pickeropt.errors import OutputError
from pickeropt.files import write_bytes_atomically
from pickeropt.pruned_run import OVERLAYS, REPORT, SHEET
from pickeropt.report.ice_and_defocus import read_optics
from pickeropt.report.kinds import ReportedRun, extremes, kinds_of, read_run, tally
from pickeropt.report.report_page import Content, Overlay, page
from pickeropt.report.report_pictures import Missing, boxes_of, contact_sheet, overlay_of, sheets_of
from pickeropt.report.rerun_command import ReportConfig


@dataclass(frozen=True)
class Report:
    """written : the page, the sheet, the overlays; warnings : what the report lacks, a sentence each"""

    written: tuple[Path, ...]
    warnings: tuple[str, ...]


def write_report(folder: Path, config: ReportConfig | None = None) -> Report:
    """Write `report.html`, `contact_sheet.png` and `overlays/NAME.png` into the folder of a pruning.

    Nothing but the folder is needed; where micrographs are gone there are no pictures of them, and the
    report says so. The page comes last, so that one that is there is whole.

    Raises OutputError and FormatError as `read_run` does, OutputError where nothing can be written.
    """
    config = config or ReportConfig()
    run, missing = read_run(folder), Missing()
    kinds, numbers = kinds_of(run), tally(run)
    sheets = sheets_of(run, kinds)
    boxes = boxes_of(run, (row for sheet in sheets for row in sheet.rows.tolist()), missing)
    most, least = extremes(run, numbers, config.overlays)
    drawn = []
    for index in (*most, *least):
        picture = overlay_of(run, index, kinds, missing)
        if picture is not None:
            drawn.append(Overlay(index, index in most, picture))
    warnings = missing.warnings()
    said = (*map(str, run.summary.get("warnings") or ()), *warnings)
    content = Content(run, kinds, numbers, sheets, boxes, drawn, read_optics(run, config.stars), said)
    written = [folder / SHEET, *_write_overlays(folder / OVERLAYS, run, drawn), folder / REPORT]
    write_bytes_atomically(written[0], as_png(contact_sheet(run, sheets, boxes)))
    write_bytes_atomically(written[-1], page(content).encode())
    return Report(tuple(written), warnings)


def finish_with_report(folder: Path, config: ReportConfig | None = None) -> tuple[str, ...]:
    """Write the report of a pruning that is about to be published; warnings where there is none.

    Nothing that goes wrong here may cost the user the pruning.
    """
    try:
        return write_report(folder, config).warnings
    except Exception as error:  # whatever it is: the picks are done
        return (f"there is no report ({type(error).__name__}: {error}); `pickeropt report` tries again",)


def _write_overlays(folder: Path, run: ReportedRun, drawn: Sequence[Overlay]) -> list[Path]:
    """A PNG of each, named after its micrograph; those of an earlier report go."""
    names: dict[str, int] = {}
    for overlay in drawn:
        stem = PurePath(run.micrographs[overlay.index]).stem or "micrograph"
        name = f"{stem}.png"
        if name in names:
            name = f"{stem}_{overlay.index}.png"
        names[name] = overlay.index
    paths = [folder / name for name in names]
    for path, overlay in zip(paths, drawn, strict=True):
        write_bytes_atomically(path, as_png(overlay.picture))
    try:
        for old in folder.glob("*.png"):
            if old.name not in names:
                old.unlink()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return paths
