"""Picks on micrographs: which pick lies on which micrograph, and how large a pixel is there."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError
from pickeropt.io.find import MicrographFinder
from pickeropt.io.micrographs import MicrographHeader, choose_pixel_size, read_micrograph_header
from pickeropt.io.picks_file import PicksFile, placed, row_place

HEADER_THREADS = 8


@dataclass(frozen=True)
class Site:
    """One micrograph that picks are on.

    name : as the files of picks name it, else its path; no two sites have the same
    path : real path; found : as the first file of picks leads to it
    header : its shape, and where its pixels stand in the file
    pixel_size : Å/px, NaN where nothing says it and nobody needs it
    stamp : size in bytes and time of change in ns, when the header was read
    rows : (m,) int64, its picks among all
    """

    name: str
    path: Path
    found: Path
    header: MicrographHeader
    pixel_size: float
    stamp: tuple[int, int]
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) px."""
        return self.header.shape


@dataclass(frozen=True)
class SitedPicks:
    """All n picks of some files, one file after the other, and the micrographs they are on.

    starts : (files + 1,) int64, where each file's picks start
    coordinates : (n, 2) float64 x, y px, y as the row stored
    micrograph : (n,) int64, into `sites`; -1 where it is missing or cannot be read (`Micrographs(collect=True)`)
    figure_of_merit : (n,) float64, the picker's own score, NaN where it gave none
    """

    files: tuple[PicksFile, ...]
    starts: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph: NDArray[np.int64]
    figure_of_merit: NDArray[np.float64]
    sites: tuple[Site, ...]

    def __len__(self) -> int:
        return len(self.coordinates)

    def place(self, row: int) -> str:
        """File and line of a pick, as `io.picks_file.row_place` has it."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return row_place(self.files[file], int(row - self.starts[file]))


@dataclass
class MicrographEntry:
    """One micrograph while files of picks are added.

    name : by its first file of picks, its file name where that names none
    path : real path, found : as it was found; None where it is missing
    names : the best is the largest: whether a file of picks has it, its length, the name
    optics : Å/px by file of picks
    """

    name: str
    path: Path | None
    found: Path | None
    names: set[tuple[bool, int, str]] = field(default_factory=set)
    optics: dict[str, float] = field(default_factory=dict)


class Micrographs:
    """Micrographs in order of first mention, each once under whatever names; headers are read when first needed.

    folders : searched for micrographs, beside where the files of picks lead
    pixel_size : Å/px, counts before all that files say
    labels : a file of labels that will hold the names: one that does not lead back from there is the real path
    collect : what cannot be found or read is kept in `missing` and `faults` instead of being raised
    missing : names without a micrograph, and the last file of picks that has each
    """

    def __init__(
        self,
        folders: Sequence[Path],
        pixel_size: float | None = None,
        *,
        labels: Path | None = None,
        folders_first: bool = False,
        collect: bool = False,
    ) -> None:
        self.entries: list[MicrographEntry] = []
        self.missing: dict[str, Path] = {}
        self.faults: list[str] = []
        self._folders, self._folders_first, self._collect = folders, folders_first, collect
        self._flag, self._labels = pixel_size, labels
        self._finder: MicrographFinder | None = None
        self._known: dict[Path | str, int] = {}
        self._headers: dict[int, tuple[MicrographHeader, tuple[int, int]]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def finder(self) -> MicrographFinder:
        """Raises MicrographError for a folder that is not there."""
        if self._finder is None:
            self._finder = MicrographFinder(self._folders, self._folders_first)
        return self._finder

    def add(self, file: PicksFile) -> NDArray[np.int64]:
        """(k,) the entry of each of the file's `micrograph_names`; new ones come at the end.

        With `collect` -1 where there is no micrograph. Raises MicrographError for a folder that is not there,
        where two files fit one name, and where one file would be taken for two micrographs.
        """
        with self._lock:
            places = [self._place(file, name) for name in file.picks.micrograph_names]
        return np.array(places, dtype=np.int64)

    def _place(self, file: PicksFile, name: str) -> int:
        try:
            path = self.finder.find_in(file, name)
        except MicrographError as error:
            if not self._collect:
                raise
            self.faults.append(str(error))
            return -1
        if path is None:
            self.missing[name] = file.path
            if self._collect:
                return -1
        real = path.resolve() if path else None
        place = self._known.setdefault(real or name, self._known.get(name, len(self.entries)))
        if place == len(self.entries):
            shown = path.name if path and file.names_from_stem else name
            self.entries.append(MicrographEntry(self._name(shown, real), real, path))
        entry = self.entries[place]
        if entry.path is None:  # an earlier file named it, and only this one says where it is
            entry.path, entry.found = real, path
        shown = str(path) if path and file.names_from_stem else name
        entry.names.add((not file.names_from_stem, len(shown), shown))
        if file.picks.pixel_size is not None:
            entry.optics[str(file.path)] = file.picks.pixel_size
        return place

    def _name(self, shown: str, real: Path | None) -> str:
        """What the file of labels calls a micrograph, so that it is found again from there."""
        if self._labels is None or real is None:
            return shown
        try:
            found = self.finder.find(shown, self._labels)
        except MicrographError:  # two fit
            found = None
        return shown if found and found.resolve() == real else str(real)

    def path(self, index: int) -> Path:
        """Real path. Raises MicrographError for one that was not found."""
        entry = self.entries[index]
        if entry.path is None:
            raise MicrographError(f"{entry.name}: the micrograph is missing; give its folder with --micrographs")
        return entry.path

    def header(self, index: int) -> MicrographHeader:
        """Raises MicrographError as `read_micrograph_header` does."""
        return self._read(index)[0]

    def _read(self, index: int) -> tuple[MicrographHeader, tuple[int, int]]:
        """Header, and size and time of change."""
        if index not in self._headers:
            path = self.path(index)
            header, status = read_micrograph_header(path), path.stat()
            self._headers[index] = header, (status.st_size, status.st_mtime_ns)
        return self._headers[index]

    def shape(self, index: int) -> tuple[int, int] | None:
        """(h, w) px where the header was read already."""
        found = self._headers.get(index)
        return found[0].shape if found else None

    def pixel_size(self, index: int) -> float:
        """Å/px. Raises GeometryError where it is unknown or said in two ways."""
        return choose_pixel_size(self._flag, self.header(index), self.entries[index].optics)

    def likely_pixel_size(self, index: int) -> float:
        """Å/px by the flag, else the header, else the first file of picks; NaN where none says it."""
        said = (self._flag, self.header(index).pixel_size, *self.entries[index].optics.values())
        return next((size for size in said if size is not None), float("nan"))

    def check_missing(self) -> None:
        """Raises one MicrographError for all that are missing, with a near match."""
        if self.missing:
            raise self.finder.missing(self.missing)

    def read_headers(self, indices: Iterable[int]) -> list[int]:
        """Those of the micrographs whose headers can be read, read in threads.

        Raises MicrographError naming the first fault; with `collect` the faults are kept.
        """
        indices = list(indices)

        def fault(index: int) -> MicrographError | None:
            try:
                self._read(index)
            except MicrographError as error:
                return error
            return None

        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            results = list(pool.map(fault, indices))
        faults = [str(found) for found in results if found]
        if faults and not self._collect:
            more = f" ({len(faults) - 1} more micrographs cannot be read either)" if len(faults) > 1 else ""
            raise MicrographError(f"{faults[0]}{more}")
        self.faults += faults
        return [index for index, found in zip(indices, results, strict=True) if found is None]

    def locate(self, files: Sequence[PicksFile], pixel_sizes: bool = True) -> SitedPicks:
        """All picks of the files on their micrographs.

        pixel_sizes : they are needed
        Raises MicrographError for what is missing or cannot be read; GeometryError for pixel sizes that are
        needed and unknown, or differ.
        """
        places = [self.add(file)[file.picks.micrograph_index] for file in files]
        if not self._collect:
            self.check_missing()
        used = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *places]))
        readable = self.read_headers(used[used >= 0].tolist())
        number = np.full(len(self.entries) + 1, -1, dtype=np.int64)  # the last one is that of -1
        number[readable] = np.arange(len(readable))
        parts = [number[part] for part in places]
        heights = np.array([*(self.header(index).shape[0] for index in readable), 0])
        merits = (file.picks.figure_of_merit for file in files)
        xy = [placed(file, heights[part]) for file, part in zip(files, parts, strict=True)]
        micrograph = np.concatenate([np.empty(0, dtype=np.int64), *parts])
        return SitedPicks(
            files=tuple(files),
            starts=np.cumsum([0, *(len(file.picks) for file in files)]),
            coordinates=np.concatenate([np.empty((0, 2)), *xy]),
            micrograph=micrograph,
            figure_of_merit=np.concatenate([np.empty(0), *merits]),
            sites=self._sites(readable, micrograph, pixel_sizes),
        )

    def _sites(self, indices: Sequence[int], micrograph: NDArray[np.int64], pixel_sizes: bool) -> tuple[Site, ...]:
        order = np.argsort(micrograph, kind="stable")
        ends = np.cumsum(np.bincount(micrograph + 1, minlength=len(indices) + 1))
        names = [max(self.entries[index].names)[2] for index in indices]
        uses = Counter(names)
        sites = []
        for index, name, rows in zip(indices, names, np.split(order, ends[:-1])[1:], strict=True):
            entry, (header, stamp) = self.entries[index], self._read(index)
            assert entry.path is not None  # its header was read
            assert entry.found is not None
            shown = name if uses[name] == 1 else str(entry.path)
            size = self.pixel_size(index) if pixel_sizes else self.likely_pixel_size(index)
            sites.append(Site(shown, entry.path, entry.found, header, size, stamp, rows))
        return tuple(sites)


def locate(
    files: Sequence[PicksFile], folders: Sequence[Path], pixel_size: float | None = None, pixel_sizes: bool = True
) -> SitedPicks:
    """All picks of the files on their micrographs, as `Micrographs.locate` has them."""
    return Micrographs(folders, pixel_size).locate(files, pixel_sizes)
