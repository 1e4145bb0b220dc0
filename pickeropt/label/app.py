"""The web application: its routes and the JSON of the page. Requests hold numbers and class names, never a path."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

import pickeropt
from pickeropt.errors import MicrographError, OutputError, PickeroptError
from pickeropt.label.gallery import GalleryQuery, number
from pickeropt.label.label_config import TARGETS
from pickeropt.label.label_store import UNLABELLED, Box
from pickeropt.label.pictures import DisplaySettings
from pickeropt.label.server import LabelServer

BOX_DIAMETERS = 1.5
"""Default width of a box, in particle diameters."""


def page_state(server: LabelServer, browser: str) -> dict[str, Any]:
    """The state of the session, for the head of the page."""
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


def listed_micrographs(server: LabelServer) -> dict[str, Any]:
    session = server.session
    with session.lock:
        sites = list(session.micrographs.entries)
        picks = np.bincount(session.table.columns.micrograph, minlength=len(sites)).tolist()
        labels = [0] * len(sites)
        for key, label in session.store.labels.items():
            labels[session.store.place(key).micrograph] += label >= 0
    shapes = [session.micrographs.shape(i) or (None, None) for i in range(len(sites))]
    return {
        "items": [
            {"index": i, "name": site.name, "picks": picks[i], "labels": labels[i], "width": w, "height": h}
            for i, (site, (h, w)) in enumerate(zip(sites, shapes, strict=True))
        ]
    }


def micrograph_details(server: LabelServer, index: int) -> dict[str, Any]:
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
            "name": session.micrographs.entries[index].name,
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


def label_changes(server: LabelServer, since: int) -> dict[str, Any]:
    """Labels changed since a revision."""
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


def _pixel_size(server: LabelServer) -> float | None:
    """Å/px of the first micrograph that can be read."""
    for index in range(min(len(server.session.micrographs), 20)):
        try:
            return server.session.micrographs.pixel_size(index)
        except PickeroptError:
            continue
    return None


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    return [number(value) for value in values.tolist()]


PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MAX_LABELS = 100_000
"""In one request."""

Id = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(max_length=100)]
ActionId = Annotated[str, Field(max_length=64)]
"""Identifies an action that the page sends again because its answer was lost."""
PicturePixels = Annotated[int, Query(ge=16, le=1024)]
Diameters = Annotated[float, Query(ge=0.2, le=20)]
Angstrom = Annotated[float, Query(ge=0, le=1000)]
Sigmas = Annotated[float, Query(ge=0.1, le=100)]


def _browser(request: Request) -> str:
    return str(request.scope.get("state", {}).get("browser", ""))


def _display(
    lowpass: Angstrom = DisplaySettings.lowpass, contrast: Sigmas = DisplaySettings.contrast
) -> DisplaySettings:
    return DisplaySettings(lowpass, contrast)


Browser = Annotated[str, Depends(_browser)]
"""The name of the browser, from its cookie."""
Display = Annotated[DisplaySettings, Depends(_display)]


class LabelBody(BaseModel):
    id: Id
    class_name: Name | None = Field(alias="class")


class LabelsBody(BaseModel):
    labels: Annotated[list[LabelBody], Field(max_length=MAX_LABELS)]
    action: ActionId = ""


class AddBody(BaseModel):
    micrograph: Id
    x: Annotated[float, Field(allow_inf_nan=False)]
    y: Annotated[float, Field(allow_inf_nan=False)]
    class_name: Name = Field(alias="class")
    action: ActionId = ""


class UndoBody(BaseModel):
    action: ActionId = ""


class ClassBody(BaseModel):
    name: Name


class SuggestBody(BaseModel):
    count: Annotated[int, Field(ge=1, le=500)] = 20


class ThresholdBody(BaseModel):
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5


def make_app(server: LabelServer) -> FastAPI:
    """The application, without the access check of `serving.Guard`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_page(app)
    _add_picks(app, server)
    _add_pictures(app, server)
    _add_labels(app, server)
    _add_jobs(app, server)
    return app


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.splitlines())}, status)


def _add_errors(app: FastAPI) -> None:
    """Errors as JSON with one line of text."""

    @app.exception_handler(PickeroptError)
    def users(request: Request, error: PickeroptError) -> JSONResponse:
        status = 409 if isinstance(error, OutputError) else 404 if isinstance(error, MicrographError) else 400
        return _error(status, str(error))

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, f"{request.url.path}: {error.detail}")


def _add_page(app: FastAPI) -> None:
    """A route for each file of the page, fixed before the first request."""
    files = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix in KINDS}
    for name, path in files.items():
        route = "/" if name == "index.html" else f"/{name}"
        app.get(route)(_file_route(path))


def _file_route(path: Path):  # type: ignore[no-untyped-def]
    def file() -> FileResponse:
        return FileResponse(path, media_type=KINDS[path.suffix], headers={"cache-control": "no-cache"})

    return file


def _add_picks(app: FastAPI, server: LabelServer) -> None:
    @app.get("/api/state")
    def state(browser: Browser) -> JSONResponse:
        return JSONResponse(page_state(server, browser))

    @app.get("/api/micrographs")
    def micrographs() -> JSONResponse:
        return JSONResponse(listed_micrographs(server))

    @app.get("/api/picks")
    def picks(
        order: Annotated[str, Query(max_length=20)] = "file",
        class_name: Annotated[str, Query(alias="class", max_length=100)] = "",
        micrograph: Annotated[int | Literal[""], Query()] = "",
        kept: Annotated[str, Query(max_length=20)] = "all",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=2000)] = 200,
    ) -> JSONResponse:
        query = GalleryQuery(order, class_name, None if micrograph == "" else micrograph, kept)
        return JSONResponse(server.picks(query, offset, limit))

    @app.get("/api/micrograph/{index}")
    def micrograph(index: int) -> JSONResponse:
        return JSONResponse(micrograph_details(server, index))

    @app.get("/api/changes")
    def changes(since: int = 0) -> JSONResponse:
        return JSONResponse(label_changes(server, since))


def _add_pictures(app: FastAPI, server: LabelServer) -> None:
    headers = {"cache-control": "private, max-age=3600"}

    @app.get("/api/box/{key}.png")
    def box(key: int, display: Display, px: PicturePixels = 128, view: Diameters = BOX_DIAMETERS) -> Response:
        data = server.pictures.box(server.place(key), px, view, display)
        return Response(data, media_type="image/png", headers=headers)

    @app.get("/api/micrograph/{index}/tile/{level}/{tx}/{ty}.png")
    def tile(index: int, level: int, tx: int, ty: int, display: Display) -> Response:
        data = server.tile(index, (level, tx, ty), display)
        return Response(data, media_type="image/png", headers=headers)


def _add_labels(app: FastAPI, server: LabelServer) -> None:
    @app.post("/api/labels")
    def labels(body: LabelsBody, browser: Browser) -> JSONResponse:
        given = [(label.id, label.class_name) for label in body.labels]
        return JSONResponse(server.once(browser, body.action, partial(server.label, given, browser)))

    @app.post("/api/add")
    def add(body: AddBody, browser: Browser) -> JSONResponse:
        box = Box(body.micrograph, body.x, body.y)
        act = partial(server.add, box, body.class_name, browser)
        return JSONResponse(server.once(browser, body.action, act))

    @app.post("/api/undo")
    def undo(browser: Browser, body: UndoBody | None = None) -> JSONResponse:
        action = "" if body is None else body.action
        return JSONResponse(server.once(browser, action, partial(server.undo, browser)))

    @app.post("/api/classes")
    def classes(body: ClassBody) -> JSONResponse:
        return JSONResponse(server.add_class(body.name))


def _add_jobs(app: FastAPI, server: LabelServer) -> None:
    @app.get("/api/job")
    def job() -> JSONResponse:
        return JSONResponse(server.jobs.state())

    @app.post("/api/job/stop")
    def stop() -> JSONResponse:
        server.jobs.stop()
        return JSONResponse(server.jobs.state())

    @app.post("/api/suggest")
    def suggest(body: SuggestBody) -> JSONResponse:
        return JSONResponse({"job": server.suggest(body.count)}, 202)

    @app.post("/api/finetune")
    def finetune() -> JSONResponse:
        return JSONResponse({"job": server.finetune()}, 202)

    @app.post("/api/prune")
    def prune(body: ThresholdBody) -> JSONResponse:
        return JSONResponse({"job": server.prune(body.threshold)}, 202)

    @app.post("/api/threshold")
    def threshold(body: ThresholdBody) -> JSONResponse:
        return JSONResponse(server.threshold(body.threshold))

    @app.get("/api/scores")
    def scores() -> JSONResponse:
        return JSONResponse(server.results.scores())
