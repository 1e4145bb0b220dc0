"""Molecules from atomic models: atoms become beads, and beads small files.

An atomic model weighs what its residues weigh: every kept atom gets the residue's mass over
the number of atoms kept in it, so that a file that holds only C-alpha or backbone atoms has
the same contrast as the complete one. Hydrogens and water are left out.

Mass becomes Å³ of protein at 1.21 Å³/Da (0.73 cm³/g), for nucleic acid too. From atomic
scattering factors at zero angle (Peng, Micron 30, 625 (1999)) against the water displaced,
protein and RNA have nearly the same potential a dalton (4.40 and 4.44 V Å³/Da); RNA is
darker in images because it packs a third more daltons into an Å³ (0.55 cm³/g).
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pickeropt.datasets.simulate.species import Points, Species
from pickeropt.errors import FormatError

if TYPE_CHECKING:
    import gemmi

VOLUME_PER_DALTON = 1.21
"""Å³ of protein a Da."""
WATER_MASS = 18.015
"""Da that a residue loses when it is bound into a chain."""
LEAST_CELL, MOST_BEADS = 3.5, 2500
"""Å, the grain of a small molecule; that of a large one grows until there are no more beads than these."""
SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent", ".cif.gz", ".mmcif.gz", ".pdb.gz", ".ent.gz")
ROUNDING = 0.25
"""Å to which files round coordinates, so that they compress."""


def find_structures(folder: Path) -> dict[str, Path]:
    """The atomic models of a folder by species name, in order.

    Raises FormatError: no folder, no model in it, or two of one name.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; give a folder of mmCIF or PDB files")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."):
            other = found.setdefault(species_name(path), path)
            if other is not path:
                raise FormatError(f"{path}: has the name of {other.name}; keep one of the two")
    if not found:
        raise FormatError(f"{folder}: no atomic model in it; put files with {', '.join(SUFFIXES)} there")
    return found


def species_name(path: Path) -> str:
    """`4v5a` of `4V5A.cif.gz`; characters that class and file names hold badly become `_`."""
    stem = path.name.lower()
    stem = stem[: -len(next(suffix for suffix in reversed(SUFFIXES) if stem.endswith(suffix)))]
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)


def read_structure(path: Path) -> Species:
    """The first model of an mmCIF or PDB file, .gz too, its first assembly put together, as beads.

    Raises FormatError for a file that cannot be read or holds no atoms.
    """
    import gemmi  # not needed for what the package ships

    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError, IndexError, EOFError) as error:
        what = " ".join(str(error).split())
        raise FormatError(f"{path}: not read as an atomic model ({what}); give mmCIF or PDB") from error
    structure.setup_entities()
    points, masses = _atoms(_assembled(structure)) if len(structure) else (np.zeros((0, 3)), np.zeros(0))
    if not len(points):
        raise FormatError(f"{path}: no atoms but water in it; give an atomic model with coordinates")
    return beads(species_name(path), points, masses * VOLUME_PER_DALTON)


def _assembled(structure: "gemmi.Structure") -> "gemmi.Model":
    """The first biological assembly, or the model as it stands where the file names none."""
    import gemmi

    if not structure.assemblies:
        return structure[0]
    return gemmi.make_assembly(structure.assemblies[0], structure[0], gemmi.HowToNameCopiedChain.Dup)


def _atoms(model: "gemmi.Model") -> tuple[Points, NDArray[np.float64]]:
    """Places (m, 3) Å and masses (m,) Da of the atoms kept."""
    places: list[list[float]] = []
    masses: list[float] = []
    for chain in model:
        for residue in chain.first_conformer():
            if residue.is_water():
                continue
            atoms = [atom for atom in residue.first_conformer() if not atom.is_hydrogen()]
            places += [atom.pos.tolist() for atom in atoms]
            masses += [_mass(residue, atoms) / len(atoms)] * len(atoms) if atoms else []
    return np.array(places, dtype=np.float64).reshape(-1, 3), np.array(masses, dtype=np.float64)


def _mass(residue: "gemmi.Residue", atoms: "list[gemmi.Atom]") -> float:
    """Da of the whole residue in its chain; of the atoms there are where the name is not known."""
    import gemmi

    known = gemmi.find_tabulated_residue(residue.name)
    if not known.found() or known.weight <= WATER_MASS:
        return sum(atom.element.weight for atom in atoms)
    bound = known.is_amino_acid() or known.is_nucleic_acid()
    return float(known.weight) - WATER_MASS * bound


def beads(name: str, points: Points, volumes: NDArray[np.float64]) -> Species:
    """Points (m, 3) Å and their volumes (m,) Å³ gathered in cubic cells: a bead a cell.

    A bead lies at the centre of mass of its cell. At most MOST_BEADS, about the centre of mass.
    """
    centred = points - np.average(points, axis=0, weights=volumes)
    cell = LEAST_CELL
    while True:
        index = np.floor(centred / cell).astype(np.int64)
        _, member = np.unique(index, axis=0, return_inverse=True)
        member = member.reshape(-1)
        count = int(member.max()) + 1
        if count <= MOST_BEADS:
            break
        cell *= max((count / MOST_BEADS) ** 0.3, 1.02)
    total = np.bincount(member, volumes).astype(np.float64)
    places = np.stack([np.bincount(member, volumes * axis) for axis in centred.T], axis=1) / total[:, None]
    return Species(name, places, total, _diameter(centred))


def _diameter(centred: Points) -> float:
    """Twice the distance that holds 99.5 % of the points, Å."""
    return 2.0 * float(np.percentile(np.linalg.norm(centred, axis=1), 99.5))


def save_species(path: Path, species: Species, source: str) -> None:
    """Write as .npz: beads as float16 (rounded to a quarter of an Å) and a line on the source."""
    mean = float(species.volumes.mean())
    part = np.round(species.volumes / mean, 2)
    rounded = np.round(species.points / ROUNDING) * ROUNDING
    np.savez_compressed(
        path,
        points=rounded.astype(np.float16),
        parts=part.astype(np.float16),
        mean_volume=np.float32(mean),
        diameter_angstrom=np.float32(species.diameter_angstrom),
        source=np.array(source),
    )


def load_species(path: Path) -> Species:
    """A species that `save_species` wrote; its name is the file's. Raises FormatError."""
    try:
        with np.load(path, allow_pickle=False) as data:
            points = data["points"].astype(np.float64)
            volumes = data["parts"].astype(np.float64) * float(data["mean_volume"])
            diameter = float(data["diameter_angstrom"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: not a bead file of pickeropt; make it again") from error
    return Species(path.stem, points, volumes, diameter)
