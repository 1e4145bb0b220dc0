"""Prune the particles of a cryoSPARC job; the kept ones become the output of an External job.

    python cryosparc_external_job.py --instance instance.json P3 W1 J42 -- --model model.safetensors

Needs cryosparc-tools of the server's minor version, the project's folder mounted here, and `pickeropt` on
PATH. It loads the output, writes its locations as a `.cs` file, runs `pickeropt prune` on it with whatever
follows `--`, and saves the particles by uid: an External job with `particles_kept` and
`particles_rejected`, connected to the source job, so that every other slot passes through. cryoSPARC's own
files are never written to.

This script was tested against stand-ins of cryosparc-tools' objects, not against a cryoSPARC server.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEEDED = (
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/center_x_frac",
    "location/center_y_frac",
)
SLOTS = ("location", "pick_stats", "micrograph_blob")
"""What pickeropt reads of a particle, where it is there."""
PICKS = "picks.cs"
INPUT = "particles"


def micrograph_folders(project: Path, paths: Iterable[str]) -> list[Path]:
    """The folders of the micrographs, whose paths are relative to the project's folder.

    Raises SystemExit for a folder that is not there.
    """
    folders = sorted({(project / str(path)).parent for path in paths})
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        sys.exit(f"{missing[0]}: no such folder; run this where the cryoSPARC project is mounted")
    return folders


def prune_command(work: Path, folders: Sequence[Path], options: Sequence[str]) -> list[str]:
    """The call of pickeropt on `work/picks.cs`, which writes `work/pruned`."""
    micrographs = [word for folder in folders for word in ("--micrographs", str(folder))]
    out = ["--out", str(work / "pruned")]
    return ["pickeropt", "prune", str(work / PICKS), *micrographs, *out, *options]


def kept_rows(uids: NDArray[np.uint64], work: Path) -> NDArray[np.bool_]:
    """(n,): which particles pickeropt kept. Raises SystemExit where kept and rejected are not all of them."""
    sides = [np.load(work / "pruned" / side / PICKS, allow_pickle=False)["uid"] for side in ("kept", "rejected")]
    if not np.array_equal(np.sort(np.concatenate(sides)), np.sort(uids)):
        sys.exit(f"{work / 'pruned'}: holds other particles than the job; delete it and run again")
    return np.isin(uids, sides[0])


def save(project: Any, workspace: str, source: tuple[str, str], particles: Any, keep: NDArray[np.bool_]) -> str:
    """Make the External job, connect it to (job, output), save its outputs; the new job's uid.

    A side without particles gets no output: cryoSPARC has no use for an empty one.
    """
    title = f"pickeropt: {int(keep.sum())} of {len(keep)} particles of {source[0]} kept"
    job = project.create_external_job(workspace, title=title)
    job.add_input(type="particle", name=INPUT, min=1, slots=["location"], title="Particles")
    job.connect(INPUT, *source)
    sides = {"particles_kept": keep, "particles_rejected": ~keep}
    names = [name for name, rows in sides.items() if rows.any()]
    for name in names:
        shown = name.replace("_", " ").capitalize()
        job.add_output(type="particle", name=name, slots=["location"], passthrough=INPUT, title=shown)
    with job.run():
        for name in names:
            job.save_output(name, particles.mask(sides[name]).filter_prefixes(["location"]))
        job.log(title)
    return str(job.uid)


def prune_job(server: Any, arguments: argparse.Namespace, call: Callable[[list[str]], int] = subprocess.call) -> str:
    """From the source job to the External job, whose uid it returns.

    server : cryosparc-tools' CryoSPARC; call : runs a command, returns its exit code
    """
    project = server.find_project(arguments.project)
    particles = project.find_job(arguments.job).load_output(arguments.output)
    missing = [name for name in NEEDED if name not in particles.fields()]
    if missing:
        sys.exit(f"{arguments.job}: its particles have no {missing[0]}; take a job that picks or extracts")
    work: Path = arguments.work or Path(f"pickeropt_{arguments.project}_{arguments.job}")
    work.mkdir(parents=True, exist_ok=True)
    particles.filter_prefixes(list(SLOTS), copy=True).save(str(work / PICKS))
    folders = micrograph_folders(Path(str(project.dir)), particles["location/micrograph_path"])
    code = call(prune_command(work, folders, arguments.options))
    if code:
        sys.exit(code)
    keep = kept_rows(np.asarray(particles["uid"], dtype=np.uint64), work)
    if not keep.any():
        sys.exit("no particle was kept, so no External job is made; lower --threshold")
    return save(project, arguments.workspace, (arguments.job, arguments.output), particles, keep)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows `--` is for `pickeropt prune`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    login = parser.add_mutually_exclusive_group(required=True)
    login.add_argument("--instance", type=Path, metavar="FILE", help="JSON: the arguments of CryoSPARC(...)")
    login.add_argument("--url", help="cryoSPARC 5, after `python -m cryosparc.tools login`")
    parser.add_argument("project", help="P3")
    parser.add_argument("workspace", help="W1, where the External job goes")
    parser.add_argument("job", help="J42, whose particles are pruned")
    parser.add_argument("--output", default="particles", help="of that job (default: particles)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: ./pickeropt_PROJECT_JOB")
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:end])
    arguments.options = list(words[end + 1 :])
    return arguments


def main() -> None:
    arguments = parse(sys.argv[1:])
    from cryosparc.tools import CryoSPARC

    if arguments.instance:
        server = CryoSPARC(**json.loads(arguments.instance.read_text(encoding="utf-8")))
    else:
        server = CryoSPARC(arguments.url)
    print(f"External job {prune_job(server, arguments)}")


if __name__ == "__main__":
    main()
