"""The micrographs of a session: found by name, headers read when they are asked for."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import MicrographError
from pickeropt.io.find import MicrographFinder
from pickeropt.io.micrographs import MicrographHeader, read_micrograph_header
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.pixel_size import choose_pixel_size


@dataclass
class Site:
    """One micrograph.

    name : as the first file of picks names it, its file name where that names none; its real path where
        the labels' file would not lead back to it by that name
    path : real path, None where it was not found
    optics : Å/px by file of picks
    """

    name: str
    path: Path | None
    optics: dict[str, float]


class Micrographs:
    """Micrographs in order of first mention.

    out : the file of labels, which has their names
    """

    def __init__(self, folders: tuple[Path, ...], pixel_size: float | None, out: Path) -> None:
        self.sites: list[Site] = []
        self._folders, self._pixel_size, self._out = folders, pixel_size, out
        self._finder: MicrographFinder | None = None
        self._known: dict[Path | str, int] = {}
        self._headers: dict[int, MicrographHeader] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.sites)

    def add(self, file: PicksFile) -> NDArray[np.int64]:
        """The index of each of the file's `micrograph_names`; new ones come at the end.

        Raises MicrographError for a folder that is not there, where two files fit one name, and where one
        file would be taken for two micrographs.
        """
        with self._lock:
            if self._finder is None:
                self._finder = MicrographFinder(self._folders)
            found = [self._place(file, name) for name in file.picks.micrograph_names]
        return np.array(found, dtype=np.int64)

    def _place(self, file: PicksFile, name: str) -> int:
        assert self._finder is not None
        path = self._finder.find_in(file, name)
        real = path.resolve() if path else None
        place = self._known.setdefault(real or name, self._known.get(name, len(self.sites)))
        if place == len(self.sites):
            shown = path.name if path and file.names_from_stem else name
            self.sites.append(Site(self._name(shown, real), real, {}))
        elif self.sites[place].path is None:  # the labels named it, and only the picks say where it is
            self.sites[place].path = real
        if file.picks.pixel_size is not None:
            self.sites[place].optics[str(file.path)] = file.picks.pixel_size
        return place

    def _name(self, shown: str, real: Path | None) -> str:
        """What the file of labels calls a micrograph, so that it is found again from there."""
        assert self._finder is not None
        try:
            found = self._finder.find(shown, self._out)
        except MicrographError:  # two fit
            found = None
        there = found.resolve() if found else None
        return shown if real is None or there == real else str(real)

    def path(self, index: int) -> Path:
        """Raises MicrographError for one that was not found."""
        site = self.sites[index]
        if site.path is None:
            raise MicrographError(
                f"{site.name}: the micrograph is missing; give its folder with --micrographs"
            )
        return site.path

    def header(self, index: int) -> MicrographHeader:
        """Raises MicrographError as `read_micrograph_header` does."""
        found = self._headers.get(index)
        if found is None:
            found = self._headers[index] = read_micrograph_header(self.path(index))
        return found

    def shape(self, index: int) -> tuple[int, int] | None:
        """(h, w) px where the header was read already."""
        found = self._headers.get(index)
        return found.shape if found else None

    def pixel_size(self, index: int) -> float:
        """Å/px. Raises GeometryError where it is unknown or said in two ways."""
        return choose_pixel_size(self._pixel_size, self.header(index), self.sites[index].optics)

    def optics_size(self) -> float | None:
        """Å/px that the files of picks say, None where none does."""
        return next((size for site in self.sites for size in site.optics.values()), None)

    def missing(self) -> list[str]:
        """Names of those that were not found."""
        return [site.name for site in self.sites if site.path is None]
