"""Make the bead models of the package anew: python benchmarks/species.py FOLDER [OUT]

FOLDER holds the atomic models as ENTRY.cif.gz (lower case PDB entry, biological assembly);
the entries are those of `pickeropt.datasets.simulate.species.PDB_ENTRIES`. Seven seconds.
"""

import sys
from pathlib import Path

from pickeropt.datasets.simulate import species as maps

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[2] if len(sys.argv) == 3 else str(Path(maps.__file__).parent))
    written = maps.make_maps(Path(sys.argv[1]), out)
    print(f"{len(written)} species, {sum(path.stat().st_size for path in written):,} bytes in {out}")
