"""Whether two checkouts of pickeropt write the same files: `prune`, `convert` and `finetune` on real data.

    python benchmarks/compare_outputs.py run CHECKOUT OUT [--data DIR]
    python benchmarks/compare_outputs.py compare A B

`run` runs the command line of CHECKOUT on parts of three micrographs of EMPIAR-10017, on one thread of the
CPU, and leaves in OUT all that it wrote: a model of 10 shots a class, the picks in seven formats pruned with
the general model and with that model, the picks converted to each format, and in `logs/` what each command
said. OUT/inputs has the micrographs and picks, written without pickeropt. Each command is `python -m
pickeropt` in a process of its own, forked from one that has imported torch and timm: importing them takes
longer than a pruning.

`compare` compares two such folders byte for byte and prints each difference; the exit status is 1 where there
is one. Not compared, since they may differ: the folder's own path, the version of pickeropt, seconds, the
sha256 of the model, the `format` of summary.json and of the model's metadata, and names that the model's
description had in earlier versions. A model's weights are
compared as bytes, and so are the pictures and the page of a report.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import runpy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXEL_SIZE, DIAMETER, RADIUS_PX = 1.77, "191", 54.0
WIDTH, HEIGHT = 2048, 1792
"""px of the part of a micrograph that is used; not square, so that rows and columns cannot be confused."""
SHOTS = "Falcon_2012_06_12-15_27_22_0"
CORNERS = {
    SHOTS: (1024, 2304),
    "Falcon_2012_06_12-15_33_42_0": (0, 2304),
    "Falcon_2012_06_12-15_41_22_0": (2048, 0),
}
"""x, y px of the corner of that part. The first has shots of all four classes, the others have picks."""
PICKED = tuple(name for name in CORNERS if name != SHOTS)
LABELLED_PICKS = 8
"""Of each micrograph, true and false: what `--use-picker-score` learns from."""
BOX = 180
FORMATS = {"star": "star", "list": "autopick.star", "box": "box", "cbox": "cbox", "cs": "picks.cs",
           "topaz": "topaz.txt", "csv": "picks.csv"}  # fmt: skip
"""Name of a pruning, and what it reads in inputs/."""
TARGETS = (
    "star",
    "topaz",
    "box",
    "cbox",
    "eman2",
    "xmipp",
    "csv",
    "xy",
    "cryoppp",
    "cryosparc",
    "deeppicker",
)
ENDINGS = {"star": "picks.star", "topaz": "picks.txt", "csv": "picks.csv", "cryosparc": "picks.cs",
           "deeppicker": "picks.pickle"}  # fmt: skip
"""Of the formats that hold several micrographs in one file; the others are written to a folder."""
MODEL = "model.safetensors"
IMPORTED = ("torch", "torchvision", "timm", "sklearn.linear_model", "scipy.optimize", "matplotlib")
"""Before the commands are forked."""
TEXT = {".json", ".html", ".csv", ".star", ".txt", ".box", ".cbox", ".pos"}
CS_FIELDS = [("uid", "<u8"), ("location/micrograph_path", "S60"), ("location/micrograph_shape", "<u4", (2,)),
             ("location/micrograph_psize_A", "<f4"), ("location/center_x_frac", "<f4"),
             ("location/center_y_frac", "<f4"), ("pick_stats/ncc_score", "<f4")]  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Points of one micrograph, px from the corner of its part.

    picks, scores : (n, 2) Topaz's, and (n,) its score
    truth : (t, 2) curated particles
    """

    picks: Floats
    scores: Floats
    truth: Floats


def write_inputs(data: Path, inputs: Path) -> None:
    """The micrographs, the labelled shots, and the picks in every format of `FORMATS`."""
    for name, (x, y) in CORNERS.items():
        with Image.open(data / "micrographs" / f"{name}.jpg") as image:
            pixels = np.flipud(np.asarray(image.convert("L"), dtype=np.float32))[y : y + HEIGHT, x : x + WIDTH]
        path = inputs / "micrographs" / f"{name}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(path) as mrc:
            mrc.set_data(np.ascontiguousarray(pixels))
            mrc.voxel_size = PIXEL_SIZE
            mrc.header.label[0] = b""  # mrcfile writes the time of day
    points = {name: read_points(data, name) for name in PICKED}
    for text, name in texts(points):
        path = inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    np.save(inputs / "picks.npy", cs_table(points))
    (inputs / "picks.npy").rename(inputs / "picks.cs")
    for name, rows in (("labels", labelled(data / "labels.star")), ("on_picks", on_picks(points))):
        text = loop("labels", ["MicrographName", "CoordinateX", "CoordinateY", "PickeroptClass"], rows)
        text = text.replace("_rlnPickeroptClass", "_pickeroptClass")
        (inputs / f"{name}.star").write_text(text, encoding="utf-8")


def read_points(data: Path, name: str) -> Points:
    """What lies in the part of the micrograph that is used."""
    box = np.loadtxt(data / "picks" / "topaz" / f"{name}.box")
    truth = np.loadtxt(data / "truth" / f"{name}.csv", delimiter=",", skiprows=1)
    picks, inside = shifted(box[:, :2] + box[:, 2:4] / 2, name)
    truth, known = shifted(truth, name)
    return Points(picks[inside], box[inside, 4], truth[known])


def shifted(xy: Floats, name: str) -> tuple[Floats, NDArray[np.bool_]]:
    """(n, 2) px from the corner of the part, and (n,) whether they lie in it."""
    moved = xy - np.array(CORNERS[name])
    return moved, ((moved >= 0) & (moved < [WIDTH, HEIGHT])).all(axis=1)


def texts(points: dict[str, Points]) -> Iterator[tuple[str, str]]:
    """Content and name below inputs/ of every file of picks that is text."""
    listed, topaz, table = [], ["image_name\tx_coord\ty_coord\tscore"], ["micrograph_name,x,y,score"]
    half = BOX / 2
    for name, found in points.items():
        rows = [(x, y, s) for (x, y), s in zip(found.picks.tolist(), found.scores.tolist(), strict=True)]
        columns = ["CoordinateX", "CoordinateY", "AutopickFigureOfMerit"]
        star = [f"{x:12.6f} {y:12.6f} {s:12.6f} " for x, y, s in rows]
        yield loop("", columns, star), f"star/{name}_autopick.star"
        boxes = [f"{x - half:.0f}\t{y - half:.0f}\t{BOX}\t{BOX}\t{s}" for x, y, s in rows]
        yield "\n".join([*boxes, ""]), f"box/{name}.box"
        boxes = [f"{x - half} {y - half} 0.0 {BOX} {BOX} 1 <NA> <NA> {s} <NA> <NA>" for x, y, s in rows]
        yield cbox(boxes), f"cbox/{name}.cbox"
        listed.append(f"micrographs/{name}.mrc star/{name}_autopick.star")
        topaz += [f"{name}\t{x:.0f}\t{y:.0f}\t{s}" for x, y, s in rows]
        table += [f"{name}.mrc,{x},{y},{s}" for x, y, s in rows]
    yield loop("coordinate_files", ["MicrographName", "MicrographCoordinates"], listed), "autopick.star"
    yield "\n".join([*topaz, ""]), "topaz.txt"
    yield "\n".join([*table, ""]), "picks.csv"


def loop(block: str, columns: list[str], rows: list[str], prefix: str = "_rln") -> str:
    """A STAR file of one loop."""
    head = [f"{prefix}{column} #{number}" for number, column in enumerate(columns, start=1)]
    return "\n".join(["", f"data_{block}", "", "loop_", *head, *rows, "", ""])


def cbox(rows: list[str]) -> str:
    """A CBOX file, version 1.0."""
    columns = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "EstWidth",
               "EstHeight", "Confidence", "NumBoxes", "Angle"]  # fmt: skip
    version = "\ndata_global\n\n_cbox_format_version   1.0\n"
    return version + loop("cryolo", columns, rows, "_") + loop("cryolo_include", ["slice_index"], ["0"], "_")


def cs_table(points: dict[str, Points]) -> NDArray[np.void]:
    """The picks as cryoSPARC has them: fractions of the micrograph, y from the other end."""
    parts = []
    for number, (name, found) in enumerate(points.items(), start=1):
        part = np.zeros(len(found.picks), dtype=CS_FIELDS)
        part["uid"] = np.arange(len(part), dtype=np.uint64) + np.uint64(number * 10**15)
        part["location/micrograph_path"] = f"J1/imported/{name}.mrc".encode()
        part["location/micrograph_shape"] = (HEIGHT, WIDTH)
        part["location/micrograph_psize_A"] = PIXEL_SIZE
        part["location/center_x_frac"] = found.picks[:, 0] / WIDTH
        part["location/center_y_frac"] = 1 - found.picks[:, 1] / HEIGHT
        part["pick_stats/ncc_score"] = found.scores
        parts.append(part)
    return np.concatenate(parts)


def labelled(path: Path) -> list[str]:
    """Rows of the labelled points that lie in the parts."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        name = Path(fields[0]).stem if len(fields) == 4 else ""
        if name in CORNERS:
            moved, inside = shifted(np.array([fields[1:3]], dtype=np.float64), name)
            rows += [f"{name}.mrc {x} {y} {fields[3]}" for x, y in moved[inside].tolist()]
    return rows


def on_picks(points: dict[str, Points]) -> list[str]:
    """Rows of labelled picks: `LABELLED_PICKS` true ones of each micrograph, and as many false ones."""
    rows = []
    for name, found in points.items():
        apart = np.hypot(*(found.picks[:, None] - found.truth[None]).transpose(2, 0, 1)).min(axis=1)
        for label, those in (("particle", apart <= RADIUS_PX), ("background", apart > RADIUS_PX)):
            rows += [f"{name}.mrc {x} {y} {label}" for x, y in found.picks[those][:LABELLED_PICKS].tolist()]
    return rows


def commands() -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of every command, in the order in which they are run."""
    micrographs = ["--micrographs", "inputs/micrographs"]
    shots = ["--shots", "inputs/labels.star"]
    on_picks = ["--shots", "inputs/on_picks.star"]
    made = ["--diameter", DIAMETER, *micrographs, "--device", "cpu", "--out", MODEL]
    yield "finetune", ["finetune", *shots, *made, "--shots-per-class", "10"]
    for name, source in FORMATS.items():
        general = ["--model", "general", "--diameter", DIAMETER]
        yield pruning(f"general_{name}", source, *general)
    for name in ("list", "cbox", "topaz", "csv"):
        yield pruning(f"score_{name}", FORMATS[name], "--model", MODEL, "--write-score")
    options = {
        "prior": ["--prior", "auto", "--threshold", "0.99"],
        "picker_score": ["--use-picker-score", *on_picks],
        "filters": ["--min-std", "0.8", "--max-std", "1.6", "--max-extreme", "0.03", "--max-domain", "4",
                    "--min-distance", "190", "--threshold", "0.4"],
    }  # fmt: skip
    for name, given in options.items():
        yield pruning(name, "box", "--model", MODEL, *given)
    for name in ("general_list", "general_cs", "picker_score", "filters"):
        again = ["prune", "--rethreshold", f"prune/{name}", "--threshold", "0.9"]
        yield f"rethreshold_{name}", [*again, "--out", f"prune/rethreshold_{name}"]
    yield (
        "rethreshold_in_place",
        ["prune", "--rethreshold", "prune/prior", "--threshold", "0.995", "--overwrite"],
    )
    yield from conversions(micrographs)


def pruning(name: str, source: str, *options: str) -> tuple[str, list[str]]:
    """A pruning of inputs/SOURCE into prune/NAME."""
    command = ["prune", f"inputs/{source}", "--micrographs", "inputs/micrographs", "--device", "cpu"]
    return f"prune_{name}", [*command, "--out", f"prune/{name}", *options]


def conversions(micrographs: list[str]) -> Iterator[tuple[str, list[str]]]:
    """One list to every format, every format to STAR, and the options that move points."""
    for target in TARGETS:
        out = f"convert/to_{target}/{ENDINGS.get(target, '')}"
        given = ["inputs/autopick.star", out, "--to", target, *micrographs, "--diameter", DIAMETER]
        yield f"convert_to_{target}", ["convert", *given]
    for name, source in FORMATS.items():
        out = f"convert/from_{name}.star"
        yield f"convert_from_{name}", ["convert", f"inputs/{source}", out, *micrographs]
    moved = ["--scale", "0.5", "--swap-xy", "--flip-x", "--flip-y", "--shift", "3,-4.5"]
    given = ["inputs/topaz.txt", "convert/moved", "--to", "box", "--diameter", DIAMETER]
    yield "convert_moved", ["convert", *given, *moved, *micrographs]


def run(checkout: Path, data: Path, out: Path) -> None:
    """Run every command in OUT with the package of CHECKOUT; stops at the first that fails."""
    wanted = {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "120",
    }
    if any(os.environ.get(name) != value for name, value in wanted.items()):  # read when numpy is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    found = find_spec("pickeropt")
    if found is None or checkout not in Path(str(found.origin)).parents:
        sys.exit(f"compare_outputs.py: {checkout} has no package pickeropt")
    for folder in ("logs", "convert"):
        (out / folder).mkdir(parents=True)
    write_inputs(data, out / "inputs")
    os.chdir(out)
    for name in IMPORTED:
        import_module(name)
    errors = Path("errors.txt")
    for name, arguments in commands():
        begun = time.perf_counter()
        log = Path("logs", f"{name}.txt")
        child = multiprocessing.get_context("fork").Process(target=call, args=(arguments, log, errors))
        child.start()
        child.join()
        print(f"{time.perf_counter() - begun:6.1f} s  {name}", flush=True)
        if child.exitcode:
            told = f"{log.read_text(encoding='utf-8')}{errors.read_text(encoding='utf-8')}"[-3000:]
            sys.exit(f"compare_outputs.py: pickeropt {' '.join(arguments)} failed:\n{told}")
    errors.unlink()


def call(arguments: list[str], log: Path, errors: Path) -> None:
    """`python -m pickeropt ARGUMENTS` in this process, its output to the files."""
    for path, number in ((log, 1), (errors, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["pickeropt", *arguments]
    sys.path[0] = ""
    runpy.run_module("pickeropt", run_name="__main__", alter_sys=True)


@dataclass(frozen=True)
class Masks:
    """What may differ between two folders: the path of the folder, and the sha256 of its model."""

    folder: bytes
    digest: bytes

    def content(self, path: Path) -> bytes:
        """The bytes of a file, with what may differ replaced."""
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            return mask_model(content)
        if path.suffix not in TEXT:
            return content
        content = content.replace(self.folder, b"OUT").replace(self.digest, b"MODEL")
        if path.name == "summary.json":
            content = re.sub(rb'(?m)^  "format": .*\n', b"", content)
            content = re.sub(rb'(?m)^(  "(?:pickeropt|seconds)": ).*$', rb"\1MASKED,", content)
        if path.name == "report.html":
            content = re.sub(rb"(<td>pickeropt</td><td>|>pickeropt )\d[^<]*", rb"\1MASKED", content)
        if path.parent.name == "logs":
            content = re.sub(rb"\bin (?:\d+ h )?(?:\d+ min ?)?(?:\d+ s)?$", b"in MASKED", content, flags=re.M)
        return content


FORMER_NAMES = {
    "lean": "prior_weight",
    "carbon_lean": "carbon_weight",
    "carbon_most": "carbon_limit",
    "carbon_alike": "contaminant_share",
}
"""Fields of a model's description as earlier versions name them; `opinion.` begins the names of some weights."""


def mask_model(content: bytes) -> bytes:
    """A model without the versions and the name of its format, names as of today, weights sorted by name."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__")
    described = json.loads(metadata.pop("pickeropt"))
    metadata.pop("format", None)
    described.pop("format", None)
    described["provenance"]["versions"].pop("pickeropt", None)
    described["spec"] = {FORMER_NAMES.get(name, name): value for name, value in described["spec"].items()}
    weights = {}
    for name, weight in header.items():
        first, last = weight.pop("data_offsets")
        digest = hashlib.sha256(content[end + first : end + last]).hexdigest()
        weights[name.replace("opinion.", "source_prior.")] = {**weight, "sha256": digest}
    return json.dumps([metadata, described, dict(sorted(weights.items()))], indent=1).encode()


def masks_of(folder: Path) -> Masks:
    """Those of one folder that `run` wrote."""
    digest = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
    return Masks(str(folder).encode(), digest.encode())


def compare(a: Path, b: Path) -> int:
    """Print every difference; returns how many files differ or are in one folder only."""
    files = [{path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (a, b)]
    masks = masks_of(a), masks_of(b)
    differences = 0
    for name in sorted(files[0] | files[1]):
        if name not in files[0] or name not in files[1]:
            said = f"only in {b if name not in files[0] else a}"
        else:
            said = difference(masks[0].content(a / name), masks[1].content(b / name))
        if said:
            print(f"{name}: {said}")
            differences += 1
    alike = len(files[0] | files[1]) - differences
    print(f"{alike} files are the same, {differences} are not")
    return differences


def difference(a: bytes, b: bytes) -> str:
    """Where two contents begin to differ; empty where they do not."""
    if a == b:
        return ""
    where = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    begin = max(0, where - 40)
    line = a.count(b"\n", 0, where) + 1
    parts = "".join(f"\n    {content[begin : where + 60]!r}" for content in (a, b))
    return f"{len(a)} and {len(b)} bytes, line {line}:{parts}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="write the outputs of one checkout")
    running.add_argument("checkout", type=Path)
    running.add_argument("out", type=Path, help="the folder to write; must not be there yet")
    running.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    comparing = verbs.add_parser("compare", help="compare two folders that `run` wrote")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    args = parser.parse_args()
    if args.verb == "compare":
        sys.exit(int(compare(args.a.resolve(), args.b.resolve()) > 0))
    if args.data is None:
        parser.error("give --data, or set PICKEROPT_DATA")
    if args.out.exists():
        parser.error(f"{args.out} is there already; give another folder")
    run(args.checkout.resolve(), Path(args.data) / "empiar10017", args.out.resolve())


if __name__ == "__main__":
    main()
