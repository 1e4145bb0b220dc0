"""Make the bead models of the package anew: python benchmarks/species.py FOLDER [OUT]

FOLDER holds the atomic models as ENTRY.cif.gz (lower case PDB entry, biological assembly);
the entries are those of `pickeropt.datasets.simulate.species.PDB_ENTRIES`. Seven seconds.
"""

import sys
from pathlib import Path

from pickeropt.datasets.simulate import species as maps
from pickeropt.datasets.simulate.species import read_structure, save_species


def make_maps(folder: Path, out: Path) -> list[Path]:
    """Make all bead files anew from `folder`/ENTRY.cif.gz, lower case; the files written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, entry in maps.PDB_ENTRIES.items():
        written.append(out / f"{name}.npz")
        model = read_structure(folder / f"{entry.lower()}.cif.gz")
        save_species(written[-1], model, f"PDB {entry[:4]}, CC0")
    return written


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[2] if len(sys.argv) == 3 else str(Path(maps.__file__).parent / "maps"))
    written = make_maps(Path(sys.argv[1]), out)
    print(f"{len(written)} species, {sum(path.stat().st_size for path in written):,} bytes in {out}")
