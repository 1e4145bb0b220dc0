"""Run as a program: kill a pruning at every one of its file operations, then finish it.

    python prune_killed.py ROOT        (ROOT as `make_project` makes it)

Each line of output: the event's number, whether the run was killed, whether `out` stood
whole or not at all, the micrographs that were scored, by which run.
"""

import json
import shutil
import sys
from pathlib import Path

from killing import dies_at
from prune_world import SUMMARY, FakeScorer, tree

from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune


def run(root: Path, log: Path, overwrite: bool, kill_at: int) -> bool:
    """Prune in a child that dies at its `kill_at`-th event (never for 0). Whether it was killed."""
    config = PruneConfig(micrographs=(root / "mics",), out=root / "out", overwrite=overwrite)
    return dies_at(lambda: prune([root / "picks"], config, FakeScorer(log=log)), f"{root}/out", kill_at)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def main(root: Path, overwrite: bool) -> None:
    out, log = root / "out", root / "log"
    event, killed = 0, True
    while killed:
        event += 1
        for path in (out, root / "out.partial"):
            shutil.rmtree(path, ignore_errors=True)
        log.unlink(missing_ok=True)
        if overwrite:
            (out / "kept").mkdir(parents=True)
            (out / "kept/old.star").write_text("old")
            (out / "summary.json").write_text(SUMMARY)
            (out / "notes.txt").write_text("the user's")
        killed = run(root, log, overwrite, kill_at=event)
        first = lines(log)
        between = sorted(tree(out)) if out.exists() else None
        saved = list((root / "out.partial/records").glob("[!.]*.npy"))
        if killed and (between is None or "kept/old.star" in between):
            run(root, log, overwrite, kill_at=0)
        report = {
            "killed": killed,
            "between": between,
            "saved": len(saved),
            "first": first,
            "second": lines(log)[len(first) :],
            "after": {name: data.decode() for name, data in tree(out).items()},
            "left": sorted(path.name for path in root.iterdir()),
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), overwrite=sys.argv[2:] == ["--overwrite"])
