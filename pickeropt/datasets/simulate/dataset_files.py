"""The folder of a simulated data set: what is there already, what it was made with, room for it."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pickeropt
from pickeropt.datasets.dataset_config import DatasetConfig
from pickeropt.datasets.simulate.simulation_config import SimulationConfig
from pickeropt.datasets.simulate.species import Species
from pickeropt.errors import OutputError
from pickeropt.io.tables import write_bytes_atomically

FORMAT = "pickeropt simulated micrographs 1"
MARKER = "dataset.json"
FOLDERS = ("micrographs", "masks", "truth")


def settings_of(
    config: DatasetConfig,
    imaging: SimulationConfig,
    species: tuple[Species, ...],
    grids: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What decides the bytes of a micrograph, as JSON reads it back.

    grids : what the grid of each species has in place of what `imaging` says
    """
    own = {k: v for k, v in asdict(config).items() if k not in ("micrographs", "structures", "species")}
    if config.grid_kinds is None:  # sets of before there were any go on
        del own["grid_kinds"]
    common = asdict(imaging)
    if imaging.film_seed is None:
        del common["film_seed"]
    molecules = {
        one.name: {
            "diameter_angstrom": round(one.diameter_angstrom, 2),
            "sha256": hashlib.sha256(one.points.tobytes() + one.volumes.tobytes()).hexdigest(),
        }
        for one in species
    }
    made = {"format": FORMAT, "seed": config.seed, "config": own | {"imaging": common}}
    if any(grids):
        made["grid"] = list(grids)
    result: dict[str, Any] = json.loads(json.dumps(made | {"species": molecules}))
    return result


def prepare(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Make the folders; go on with what is there, or clear it.

    Raises OutputError for a folder that holds anything but a data set of these settings.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            _check_earlier(out, settings, overwrite)
        write_marker(out, settings, sorted(path.stem for path in (out / "truth").glob("[!.]*.star")))
        for folder in FOLDERS:
            (out / folder).mkdir(parents=True, exist_ok=True)
            for left in (out / folder).glob(".*.partial"):
                left.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); give another folder") from error


def _check_earlier(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    marker = out / MARKER
    try:
        earlier = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict) or earlier.get("format") != FORMAT:
        raise OutputError(f"{out}: is there already and no simulated data set; give another folder")
    if overwrite or not any((out / "truth").glob("[!.]*.star")):
        (out / "truth.star").unlink(missing_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)
        return
    for part in ("seed", "species", "config", "grid"):
        if earlier.get(part) != settings.get(part):
            what = f"{out}: holds a data set of another {part}"
            remedy = "give its own options to go on with it, another folder, or --overwrite"
            raise OutputError(f"{what}; {remedy}")


def check_room(out: Path, pixels: int) -> None:
    """Raises OutputError where micrographs of so many pixels in all would not fit on the disk."""
    needed, free = 4.1 * pixels, shutil.disk_usage(out).free
    if needed > free:
        what = f"{out}: {needed / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free"
        raise OutputError(f"{what}; make room, or simulate fewer or smaller micrographs")


def is_done(out: Path, name: str) -> bool:
    """Whether all files of a micrograph are there: its truth was written last."""
    return (out / "truth" / f"{name}.star").exists() and (out / "micrographs" / f"{name}.mrc").exists()


def write_marker(out: Path, settings: dict[str, Any], done: list[str]) -> None:
    """Write dataset.json with the names of the micrographs that are done."""
    made = settings | {"pickeropt": pickeropt.__version__, "micrographs": done}
    write_bytes_atomically(out / MARKER, (json.dumps(made, indent=1) + "\n").encode())
