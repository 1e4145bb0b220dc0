"""The frame doctor on real micrographs: EMPIAR-10017, one micrograph at a time.

    python benchmarks/frames.py --data DIR [--picks DIR ...]

Picks are put into a wrong frame and shown to the doctor with the micrograph: does it name the frame? The
constants of `pickeropt/frame/` were chosen on the six micrographs without crYOLO's picks (first table); the
second table has the four others, which took no part in that. Picks: the curated truth, those of
DATA/empiar10017/picks on the four, and every folder of --picks (`make_picks.py` makes some).

`named`: of the pairs of a micrograph and a frame, how many are named, by all picks and by 100 of them;
`missed`: the doctor is unsure; `wrong`: it names another frame; `alarms`: on the right frame. Poor picks:
four of five drawn at random, one of five from the truth. Nothing to find: picks drawn at random.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from real_data import DIAMETER_PX, PADDING_PX, Labelled, picks_of, pixels_of, read_all

from pickeropt.frame.evidence import Evidence, choose_picks, collect_evidence, judge
from pickeropt.frame.frame_config import IDENTITY, RIGHT, UNSURE, WRONG, Frame, FrameConfig, FrameDecision, Site

CONFIG = FrameConfig()
FRAMES = (
    IDENTITY,
    Frame(flip_x=True),
    Frame(flip_y=True),
    Frame(flip_x=True, flip_y=True),
    Frame(swap=True),
    Frame(scale=2.0),
    Frame(scale=4.0),
)
FEW = 100
SHIFTS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Diameters."""
DIRECTIONS = 8
DRAWS = 20
HOLLOW_DIAMETERS = (35, 50, 65, 80, 100)
"""px; the outer edge of apoferritin's shell is some 70 px across."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Picked:
    """The picks of one micrograph.

    evidence : at each width; merit : the picker's score, NaN where there is none
    """

    evidence: tuple[Evidence, ...]
    name: str
    xy: Points
    merit: NDArray[np.float64]

    def few(self, count: int, seed: int) -> "Picked":
        rows = np.random.default_rng(seed).permutation(len(self.xy))[:count]
        return replace(self, xy=self.xy[rows], merit=self.merit[rows])


def spoilt(xy: Points, frame: Frame, shape: tuple[int, int]) -> Points:
    """Coordinates in a frame, of points on the micrograph: what `Frame.place` undoes."""
    height, width = shape
    found = xy - np.array(frame.shift)
    if frame.flip_x:
        found[:, 0] = width - found[:, 0]
    if frame.flip_y:
        found[:, 1] = height - found[:, 1]
    return (found[:, ::-1] if frame.swap else found) / frame.scale


def ask(picked: Picked, frame: Frame) -> FrameDecision:
    """What the doctor says of these picks in that frame."""
    shape = picked.evidence[0].shape
    xy = spoilt(picked.xy, frame, shape)
    site = Site(picked.name, Path(), shape, DIAMETER_PX, None, xy, picked.merit)
    chosen = choose_picks(site, CONFIG)
    seen = [replace(evidence, coordinates=chosen) for evidence in picked.evidence]
    return max((judge([e], [picked.name], CONFIG) for e in seen), key=lambda v: v.strength).opinion


def outcome(opinion: FrameDecision, frame: Frame) -> str:
    """`named`, `missed` or `wrong` of a pair; `alarm` where the frame is right."""
    if frame.is_identity:
        return {RIGHT: "named", UNSURE: "missed", WRONG: "alarm"}[opinion.answer]
    if opinion.answer == UNSURE:
        return "missed"
    return "named" if opinion.frame == frame else "wrong"


def frame_table(title: str, sources: dict[str, list[Picked]]) -> None:
    """A row for each source of picks."""
    print(f"\n{title}\n")
    print(f"| picks | micrographs | picks each | named | missed | wrong | alarms | named by {FEW} | alarms |")
    print("|---|---|---|---|---|---|---|---|---|")
    everything = Counter[str]()
    for name, all_picked in sources.items():
        enough = [p for p in all_picked if len(p.xy) >= FEW]
        full = Counter(outcome(ask(p, frame), frame) for p in enough for frame in FRAMES)
        part = Counter(
            outcome(ask(p.few(FEW, seed), frame), frame) for seed, p in enumerate(enough) for frame in FRAMES
        )
        everything += full
        pairs = len(enough) * len(FRAMES)
        sizes = f"{min(len(p.xy) for p in enough)} to {max(len(p.xy) for p in enough)}"
        columns = [f"{full['named']} of {pairs}", full["missed"], full["wrong"], full["alarm"]]
        columns += [f"{part['named']} of {pairs}", part["alarm"] + part["wrong"]]
        print(f"| {name} | {len(enough)} | {sizes} | {' | '.join(map(str, columns))} |", flush=True)
    share = everything["named"] / everything.total()
    print(f"\nnamed {everything['named']} of {everything.total()} pairs ({share:.1%})")


def shift_table(sources: dict[str, list[Picked]]) -> None:
    """Constant shifts of the truth."""
    print("\nConstant shifts of the curated truth, 100 picks, eight directions\n")
    print("| shift, diameters | said to be right | shift found | unsure | worst error, diameters |")
    print("|---|---|---|---|---|")
    for size in SHIFTS:
        said, errors = Counter[str](), [0.0]
        for number, picked in enumerate(sources["truth"]):
            for turn in range(DIRECTIONS):
                angle = 2 * np.pi * turn / DIRECTIONS
                by = size * DIAMETER_PX * np.array([np.cos(angle), np.sin(angle)])
                opinion = ask(picked.few(FEW, number), IDENTITY.shifted(*by.tolist()))
                said[opinion.answer] += 1
                if opinion.answer == WRONG:
                    errors.append(float(np.hypot(*(by - opinion.frame.shift))) / DIAMETER_PX)
        counts = f"{said[RIGHT]} | {said[WRONG]} | {said[UNSURE]}"
        print(f"| {size:g} | {counts} | {max(errors):.2f} |", flush=True)


def poor_table(sources: dict[str, list[Picked]]) -> None:
    """Picks that are mostly or wholly chance."""
    print("\n| poor picks | frame | right | wrong, as it is | wrong otherwise | unsure |")
    print("|---|---|---|---|---|---|")
    for share in (0.2, 0.0):
        for count in (100, 500):
            for frame in FRAMES[:1] if not share else (IDENTITY, Frame(flip_y=True)):
                said = Counter(_named(ask(p, frame), frame) for p in poor(sources["truth"], share, count))
                what = "nothing to find" if not share else f"{share:.0%} true"
                row = [said["right"], said["named"], said["other"], said["unsure"]]
                print(f"| {what}, {count} picks | {frame.name} | {' | '.join(map(str, row))} |", flush=True)


def poor(truth: list[Picked], share: float, count: int) -> Iterator[Picked]:
    """Draws of picks of which a share is true."""
    for seed in range(DRAWS * len(truth)):
        picked, rng = truth[seed % len(truth)], np.random.default_rng(seed)
        true = picked.few(round(share * count), seed).xy
        height, width = picked.evidence[0].shape
        span = np.array([width, height]) - 2 * PADDING_PX
        drawn = PADDING_PX + rng.random((count - len(true), 2)) * span
        yield replace(picked, xy=np.concatenate([true, drawn]), merit=np.full(count, np.nan))


def hollow_table(folder: Path) -> None:
    """Apoferritin (EMPIAR-10146), with diameters that are more or less right."""
    print("\nApoferritin, labels of EMPIAR-10146: pairs of micrograph and frame that are named\n")
    print("| diameter, px | named | missed | wrong | alarms |")
    print("|---|---|---|---|---|")
    for diameter in HOLLOW_DIAMETERS:
        counts = Counter[str]()
        for path in sorted((folder / "micrographs").glob("*.png")):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("F"), dtype=np.float32)
            truth = np.loadtxt(folder / "truth_noisy" / f"{path.stem}.csv", delimiter=",", skiprows=1)
            picked = Picked(
                collect_evidence(pixels, diameter, truth, CONFIG.cells), path.stem, truth, np.full(len(truth), np.nan)
            )
            counts += Counter(outcome(ask(picked, frame), frame) for frame in FRAMES)
        row = [f"{counts['named']} of {counts.total()}", counts["missed"], counts["wrong"], counts["alarm"]]
        print(f"| {diameter} | {' | '.join(map(str, row))} |", flush=True)


def _named(opinion: FrameDecision, frame: Frame) -> str:
    if opinion.answer != WRONG:
        return opinion.answer
    return "named" if opinion.frame == frame else "other"


def read_sources(
    labelled: list[Labelled],
    data_folder: Path,
    folders: list[Path],
    see: Callable[[str], tuple[Evidence, ...]],
) -> dict[str, list[Picked]]:
    """Picks by source, those of the data folder and those made; each micrograph is looked at once."""
    sources: dict[str, list[Picked]] = {"truth": []}
    for m in labelled:
        evidence = see(m.name)
        sources["truth"].append(Picked(evidence, m.name, m.truth, np.full(len(m.truth), np.nan)))
        for folder in folders:
            found = picks_of(folder, m.name)
            if found is not None:
                name = folder.name if data_folder in folder.parents else f"{folder.name}, made"
                sources.setdefault(name, []).append(Picked(evidence, m.name, *found))
                blind = np.full(len(found[0]), np.nan)
                sources.setdefault(f"{name}, scores not used", []).append(Picked(evidence, m.name, found[0], blind))
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--picks", type=Path, nargs="*", default=[], help="more folders of picks")
    parser.add_argument("--chosen-only", action="store_true", help="the six micrographs of the constants only")
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "empiar10017").is_dir():
        sys.exit("frames.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    data = Path(args.data)
    own = sorted(p for p in (data / "empiar10017" / "picks").iterdir() if p.is_dir())
    unseen = {path.stem for path in (data / "empiar10017" / "picks" / "crYOLO").glob("*.box")}
    seconds: list[float] = []

    def see(name: str) -> tuple[Evidence, ...]:
        pixels = pixels_of(data, name)
        begun = time.perf_counter()
        found = collect_evidence(pixels, DIAMETER_PX, np.empty((0, 2)), CONFIG.cells)
        seconds.append(time.perf_counter() - begun)
        return found

    micrographs = read_all(data)
    parts = {"six, on which the constants were chosen": False, "four, which took no part": True}
    for title, held_back in parts.items():
        if held_back and args.chosen_only:
            continue
        here = [m for m in micrographs if (m.name in unseen) == held_back]
        sources = read_sources(here, data, [*own, *args.picks], see)
        frame_table(f"Micrographs: {title}", sources)
        shift_table(sources)
        poor_table(sources)
    if (data / "empiar10146").is_dir():
        hollow_table(data / "empiar10146")
    begun = time.perf_counter()
    ask(sources["truth"][0], IDENTITY)
    print(f"\na map: {np.median(seconds):.2f} s, a verdict: {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
