#!/usr/bin/env python3
"""Pick micrographs permissively with Topaz and RELION's LoG: real picks, true and false, to prune.

usage: make_picks.py --micrographs DIR --out DIR --diameter 191 --pixel-size 1.77
                     [--topaz PATH] [--relion-autopick PATH] [--topaz-threshold -4]

Writes, for every NAME.mrc of DIR, coordinates in px of the micrograph, rows as stored in the MRC:
  OUT/topaz/NAME.box                     x y w h score, x and y of the corner, best score first
  OUT/log/NAME_autopick.star             as RELION wrote it, at RELION's own threshold
  OUT/log_permissive/NAME_autopick.star  the same with --LoG_adjust_threshold -1: more false picks

Topaz samples pixels at random to normalise, with no seed to set: scores and some picks differ between runs.

Needs only the standard library, and the programs: `pip install topaz-em` (its pretrained detector is in
the package, the CPU is enough) and relion_autopick (tried with 3.1.3).
"""

import argparse
import csv
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TOPAZ_SCALE = 8  # the downsampling at which the pretrained detector sees a particle of some 10 to 20 px
LOG_DIAMETERS = (0.7, 1.0)  # smallest and largest diameter that LoG looks for, as parts of --diameter
LOG_ADJUST = {"log": 0.0, "log_permissive": -1.0}  # folder: --LoG_adjust_threshold, in standard deviations

# RELION 3.1 refuses an optics table without voltage and Cs; LoG picking without --LoG_use_ctf ignores them.
MICROGRAPHS_STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnMicrographPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
opticsGroup1 1 {pixel_size:.6f} {pixel_size:.6f} 300.0 2.7 0.1


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
{rows}

"""


def parse_arguments() -> argparse.Namespace:
    """The command line; every value checked before any compute."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--micrographs", type=Path, required=True, help="folder of MRC micrographs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--diameter", type=float, default=191.0, help="longest dimension of the particle, Å")
    parser.add_argument("--pixel-size", type=float, default=1.77, help="Å/px of the micrographs")
    parser.add_argument("--topaz", default="topaz", help="the Topaz executable")
    parser.add_argument("--relion-autopick", default="relion_autopick", help="the relion_autopick executable")
    parser.add_argument("--topaz-threshold", type=float, default=-4.0, help="least log-likelihood ratio")
    parser.add_argument("--box", type=int, default=180, help="box size written to the .box files, px, even")
    parser.add_argument("--threads", type=int, default=1, help="threads of Topaz")
    args = parser.parse_args()
    if args.diameter <= 0 or args.pixel_size <= 0:
        parser.error("--diameter and --pixel-size must be positive, in Å and Å/px")
    if args.box <= 0 or args.box % 2:
        parser.error(f"--box {args.box}: give an even, positive number, so that the centre is a whole px")
    args.topaz = find_program(args.topaz, "--topaz", "pip install topaz-em")
    args.relion_autopick = find_program(args.relion_autopick, "--relion-autopick", "install RELION")
    return args


def find_program(name: str, flag: str, remedy: str) -> str:
    """Absolute path of an executable; the symlink is kept, or a virtual environment would be lost."""
    found = shutil.which(name)
    if found is None:
        sys.exit(f"error: {flag}: no executable {name!r}; {remedy}, or give its path with {flag}")
    return str(Path(found).absolute())


def find_micrographs(folder: Path) -> list[Path]:
    """The MRC files of a folder, sorted; each side must be a multiple of TOPAZ_SCALE px.

    Topaz truncates the downsampled side, and its coordinates would else drift by up to TOPAZ_SCALE px.
    """
    paths = sorted(path.absolute() for path in folder.glob("*.mrc"))
    if not paths:
        sys.exit(f"error: --micrographs {folder}: no .mrc file there")
    for path in paths:
        with path.open("rb") as file:
            header = file.read(8)
        if len(header) < 8:
            sys.exit(f"error: {path}: too short for an MRC file; make it again")
        width, height = struct.unpack("<2i", header)
        if min(width, height) < TOPAZ_SCALE or width % TOPAZ_SCALE or height % TOPAZ_SCALE:
            sys.exit(f"error: {path}: {width} x {height} px; crop it to multiples of {TOPAZ_SCALE} px")
        if any(character.isspace() for character in path.name):
            sys.exit(f"error: {path}: RELION reads no name with a blank; rename it")
    return paths


def run(command: list[str], cwd: Path) -> None:
    """Run a program in a folder and show the command; on failure stop with the end of what it said."""
    print("+", shlex.join(command), flush=True)
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-2000:]
        sys.exit(f"error: {Path(command[0]).name} ended with status {done.returncode}:\n{said}")


def pick_log(args: argparse.Namespace, micrographs: list[Path], work: Path) -> None:
    """OUT/log and OUT/log_permissive: RELION's Laplacian-of-Gaussian picks, files unaltered."""
    for path in micrographs:  # RELION repeats a micrograph's path below --odir: give it bare names
        (work / path.name).symlink_to(path)
    rows = "\n".join(f"{path.name} 1" for path in micrographs)
    star = MICROGRAPHS_STAR.format(pixel_size=args.pixel_size, rows=rows)
    (work / "micrographs.star").write_text(star, encoding="utf-8")
    smallest, largest = (f"{part * args.diameter:.1f}" for part in LOG_DIAMETERS)
    for folder, adjust in LOG_ADJUST.items():
        command = [args.relion_autopick, "--i", "micrographs.star", "--odir", f"{folder}/"]
        command += ["--pickname", "autopick", "--LoG", "--LoG_diam_min", smallest, "--LoG_diam_max", largest]
        command += ["--shrink", "0", "--lowpass", "20", "--LoG_adjust_threshold", f"{adjust:g}"]
        run(command, work)
        for path in micrographs:
            made = work / folder / f"{path.stem}_autopick.star"
            if not made.is_file():
                sys.exit(f"error: relion_autopick wrote no {made.name}; run the command above by hand")
            place(made.read_text(encoding="utf-8"), args.out / folder / made.name)


def pick_topaz(args: argparse.Namespace, micrographs: list[Path], work: Path) -> None:
    """OUT/topaz: the pretrained detector's picks above the threshold, as EMAN .box with scores."""
    radius = max(1, round(args.diameter / 2 / args.pixel_size / TOPAZ_SCALE))  # px of the downsampled image
    cpu = ["-d", "-1", "-j", str(args.threads)]
    command = [args.topaz, "preprocess", "-s", str(TOPAZ_SCALE), *cpu, "-o", "downsampled"]
    run([*command, *map(str, micrographs)], work)
    command = [args.topaz, "extract", "-r", str(radius), "-t", f"{args.topaz_threshold:g}"]
    command += ["-x", str(TOPAZ_SCALE), *cpu, "-o", "topaz.txt"]
    run([*command, *(f"downsampled/{path.name}" for path in micrographs)], work)
    boxes: dict[str, list[str]] = {path.stem: [] for path in micrographs}
    half = args.box // 2
    with (work / "topaz.txt").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            corner = f"{int(row['x_coord']) - half}\t{int(row['y_coord']) - half}"
            boxes[row["image_name"]].append(f"{corner}\t{args.box}\t{args.box}\t{row['score']}\n")
    for name, lines in boxes.items():
        place("".join(lines), args.out / "topaz" / f"{name}.box")


def place(text: str, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Pick with RELION, which takes seconds a micrograph, then with Topaz."""
    args = parse_arguments()
    micrographs = find_micrographs(args.micrographs)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="make_picks_") as work:
        pick_log(args, micrographs, Path(work))
        pick_topaz(args, micrographs, Path(work))
    print(f"{len(micrographs)} micrographs: {', '.join([*LOG_ADJUST, 'topaz'])} in {args.out}")


if __name__ == "__main__":
    main()
