"""What the page shows of a server, as JSON."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.errors import PickeroptError
from pickeropt.label.gallery import number
from pickeropt.label.label_config import TARGETS
from pickeropt.label.table import UNLABELLED

if TYPE_CHECKING:
    from pickeropt.label.server import LabelServer

BOX_DIAMETERS = 1.5
"""Width of a box where the page does not say, in particle diameters."""


def state(server: "LabelServer", browser: str) -> dict[str, Any]:
    """All that the head of the page shows."""
    session, store, loader = server.session, server.session.store, server.loader
    size = _pixel_size(server)
    diameter = None if size is None else server.config.diameter_angstrom / size
    with session.lock:
        loading = None if loader.finished.is_set() else {"done": loader.done, "total": loader.total}
        return {
            "version": pickeropt.__version__,
            "session": server.name,
            "revision": store.revision,
            "loading": loading,
            "picks": len(session.table),
            "micrographs": len(session.micrographs),
            "diameter_angstrom": server.config.diameter_angstrom,
            "diameter_px": diameter,
            "pixel_size": size,
            "box_px": None if diameter is None else round(BOX_DIAMETERS * diameter),
            "classes": server.classes(),
            "targets": list(TARGETS),
            "can_undo": store.can_undo(browser),
            "labels_file": str(server.config.out.resolve()),
            "skipped": store.skipped(),
            "suggested": len(server.gallery.suggested),
            "model": server.results.model,
            "pruned": server.results.pruned,
            "job": server.jobs.state(),
            "problems": server.problems(),
        }


def micrographs(server: "LabelServer") -> dict[str, Any]:
    session = server.session
    with session.lock:
        sites = list(session.micrographs.sites)
        picks = np.bincount(session.table.columns.micrograph, minlength=len(sites)).tolist()
        labels = [0] * len(sites)
        for key, label in session.store.labels.items():
            labels[session.store.place(key).micrograph] += label >= 0
    shapes = [session.micrographs.shape(i) or (None, None) for i in range(len(sites))]
    return {
        "items": [
            {
                "index": i,
                "name": site.name,
                "picks": picks[i],
                "labels": labels[i],
                "width": w,
                "height": h,
            }
            for i, (site, (h, w)) in enumerate(zip(sites, shapes, strict=True))
        ]
    }


def micrograph(server: "LabelServer", index: int) -> dict[str, Any]:
    """One micrograph with all its picks, as columns."""
    session, store = server.session, server.session.store
    server.check_micrograph(index)
    height, width = session.micrographs.header(index).shape
    with session.lock:
        c = session.table.columns
        rows = np.flatnonzero(c.micrograph == index)
        added = [k for k, box in store.added.items() if box.micrograph == index and k in store.labels]
        boxes = [store.added[key] for key in added]
        none: list[Any] = [None] * len(added)
        return {
            "index": index,
            "name": session.micrographs.sites[index].name,
            "width": width,
            "height": height,
            "levels": server.pictures.pixels.levels(index),
            "ids": rows.tolist() + added,
            "x": c.xy[rows, 0].tolist() + [box.x for box in boxes],
            "y": c.xy[rows, 1].tolist() + [box.y for box in boxes],
            "merit": _numbers(c.merit[rows]) + none,
            "label": c.label[rows].tolist() + [store.labels[key] for key in added],
            "guess": c.guess[rows].tolist() + [-1] * len(added),
            "score": _numbers(c.score[rows]) + none,
            "kept": c.kept[rows].tolist() + [-1] * len(added),
        }


def changes(server: "LabelServer", since: int) -> dict[str, Any]:
    """What is labelled otherwise than at a revision; nothing of the future."""
    store = server.session.store
    with server.session.lock:
        boxes = [(key, store.place(key)) for key in store.changes(since)]
        labels = [
            {
                "id": key,
                "class": store.name(store.labels.get(key, UNLABELLED)),
                "micrograph": box.micrograph,
                "x": box.x,
                "y": box.y,
            }
            for key, box in boxes
        ]
        return {
            "session": server.name,
            "revision": store.revision,
            "labels": labels,
            "classes": server.classes(),
            "problems": server.problems(),
        }


def _pixel_size(server: "LabelServer") -> float | None:
    """Å/px of the first micrograph that can be read."""
    for index in range(min(len(server.session.micrographs), 20)):
        try:
            return server.session.micrographs.pixel_size(index)
        except PickeroptError:
            continue
    return None


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    return [number(value) for value in values.tolist()]
