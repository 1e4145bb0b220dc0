"""What the manifest says, that nothing in it is a guess, and what the user may add."""

import pytest

from pickeropt.datasets.empiar.manifest import EntryOverrides, choose_entries, load_manifest, parse_manifest
from pickeropt.errors import PickeroptError

NOTHING = EntryOverrides({}, {}, {})
NAMED_IN_THE_PAPER = {"10406", "10059", "10454", "10470"}
CRYOPPP = {
    "10389", "10081", "10289", "11057", "10444", "10576", "10816", "10526", "11051", "10760", "11183",
    "10671", "10291", "10669", "10077", "10061", "10028", "10096", "10737", "10387", "10532", "10240",
    "10005", "10017", "10075", "10184", "10059", "10406", "10590", "10093", "10345", "11056", "10852",
    "10947",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return load_manifest()


def entry(manifest, accession, said=NOTHING):
    return choose_entries(manifest, [accession], said)[0]


def test_fourteen_entries_those_of_the_paper_and_ten_of_cryoppp(manifest):
    names = [entry.accession for entry in manifest.entries]
    assert len(names) == len(set(names)) == 14
    assert set(names) >= NAMED_IN_THE_PAPER
    assert set(names) - NAMED_IN_THE_PAPER < CRYOPPP
    assert manifest.base_url == "https://ftp.ebi.ac.uk/empiar/world_availability"


def test_labels_come_only_from_cryoppp_and_only_for_its_entries(manifest):
    assert {e.labels for e in manifest.entries} == {"cryoppp", None}
    assert {e.accession for e in manifest.entries if e.labels} < CRYOPPP


def test_every_value_has_a_source_and_only_patterns_may_be_assumed(manifest):
    for one in manifest.entries:
        for name, fact in one.facts.items():
            assert fact.source, (one.accession, name)
            assert fact.verified or fact.value is None or name == "pattern"


def test_sizes_are_those_of_particles_on_micrographs(manifest):
    known = [e for e in manifest.entries if e.diameter is not None]
    assert len(known) >= 8
    for one in known:
        assert 0.5 < one.pixel_size < 3
        assert 80 < one.diameter < 400


def test_the_diameter_is_px_times_pixel_size(manifest):
    assert entry(manifest, "10017").diameter == pytest.approx(108 * 1.77)  # 191 Å
    assert entry(manifest, "10345").diameter == pytest.approx(149 * 1.345)  # not 0.673, the movie's


def test_without_a_list_only_what_is_fully_known(manifest):
    chosen = choose_entries(manifest, [], NOTHING)
    assert {e.accession for e in chosen} == {"10017", "10028", "10081", "10093", "10345", "10532"}
    assert all(not e.missing for e in chosen)


def test_what_the_user_says_fills_in(manifest):
    assert entry(manifest, "10406").missing == ("pixel_size", "folder")  # the diameter in px is known
    said = EntryOverrides({"10406": 1.1}, {}, {"10406": "data/x"})
    filled = entry(manifest, "EMPIAR-10406", said)
    assert filled.missing == ()
    assert filled.diameter == pytest.approx(212 * 1.1)
    assert filled.folder == "data/x"
    assert entry(manifest, "10406", EntryOverrides({"10406": 1.1}, {"10406": 250.0}, {})).diameter == 250.0
    assert entry(manifest, "10454", EntryOverrides({"10454": 1.1}, {}, {})).missing == ("diameter", "folder")


@pytest.mark.parametrize(
    ("names", "said", "says"),
    [
        (["10099"], NOTHING, "EMPIAR-10099 is not in the manifest"),
        ([], EntryOverrides({"1": 1.0}, {}, {}), "EMPIAR-1 is not"),
        ([], EntryOverrides({"10017": 0.0}, {}, {}), "no size"),
        ([], EntryOverrides({}, {"10017": float("nan")}, {}), "no size"),
        ([], EntryOverrides({}, {}, {"10017": "data/../../etc"}), "leads out"),
    ],
)
def test_what_means_nothing_is_refused(manifest, names, said, says):
    with pytest.raises(PickeroptError, match=says):
        choose_entries(manifest, names, said)


def test_a_manifest_with_a_guess_is_refused():
    fact = '{ value = "x", verified = true, source = "s" }'
    rows = "".join(f"{name} = {fact}\n" for name in ("specimen", "pattern", "labels"))
    rows += "diameter_px = { value = 100, verified = true, source = 's' }\n"
    rows += "folder = { value = 'data', verified = true, source = 's' }\n"
    head = 'base_url = "b"\nentry_url = "e"\nlabels_url = "l"\nlabels_licence = "c"\n'
    head += '[[entry]]\naccession = "1"\n'
    size = "pixel_size = { value = 1.5, verified = %s, source = 's' }\n"
    assert parse_manifest(head + rows + size % "true").entries[0].diameter == 150
    with pytest.raises(ValueError, match="pixel_size of 1 has a value that is not verified"):
        parse_manifest(head + rows + size % "false")
