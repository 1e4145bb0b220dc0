"""Species: molecules as points that become Gaussian blobs, invented or read from atomic models.

Invented subunits are unions of spheres filled with points at the density of protein, copied by a symmetry
group. In atomic models every kept atom gets its residue's mass over the number of atoms kept in it, so that
a file with only C-alpha or backbone atoms has the contrast of the complete one. Hydrogens and water are left
out.

Mass becomes Å³ of protein at 1.21 Å³/Da (0.73 cm³/g), for nucleic acid too. From atomic scattering factors
at zero angle (Peng, Micron 30, 625 (1999)) against the water displaced, protein and RNA have nearly the same
potential a dalton (4.40 and 4.44 V Å³/Da); RNA is darker in images because it packs a third more daltons
into an Å³ (0.55 cm³/g).

`real_species` loads the .npz files in `maps/`, which `benchmarks/species.py` makes (README.md there).
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from pickeropt.errors import FormatError

if TYPE_CHECKING:
    import gemmi


Points = NDArray[np.float64]
Lobes = tuple[Points, NDArray[np.float64]]
"""Centres (m, 3) and radii (m,) of spheres, Å."""

MAX_POINTS = 2500
RESIDUE_VOLUME = 134.0
"""Å³ of protein a point stands for at the least (one residue)."""


@dataclass(frozen=True)
class Species:
    """One molecule.

    points : (m, 3) Å about the centre; volumes : (m,) Å³ of protein at each point
    diameter_angstrom : twice the largest distance from the centre
    """

    name: str
    points: Points
    volumes: NDArray[np.float64]
    diameter_angstrom: float

    def scaled(self, diameter_angstrom: float) -> "Species":
        """The same shape at another diameter, at the same density."""
        factor = diameter_angstrom / self.diameter_angstrom
        return replace(
            self,
            points=self.points * factor,
            volumes=self.volumes * factor**3,
            diameter_angstrom=diameter_angstrom,
        )


def make_species(seed: int = 0) -> tuple[Species, ...]:
    """One molecule of each of the 14 shapes; another seed gives other molecules."""
    streams = np.random.SeedSequence(seed).spawn(len(SHAPES))
    return tuple(_build(name, np.random.default_rng(stream)) for name, stream in zip(SHAPES, streams, strict=True))


def _build(name: str, rng: np.random.Generator) -> Species:
    points, volumes = _fill(SHAPES[name](rng), rng)
    volumes = volumes * DENSITY.get(name, 1.0) * rng.lognormal(0.0, 0.35, len(volumes))
    points = (points - np.average(points, axis=0, weights=volumes)) * rng.uniform(0.9, 1.1)
    radius = float(np.percentile(np.linalg.norm(points, axis=1), 99.5))
    return Species(name, points, volumes, 2.0 * radius)


def _fill(lobes: Lobes, rng: np.random.Generator) -> tuple[Points, NDArray[np.float64]]:
    """Points in the union of the spheres at even density, with the Å³ of each."""
    centres, radii = lobes
    low, high = (centres - radii[:, None]).min(axis=0), (centres + radii[:, None]).max(axis=0)
    tries = 40_000
    candidates = rng.uniform(low, high, (tries, 3))
    distance, nearest = cKDTree(centres).query(candidates, k=list(range(1, min(8, len(centres)) + 1)))
    inside = candidates[np.any(distance < radii[nearest], axis=1)]
    volume = float(np.prod(high - low)) * len(inside) / tries
    count = min(len(inside), MAX_POINTS, max(64, int(volume / RESIDUE_VOLUME)))
    return inside[:count], np.full(count, volume / count)


def _walk(rng: np.random.Generator, count: int, radius: float, stretch: Points) -> Lobes:
    """A compact chain of overlapping spheres about the origin; `stretch` (3,) elongates it."""
    steps = rng.normal(size=(count, 3)) * stretch
    steps *= radius / np.linalg.norm(steps, axis=1, keepdims=True)
    centres = np.cumsum(steps, axis=0)
    centres = (centres - centres.mean(axis=0)) * 0.7
    return centres, radius * rng.uniform(0.75, 1.15, count)


def _moved(lobes: Lobes, offset: tuple[float, float, float]) -> Lobes:
    return lobes[0] + np.array(offset), lobes[1]


def _joined(*parts: Lobes) -> Lobes:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _symmetric(group: str, lobes: Lobes) -> Lobes:
    """Copies of the lobes under a point group named as in scipy (C4, D7, T, O, I)."""
    rotations = Rotation.create_group(group)
    centres = np.concatenate([rotation.apply(lobes[0]) for rotation in rotations])
    return centres, np.tile(lobes[1], len(rotations))


def _round(*stretch: float) -> Points:
    return np.array(stretch or (1.0, 1.0, 1.0))


def _globular(rng: np.random.Generator) -> Lobes:
    return _walk(rng, 9, 19.0, _round())


def _two_domain(rng: np.random.Generator) -> Lobes:
    large, small = _walk(rng, 5, 19.0, _round()), _walk(rng, 4, 15.0, _round())
    return _joined(_moved(large, (-22.0, 0.0, 0.0)), _moved(small, (30.0, 6.0, 0.0)))


def _y_shape(rng: np.random.Generator) -> Lobes:
    """Three arms of two lobes, as an antibody has."""
    arms = []
    for angle in np.deg2rad([90.0, 210.0 + rng.uniform(-15, 15), 330.0 + rng.uniform(-15, 15)]):
        reach = np.array([[18.0], [42.0], [62.0]])
        direction = np.array([[np.cos(angle), np.sin(angle), rng.uniform(-0.2, 0.2)]])
        arms.append((reach * direction, np.array([16.0, 20.0, 20.0])))
    return _joined(*arms)


def _dimer_c2(rng: np.random.Generator) -> Lobes:
    return _symmetric("C2", _moved(_walk(rng, 8, 19.0, _round()), (24.0, 0.0, 8.0)))


def _trimer_c3(rng: np.random.Generator) -> Lobes:
    """A spike: wide head, thin stalk."""
    head = _moved(_walk(rng, 8, 18.0, _round()), (22.0, 0.0, 34.0))
    stalk = (np.array([[9.0, 0.0, z] for z in range(-70, 30, 14)]), np.full(8, 11.0))
    return _symmetric("C3", _joined(head, stalk))


def _channel_c4(rng: np.random.Generator) -> Lobes:
    """Four subunits about a pore, with the belt of a detergent micelle."""
    subunit = _moved(_walk(rng, 8, 17.0, _round(0.5, 0.5, 1.0)), (22.0, 0.0, 14.0))
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    belt = np.stack([45 * np.cos(angles), 45 * np.sin(angles), np.full(18, -14.0)], axis=1)
    return _joined(_symmetric("C4", subunit), (belt, np.full(18, 14.0)))


def _tetramer_d2(rng: np.random.Generator) -> Lobes:
    return _symmetric("D2", _moved(_walk(rng, 10, 21.0, _round()), (35.0, 17.0, 10.0)))


def _barrel_d7(rng: np.random.Generator) -> Lobes:
    return _symmetric("D7", _moved(_walk(rng, 6, 19.0, _round(0.5, 0.5, 1.0)), (44.0, 0.0, 34.0)))


def _cage_o(rng: np.random.Generator) -> Lobes:
    return _symmetric("O", _moved(_walk(rng, 4, 15.0, _round(0.7, 0.7, 0.7)), (42.0, 20.0, 14.0)))


def _capsid_i(rng: np.random.Generator) -> Lobes:
    return _symmetric("I", _moved(_walk(rng, 5, 25.0, _round()), (35.0, 20.0, 115.0)))


def _rod(rng: np.random.Generator) -> Lobes:
    x = np.arange(-110.0, 111.0, 16.0)
    y = rng.uniform(5, 25) * (x / 110.0) ** 2 + rng.normal(0, 3.0, len(x))
    return np.stack([x, y, rng.normal(0, 3.0, len(x))], axis=1), rng.uniform(13.0, 19.0, len(x))


def _ring_c11(rng: np.random.Generator) -> Lobes:
    return _symmetric("C11", _moved(_walk(rng, 4, 18.0, _round(0.5, 0.5, 1.0)), (50.0, 0.0, 0.0)))


def _disc(rng: np.random.Generator) -> Lobes:
    angle, radius = rng.uniform(0, 2 * np.pi, 40), 44.0 * np.sqrt(rng.uniform(0, 1, 40))
    z = rng.uniform(-8.0, 8.0, 40)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1), np.full(40, 15.0)


def _two_part(rng: np.random.Generator) -> Lobes:
    """A large dense body and a smaller one on its side, as a ribosome."""
    large, small = _walk(rng, 26, 26.0, _round()), _walk(rng, 14, 24.0, _round())
    shrink = np.array([0.55])
    return _joined(
        _moved((large[0] * shrink, large[1]), (0.0, 0.0, -36.0)),
        _moved((small[0] * shrink, small[1]), (0.0, 0.0, 52.0)),
    )


SHAPES: dict[str, Callable[[np.random.Generator], Lobes]] = {
    "globular": _globular,
    "two_domain": _two_domain,
    "y_shape": _y_shape,
    "dimer_c2": _dimer_c2,
    "trimer_c3": _trimer_c3,
    "channel_c4": _channel_c4,
    "tetramer_d2": _tetramer_d2,
    "barrel_d7": _barrel_d7,
    "cage_o": _cage_o,
    "capsid_i": _capsid_i,
    "rod": _rod,
    "ring_c11": _ring_c11,
    "disc": _disc,
    "two_part": _two_part,
}

DENSITY = {"two_part": 1.5, "disc": 1.3}
"""Contrast relative to protein where a molecule holds nucleic acid."""

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
micrographs of the two come from a network that was not trained on them.
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
    return tuple(load_species(Path(__file__).parent / "maps" / f"{name}.npz") for name in names)
