"""One file from a server that cuts lines, ignores ranges, lies about length, or sends something else."""

import hashlib

import numpy as np
import pytest
from empiar_server import Fault, Site, serving

from pickeropt.datasets.empiar.http_download import Patience, RemoteFile, download, fetch_text, part_of, remote_size
from pickeropt.errors import DownloadError, FormatError
from pickeropt.io.micrographs import read_micrograph_header, write_mrc

BODY = bytes(np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8))
HALF = len(BODY) // 2
PATH = "/a.bin"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def site():
    with serving(Site({PATH: BODY})) as site:
        yield site


@pytest.fixture
def naps():
    return []


@pytest.fixture
def patience(naps):
    return Patience(attempts=4, first_wait=1.0, longest_wait=3.0, timeout=5.0, sleep=naps.append)


def left(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_plain_file(site, tmp_path, patience, naps):
    seen = []
    got = download(RemoteFile(site.url + PATH), tmp_path / "a", patience, lambda done, of: seen.append((done, of)))
    assert (tmp_path / "a").read_bytes() == BODY
    assert got.size == 10_000
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert seen[-1] == (10_000, 10_000)
    assert left(tmp_path) == ["a"]
    assert naps == []


def test_a_line_cut_half_way_goes_on_from_there(site, tmp_path, patience, naps):
    site.faults[PATH] = [Fault(cut=HALF), Fault(cut=1000)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY
    assert site.gets(PATH) == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert naps == [1.0, 1.0]  # each try got further, so patience starts anew
    assert left(tmp_path) == ["a"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(site, tmp_path, patience):
    class Killed(BaseException):
        pass

    def kill(done, of):
        raise Killed

    site.faults[PATH] = [Fault(cut=HALF)]
    with pytest.raises(Killed):
        download(RemoteFile(site.url + PATH), tmp_path / "a", patience, kill)
    assert not (tmp_path / "a").exists()
    assert part_of(tmp_path / "a").read_bytes() == BODY[:HALF]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert site.gets(PATH)[-1] == f"bytes={HALF}-"
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("tag", [b"", b'"/a.bin"', b'"/a.bin"\nten', b"\n10", b"a\nb\nc", b"\xff\xfe\n1"])
def test_a_tag_that_says_nothing_starts_again(site, tmp_path, patience, tag):
    part = part_of(tmp_path / "a")
    part.write_bytes(b"x" * 100)
    part.with_name(f"{part.name}.tag").write_bytes(tag)
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert site.gets(PATH) == [None]
    assert (tmp_path / "a").read_bytes() == BODY
    assert left(tmp_path) == ["a"]


def test_a_server_that_ignores_ranges_starts_again(site, tmp_path, patience):
    site.faults[PATH] = [Fault(cut=HALF), Fault(ranges=False)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_that_changed_in_between_starts_again(site, tmp_path, patience):
    site.faults[PATH] = [Fault(cut=HALF)]
    other = BODY[::-1]
    with pytest.raises(DownloadError):
        download(RemoteFile(site.url + PATH), tmp_path / "a", Patience(attempts=1, sleep=lambda s: None))
    site.files[PATH], site.tags[PATH] = other, '"new"'
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert site.gets(PATH)[-1] == f"bytes={HALF}-"  # asked for the rest, given the whole
    assert (tmp_path / "a").read_bytes() == other


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_the_date_binds_the_rest(site, tmp_path, patience, tag):
    site.tags[PATH] = tag
    site.faults[PATH] = [Fault(cut=HALF)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY
    assert site.gets(PATH)[-1] == f"bytes={HALF}-"


def test_a_wrong_range_is_not_taken(site, tmp_path, patience):
    site.faults[PATH] = [Fault(cut=HALF), Fault(shift=7)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_length_that_promises_more_than_comes(site, tmp_path, patience, naps):
    site.faults[PATH], site.forever = [Fault(announce=500)], True
    with pytest.raises(DownloadError, match="said 10500 bytes before and says 10000 now"):
        download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert left(tmp_path) == []
    assert naps == [1.0]


def test_a_line_that_is_always_cut_ends_and_keeps_what_there_is(site, tmp_path, patience, naps):
    site.faults[PATH], site.forever = [Fault(cut=HALF), Fault(cut=0)], True
    with pytest.raises(DownloadError, match=r"cut after 5000 of 10000 bytes, again and again.*goes on"):
        download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert naps == [1.0, 2.0, 3.0]  # doubled, 3 s at most; the fourth failure without a new byte ends it
    assert part_of(tmp_path / "a").read_bytes() == BODY[:HALF]
    assert not (tmp_path / "a").exists()


def test_a_length_that_promises_less_than_there_is(site, tmp_path, patience):
    site.faults[PATH], site.forever = [Fault(announce=-500)], True
    with pytest.raises(DownloadError, match="9500 bytes on the server where 10000"):
        download(RemoteFile(site.url + PATH, size=10_000), tmp_path / "a", patience)
    assert left(tmp_path) == []


def test_a_micrograph_says_itself_how_long_it_is(tmp_path, patience):
    write_mrc(tmp_path / "true.mrc", np.ones((20, 30), dtype=np.float32), 1.5)
    whole = (tmp_path / "true.mrc").read_bytes()
    with serving(Site({"/m.mrc": whole}, {"/m.mrc": [Fault(announce=-100)]}, forever=True)) as site:
        wanted = RemoteFile(site.url + "/m.mrc", check=read_micrograph_header)
        with pytest.raises(DownloadError, match="truncated"):
            download(wanted, tmp_path / "m.mrc", patience)
        assert left(tmp_path) == ["true.mrc"]
        assert len(site.gets("/m.mrc")) == 2  # another try, not four: each costs a whole file
        site.faults.clear()
        download(wanted, tmp_path / "m.mrc", patience)
    assert (tmp_path / "m.mrc").read_bytes() == whole


def test_a_wrong_checksum(site, tmp_path, patience):
    with pytest.raises(DownloadError, match="SHA-256"):
        download(RemoteFile(site.url + PATH, sha256="0" * 64), tmp_path / "a", patience)
    assert left(tmp_path) == []
    right = hashlib.sha256(BODY).hexdigest()
    assert download(RemoteFile(site.url + PATH, sha256=right), tmp_path / "a", patience).sha256 == right


def test_a_web_page_is_not_the_file(site, tmp_path, patience):
    site.faults[PATH] = [Fault(cut=HALF), Fault(page=True)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY


def test_no_length_is_taken_only_where_something_else_can_check(site, tmp_path, patience):
    site.faults[PATH], site.forever = [Fault(length=False)], True
    with pytest.raises(DownloadError, match="no length"):
        download(RemoteFile(site.url + PATH), tmp_path / "a", patience)

    def whole(path):
        if path.read_bytes() != BODY:
            raise FormatError("short")

    download(RemoteFile(site.url + PATH, check=whole), tmp_path / "a", patience)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_busy_server_is_asked_again_when_it_says(site, tmp_path, patience, naps):
    site.faults[PATH] = [Fault(status=503, retry_after="17"), Fault(status=500)]
    download(RemoteFile(site.url + PATH), tmp_path / "a", patience)
    assert naps == [17.0, 2.0]


def test_what_is_not_there_is_not_asked_for_again(site, tmp_path, patience, naps):
    with pytest.raises(DownloadError, match="HTTP 404"):
        download(RemoteFile(site.url + "/no"), tmp_path / "a", patience)
    assert naps == []
    assert left(tmp_path) == []


def test_no_server_and_no_address(tmp_path, patience, naps):
    with serving(Site()) as gone:
        pass
    with pytest.raises(DownloadError, match="no connection"):
        download(RemoteFile(gone.url + PATH), tmp_path / "a", patience)
    assert naps == [1.0, 2.0, 3.0]
    with pytest.raises(DownloadError, match="no address"):
        download(RemoteFile("nonsense"), tmp_path / "a", patience)


def test_two_runs_never_write_one_file(site, tmp_path, patience):
    def meanwhile(done, of):
        with pytest.raises(DownloadError, match="another run"):
            download(RemoteFile(site.url + PATH), tmp_path / "a", patience)

    download(RemoteFile(site.url + PATH), tmp_path / "a", patience, meanwhile)
    assert (tmp_path / "a").read_bytes() == BODY


def test_pages_and_sizes(site, patience):
    site.files["/data/x.mrc"] = b"x"
    site.faults["/data/"] = [Fault(status=502), Fault(cut=10)]
    assert "x.mrc" in fetch_text(site.url + "/data/", patience)
    assert remote_size(site.url + PATH, patience) == 10_000
