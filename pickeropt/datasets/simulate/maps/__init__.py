"""Molecules from the PDB as beads, in the package: `real_species`.

The .npz files beside this one are made by `benchmarks/species.py`; README.md says how.
"""

from collections.abc import Sequence
from pathlib import Path

from pickeropt.datasets.simulate.species import Species
from pickeropt.datasets.simulate.structures import load_species, read_structure, save_species
from pickeropt.errors import FormatError

PDB_ENTRIES = {
    "haemoglobin": "1A3N",
    "ach_binding_protein": "3WIP",
    "igg": "1IGT",
    "gpcr_gs": "3SN6",
    "haemagglutinin": "3LZG",
    "hsp90": "2CG9",
    "nucleosome": "3KUY",
    "cand1_cul1": "1U6G",
    "catalase": "7CAT",
    "p5c_reductase": "2IZZ",
    "spike": "6VXX",
    "insulin_receptor": "4ZXB",
    "neuraminidase": "1NCB",
    "arylsulfatase": "1AUK",
    "p97": "3CF3",
    "rubisco": "1BXN",
    "igpd": "6EZM",
    "proteasome": "3J9I",
    "ribosome_30s": "4V4R-30S",
    "groel": "1MNF",
    "groel_groes": "1AON",
    "v_atpase": "5VOX",
    "satellite_virus": "2BUK",
    "mitoribosome": "5OOM",
    "ribosome_70s": "4V5A",
    "erythrocruorin": "2GTL",
    "mottle_virus": "1F2N",
}
"""PDB entry of each species, by mass from 64 kDa to 3.9 MDa.

Beta-galactosidase (5A1A) and apoferritin (2FHA) are not among them, so that figures on real
micrographs of the two come from a network that has never seen them.
"""
DEFAULT_SPECIES = (
    "haemoglobin",
    "igg",
    "gpcr_gs",
    "haemagglutinin",
    "nucleosome",
    "insulin_receptor",
    "spike",
    "p97",
    "rubisco",
    "proteasome",
    "groel",
    "v_atpase",
    "satellite_virus",
    "ribosome_70s",
)
"""Fourteen that differ most in size, symmetry and shape: the particle classes of the 36."""


def real_species(names: Sequence[str] = DEFAULT_SPECIES) -> tuple[Species, ...]:
    """The species of these names (of PDB_ENTRIES). Raises FormatError for a name that is none."""
    for name in names:
        if name not in PDB_ENTRIES:
            raise FormatError(f"species {name!r}: not in the package; use {', '.join(PDB_ENTRIES)}")
    return tuple(load_species(Path(__file__).with_name(f"{name}.npz")) for name in names)


def make_maps(folder: Path, out: Path) -> list[Path]:
    """Make all bead files anew from `folder`/ENTRY.cif.gz, lower case; the files written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, entry in PDB_ENTRIES.items():
        written.append(out / f"{name}.npz")
        model = read_structure(folder / f"{entry.lower()}.cif.gz")
        save_species(written[-1], model, f"PDB {entry[:4]}, CC0")
    return written
