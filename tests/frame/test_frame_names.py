"""The rule that would make the names of micrographs match."""

from pathlib import Path

import pytest

from pickeropt.frame.checking import propose_rule

UID = "012345678901234567890"

RULES = [
    (["a/m01_DW.mrc", "a/m02_DW.mrc"], ["m01.mrc", "m02.mrc"], "without '_DW'", 2),
    (["m01.mrc", "m02.mrc"], ["m01_DW.mrc", "m02_DW.mrc"], "with '_DW' behind it", 2),
    (["m01.tif", "m02.tif"], ["m01.mrc", "m02.mrc"], "with the extension of the files", 2),
    ([f"{UID}_m01.mrc"], ["m01.mrc"], "without the number that cryoSPARC puts before the name", 1),
    (["m01.mrc"], [f"{UID}_m01.mrc"], f"with '{UID}_' before it", 1),
    (
        ["Mic_01_raw.mrc", "Mic_02_raw.mrc"],
        ["Mic_01_DW.mrc", "Mic_02_DW.mrc"],
        "without 'raw' and with 'DW' behind it",
        2,
    ),
    (["Grid_01.mrc"], ["grid_01.mrc"], "with capitals and small letters as in the files", 1),
    (
        ["m01_patch_aligned.mrc", "m02_patch_aligned.mrc", "odd.mrc"],
        ["m01.mrc", "m02.mrc", "m03.mrc"],
        "without '_patch_aligned'",
        2,
    ),
]


@pytest.mark.parametrize(("missing", "files", "what", "matched"), RULES)
def test_a_rule_is_proposed(missing: list[str], files: list[str], what: str, matched: int) -> None:
    rule = propose_rule(missing, [Path("mics") / file for file in files])
    assert rule is not None
    assert (rule.what, rule.matched) == (what, matched)
    assert rule.example == (missing[0], files[0])


@pytest.mark.parametrize(
    ("missing", "files"),
    [
        (["m01.mrc"], []),
        (["m01.mrc"], ["m011.mrc"]),  # a number is not cut
        (["grid_0001.mrc", "grid_0002.mrc"], ["grid_0003.mrc"]),  # nor changed
        (["one.mrc"], ["quite_other.mrc"]),
        (["m01_a.mrc", "m01_b.mrc"], ["m01.mrc"]),  # two names would become one file
        (["x.mrc"], ["a_x_b.mrc"]),  # too short to mean anything
    ],
)
def test_there_is_no_rule(missing: list[str], files: list[str]) -> None:
    rule = propose_rule(missing, [Path(file) for file in files])
    assert rule is None or rule.matched < len(missing)


def test_a_rule_must_lead_to_one_file() -> None:
    assert propose_rule(["m01_DW.mrc"], [Path("a/m01.mrc"), Path("b/m01.mrc")]) is None


def test_one_rule_for_thousands() -> None:
    missing = [f"job/m{i:04d}_noDW.mrc" for i in range(3000)]
    rule = propose_rule(missing, [Path(f"m{i:04d}.mrc") for i in range(3000)])
    assert rule is not None
    assert (rule.what, rule.matched) == ("without '_noDW'", 3000)
