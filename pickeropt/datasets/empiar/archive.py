"""What lies on the servers: the folders of the EMPIAR archive, and CryoPPP's archives of labels."""

import fnmatch
import shutil
import tarfile
import urllib.parse
import zlib
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

from pickeropt.datasets.empiar.request import Patience, fetch_text
from pickeropt.errors import FormatError, OutputError
from pickeropt.io.tables import partial_name

COORDINATES = ("ground_truth", "particle_coordinates")
"""The folder of the CSV files within CryoPPP's ACCESSION.tar.gz."""
LARGEST_CSV = 2**26
SUFFIXES = ("_patch_aligned_doseweighted", "_patch_aligned", ".frames")
"""What motion correction appends, and CryoPPP takes off some of its names."""


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def folder_url(base_url: str, accession: str, folder: str) -> str:
    """Address of a folder, with its slash: BASE/ACCESSION/FOLDER/."""
    parts = [urllib.parse.quote(part) for part in folder.split("/") if part]
    return "/".join([base_url.rstrip("/"), accession, *parts, ""])


def quoted(name: str) -> str:
    """A file name as it stands in an address."""
    return urllib.parse.quote(name)


def list_folder(url: str, patience: Patience) -> tuple[list[str], list[str]]:
    """File names and folder names of the server's index page, sorted. Raises DownloadError."""
    links = _Links()
    links.feed(fetch_text(url, patience))
    names = {
        urllib.parse.unquote(link.split("?")[0].split("#")[0].removeprefix("./")) for link in links.found
    }
    names = {name for name in names if name and name.rstrip("/") not in ("", ".", "..")}
    files = sorted(name for name in names if "/" not in name)
    folders = sorted(name[:-1] for name in names if name.endswith("/") and "/" not in name[:-1])
    return files, folders


def matching(names: list[str], pattern: str) -> list[str]:
    """The names a pattern such as `*_aligned.mrc` fits; upper and lower case differ."""
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def local_name(name: str) -> str:
    """The name a file gets here: without blanks and signs that no STAR file holds."""
    return "".join("_" if c.isspace() or c in "#'\",=" else c for c in name).lstrip("_.-") or "_"


def stem_of(name: str) -> str:
    """What a micrograph and its CSV have in common."""
    stem = local_name(name)
    stem = stem[: -len(PurePosixPath(stem).suffix)] if PurePosixPath(stem).suffix else stem
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def extract_coordinates(archive: Path, out: Path) -> int:
    """Take the CSV files out of CryoPPP's archive into a folder, whole or not at all; returns how many.

    Only plain files of `*/ground_truth/particle_coordinates/` are read, and only their last name counts.
    Raises FormatError for an archive that is broken or has none, OutputError where the disk takes no more.
    """
    partial = partial_name(out)
    partial.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                if not (member.isfile() and place.suffix == ".csv" and place.parts[-3:-1] == COORDINATES):
                    continue
                source = tar.extractfile(member)
                if source is None or member.size > LARGEST_CSV:
                    raise FormatError(f"{archive}: {member.name} is no table of coordinates")
                (partial / local_name(place.name)).write_bytes(source.read())
        count = len(list(partial.iterdir()))
        if not count:
            what = f"no {'/'.join(COORDINATES)}/*.csv in it"
            raise FormatError(f"{archive}: {what}; is it an archive of CryoPPP?")
        partial.replace(out)
        return count
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FormatError(f"{archive}: cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        what = f"{out}: cannot be written ({error.strerror}); make room or mend it"
        raise OutputError(f"{what}, the archive is kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
