"""Atomic models as beads: masses counted by hand, assemblies, files, and what the package ships."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pickeropt.datasets.simulate import DEFAULT_SPECIES, PDB_ENTRIES, real_species
from pickeropt.datasets.simulate import species as maps
from pickeropt.datasets.simulate.species import (
    MOST_BEADS,
    VOLUME_PER_DALTON,
    beads,
    find_structures,
    load_species,
    read_structure,
    save_species,
)
from pickeropt.errors import FormatError

ALANINE, GLYCINE = 89.093 - 18.015, 75.067 - 18.015
ADENOSINE = 347.221 - 18.015
"""Da of residues in a chain: the free molecule's molar mass less that of water."""


def _atom(serial: int, name: str, residue: str, number: int, place: tuple[float, float, float]) -> str:
    x, y, z = place
    element = name.strip("'0123456789")[0]
    kind = "HETATM" if residue in ("HOH", "ZZZ") else "ATOM  "
    head = f"{kind}{serial:5d}  {name:<3s} {residue:>3s} A{number:4d}    "
    return f"{head}{x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00          {element:>2s}\n"


BACKBONE = "".join(
    _atom(i + 1, name, "ALA", 1, (1.5 * i, 0.0, 0.0)) for i, name in enumerate(("N", "CA", "C", "O", "CB"))
)
GLY = _atom(6, "CA", "GLY", 2, (40.0, 0.0, 0.0))
WATER = _atom(7, "O", "HOH", 3, (0.0, 90.0, 0.0))
HYDROGEN = _atom(8, "H", "GLY", 2, (41.0, 0.0, 0.0))


def _volume(path: Path, text: str) -> float:
    path.write_text(text + "END\n")
    return float(read_structure(path).volumes.sum())


def test_an_atom_weighs_its_residue_over_the_atoms_kept(tmp_path: Path) -> None:
    path = tmp_path / "Two.pdb"
    path.write_text(BACKBONE + GLY + HYDROGEN + WATER + "END\n")
    species = read_structure(path)
    assert species.name == "two"
    assert species.volumes.sum() == pytest.approx(VOLUME_PER_DALTON * (ALANINE + GLYCINE), rel=1e-4)
    right = species.points[:, 0] == species.points[:, 0].max()
    assert species.volumes[right].sum() == pytest.approx(VOLUME_PER_DALTON * GLYCINE, rel=1e-4)
    assert species.points[right, 0][0] - np.average(
        species.points[~right, 0], weights=species.volumes[~right]
    ) == pytest.approx(40.0 - 3.0, abs=1e-6)


def test_one_atom_a_residue_is_as_heavy_as_all_of_it(tmp_path: Path) -> None:
    alpha = _atom(1, "CA", "ALA", 1, (0.0, 0.0, 0.0))
    assert _volume(tmp_path / "a.pdb", alpha) == pytest.approx(_volume(tmp_path / "b.pdb", BACKBONE))
    phosphate = _atom(1, "P", "A", 1, (0.0, 0.0, 0.0))
    assert _volume(tmp_path / "c.pdb", phosphate) == pytest.approx(VOLUME_PER_DALTON * ADENOSINE, rel=1e-3)


def test_an_unknown_residue_weighs_its_atoms(tmp_path: Path) -> None:
    unknown = _atom(1, "C1", "ZZZ", 1, (0.0, 0.0, 0.0)) + _atom(2, "N1", "ZZZ", 1, (1.0, 0.0, 0.0))
    assert _volume(tmp_path / "a.pdb", unknown) == pytest.approx(VOLUME_PER_DALTON * (12.011 + 14.007), rel=1e-3)


def test_the_first_assembly_is_put_together(tmp_path: Path) -> None:
    rows = ["REMARK 350 BIOMOLECULE: 1", "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A"]
    for number, shift in ((1, 0.0), (2, 100.0)):
        for axis in range(3):
            unit = " ".join(f"{float(axis == column):9.6f}" for column in range(3))
            moved = shift if axis == 0 else 0.0
            rows.append(f"REMARK 350   BIOMT{axis + 1}  {number:2d} {unit}     {moved:9.5f}")
    header = "".join(f"{row:<80s}\n" for row in rows)
    once, twice = tmp_path / "once.pdb", tmp_path / "twice.pdb"
    assert _volume(twice, header + BACKBONE) == pytest.approx(2 * _volume(once, BACKBONE))
    assert np.ptp(read_structure(twice).points[:, 0]) > 95.0


def test_the_first_model_counts_and_gz_reads_the_same(tmp_path: Path) -> None:
    models = f"MODEL        1\n{BACKBONE}ENDMDL\nMODEL        2\n{BACKBONE}ENDMDL\n"
    assert _volume(tmp_path / "a.pdb", models) == pytest.approx(_volume(tmp_path / "b.pdb", BACKBONE))
    packed = tmp_path / "b_packed.pdb.gz"
    packed.write_bytes(gzip.compress((tmp_path / "b.pdb").read_bytes()))
    np.testing.assert_array_equal(read_structure(packed).points, read_structure(tmp_path / "b.pdb").points)


def test_beads_keep_mass_centre_and_extent() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60_000, 3)) * [80.0, 40.0, 20.0] + [5.0, 6.0, 7.0]
    volumes = rng.uniform(50.0, 200.0, len(points))
    species = beads("cloud", points, volumes)
    assert 0.5 * MOST_BEADS < len(species.points) <= MOST_BEADS
    assert species.volumes.sum() == pytest.approx(volumes.sum())
    np.testing.assert_allclose(np.average(species.points, axis=0, weights=species.volumes), 0.0, atol=1e-9)
    spread = np.sqrt(np.average(species.points**2, axis=0, weights=species.volumes))
    np.testing.assert_allclose(spread, [80.0, 40.0, 20.0], rtol=0.06)
    far = np.sort(np.linalg.norm(points - np.average(points, axis=0, weights=volumes), axis=1))
    assert species.diameter_angstrom == pytest.approx(2 * far[int(0.995 * len(far))], rel=1e-3)


def test_bead_files_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    species = beads("blob", rng.normal(size=(500, 3)) * 40.0, rng.uniform(100.0, 200.0, 500))
    save_species(tmp_path / "blob.npz", species, "made up")
    back = load_species(tmp_path / "blob.npz")
    assert back.name == "blob"
    np.testing.assert_allclose(back.points, species.points, atol=0.13)
    assert back.volumes.sum() == pytest.approx(species.volumes.sum(), rel=0.01)
    assert back.diameter_angstrom == pytest.approx(species.diameter_angstrom, rel=1e-6)
    (tmp_path / "broken.npz").write_bytes(b"PK no")
    with pytest.raises(FormatError, match=r"broken\.npz"):
        load_species(tmp_path / "broken.npz")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no atomic model"),
        ({"a.pdb": BACKBONE, "a.cif.gz": ""}, "keep one of the two"),
    ],
)
def test_folders_that_do_not_work_are_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=message):
        find_structures(tmp_path)
    with pytest.raises(FormatError, match="no such folder"):
        find_structures(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content"),
    [("w.pdb", WATER.encode()), ("x.cif", b"data_x\n_a"), ("y.cif.gz", b"no gzip"), ("z.cif", b"")],
)
def test_files_that_hold_no_model_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=name):
        read_structure(tmp_path / name)


KILODALTON = {"haemoglobin": 64.5, "igg": 148.0, "nucleosome": 206.0, "rubisco": 550.0, "groel": 801.0}
"""Of the complete molecules, from the literature; the models lack floppy ends."""


def test_the_package_ships_species_of_the_right_mass() -> None:
    for species in real_species(tuple(KILODALTON)):
        mass = species.volumes.sum() / VOLUME_PER_DALTON / 1e3
        assert 0.82 < mass / KILODALTON[species.name] < 1.05, species.name


def test_shipped_species_are_small_whole_and_not_the_test_specimens() -> None:
    folder = Path(maps.__file__).parent / "maps"
    assert {path.stem for path in folder.glob("*.npz")} == set(PDB_ENTRIES)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 600_000
    assert not {"5A1A", "2FHA", "5SYG"} & {entry[:4] for entry in PDB_ENTRIES.values()}
    species = real_species()
    assert len(species) == len(set(DEFAULT_SPECIES)) == 14
    sizes = [one.diameter_angstrom for one in species]
    assert min(sizes) < 80
    assert max(sizes) > 260
    for one in species:
        np.testing.assert_allclose(np.average(one.points, axis=0, weights=one.volumes), 0, atol=0.3)
        assert len(one.points) <= MOST_BEADS
    with pytest.raises(FormatError, match="'dust'"):
        real_species(("dust",))


@pytest.mark.parametrize(("name", "fold"), [("groel", 7), ("proteasome", 7), ("spike", 3), ("rubisco", 4)])
def test_shipped_species_have_the_symmetry_of_the_molecule(name: str, fold: int) -> None:
    """Turned by 360°/fold about a principal axis the molecule matches itself; by half that, less so."""
    (species,) = real_species((name,))
    _, axes = np.linalg.eigh(species.points.T @ (species.points * species.volumes[:, None]))

    def likeness(axis: int, angle: float) -> float:
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        x, y, z = (species.points @ axes[:, order]).T
        turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z])
        cells = 8.0
        both = [
            np.histogramdd(p / cells, bins=[np.arange(-20, 21)] * 3, weights=species.volumes)[0]
            for p in (np.stack([x, y, z], axis=1), turned.T)
        ]
        return float(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1])

    right, wrong = max((likeness(a, 2 * np.pi / fold), likeness(a, np.pi / fold)) for a in range(3))
    assert right > wrong + 0.05
