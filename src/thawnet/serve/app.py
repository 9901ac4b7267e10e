"""The ASGI application: its routes and their responses."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ..bundle.model import Model
from ..core.errors import DiskFullError, ImageError, suggest
from ..image.decode import MAX_PIXELS
from ..webpage import HOUSE, ICON
from ..webpage.facts import STATIC, page_facts
from . import schema
from .batching import Batcher
from .collection import Collection
from .guard import OPEN, Guard, refusal
from .intake import Intake, Limits, Upload, reader_of
from .metrics import Counted, Counts
from .refusals import Busy, Refused
from .workers import Answer

TOP_K = 1000  # largest value of top_k
EXPLAINED = 10  # the same with explain, as a map is a hundred numbers
PARAMETERS = ("top_k", "explain")


@dataclass(frozen=True)
class Settings:
    """The settings of a service."""

    name: str
    """Display name of the model."""
    token: str | None = None
    """None: no token is needed."""
    local: bool = True
    """Whether it is bound to this machine only."""
    public: str | None = None
    """The public origin, if there is a proxy in front."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call the API (CORS)."""
    examples: dict[str, Path] = field(default_factory=dict)
    """Example images, by name."""
    limits: Limits = field(default_factory=Limits)
    waiting: int = 1024
    """Most images in the queue."""
    window: float = 0.002
    """Seconds that a free process waits for a batch to fill."""
    log: Callable[[str], None] | None = None
    """Called with a line for each response."""
    collection: Collection | None = None
    """Where photos are kept whose class a visitor named; None: they cannot."""


def make_app(model: Model, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application."""
    intake = Intake(settings.limits)
    counts = Counts(lambda: batcher.waiting, lambda: intake.requests)
    batcher = Batcher(model, settings.waiting, settings.window, counts.batch_done)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="thawnet",
        version="1",  # of the API
        description="Names what is in an image.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses=schema.refusals(401, 403),
    )
    app.add_middleware(
        Guard,
        token=settings.token,
        local=settings.local,
        public=settings.public,
        origins=settings.origins,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    _answer_refusals(app)
    limits = settings.limits
    facts = {
        **page_facts(model, settings.name, settings.examples),
        "limits": {"body_bytes": limits.body, "images": limits.images, "pixels": MAX_PIXELS},
        "collects": settings.collection is not None,
    }

    @app.post(
        "/predict",
        summary="Name the most probable classes of one or many images",
        responses=schema.predictions(),
        openapi_extra=schema.request(limits, TOP_K),
    )
    async def predict(request: Request) -> Response:
        started = time.perf_counter()
        top_k, explain = _parameters(request.query_params)
        with intake.room() as body:
            reader = reader_of(request.headers.get("content-type", ""), limits)
            await body.receive(request, reader)
            uploads = reader.images()
            answers = await batcher.predict([upload.data for upload in uploads], top_k, explain)
        images = [
            _as_dict(upload, answer, top_k) for upload, answer in zip(uploads, answers, strict=True)
        ]
        broken = sum("error" in image for image in images)
        spent = time.perf_counter() - started
        status = 422 if broken == len(images) else 200
        counts.predicted(len(images) - broken, broken, spent)
        return JSONResponse({"images": images, "milliseconds": round(1000 * spent, 1)}, status)

    if settings.collection is not None:
        _collect(app, settings.collection, intake, batcher)

    @app.get("/model", summary="The network that answers", response_model=schema.ModelFacts)
    async def describe() -> Response:
        return JSONResponse(facts)

    @app.get("/healthz", summary="Whether the service lives", response_model=schema.Health)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether the service can answer now",
        response_model=schema.Health,
        responses=schema.refusals(503),
    )
    async def readiness() -> Response:
        if not batcher.ready:
            raise Busy("no process has the network open yet")
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Counters, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(counts.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "page.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(STATIC / "docs.html")

    @app.get("/examples/{name}", include_in_schema=False)
    async def example(name: str) -> Response:
        if name not in settings.examples:
            raise Refused(404, "there is no such example")
        return FileResponse(settings.examples[name])

    @app.get(f"/static/{HOUSE.name}", include_in_schema=False)
    async def colours() -> Response:
        return FileResponse(HOUSE)

    @app.get(f"/static/{ICON.name}", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(ICON)

    app.mount("/static", StaticFiles(directory=STATIC))
    if settings.token is not None:
        schema.add_token(app.openapi(), OPEN)
    paths = {getattr(route, "path", "") for route in app.routes}
    app.add_middleware(Counted, counts=counts, paths=paths, log=settings.log)
    return app


def _collect(app: FastAPI, collection: Collection, intake: Intake, batcher: Batcher) -> None:
    """Add the route that keeps a photo whose class a visitor named."""

    @app.post(
        "/collect",
        summary="Keep an image, as one of a class, to train with",
        response_model=schema.Kept,
        responses=schema.refusals(400, 408, 413, 415, 422, 503, 507),
        openapi_extra=schema.request_to_collect(collection.labels),
    )
    async def collect(request: Request) -> Response:
        label = _label(request.query_params)
        with intake.room() as body:
            reader = reader_of(request.headers.get("content-type", ""), intake.limits)
            await body.receive(request, reader)
            upload, *others = reader.images()
            if others:
                raise Refused(400, f"{1 + len(others)} images were sent; send one")
            (answer,) = await batcher.predict([upload.data], 1, False)
            if isinstance(answer, ImageError):
                raise Refused(422, str(answer))
            suffix = Path(upload.name or "").suffix.lower()
            photo = bytes(upload.data)
            predicted = answer.as_dict(1)["predictions"][0]["class"]
            try:
                kept = await asyncio.to_thread(collection.keep, photo, label, suffix, predicted)
            except DiskFullError as error:
                raise Refused(507, "the disk is full: nothing more is kept here") from error
        return JSONResponse({"image": kept.as_posix()})


def _label(query: QueryParams) -> str:
    """Return the class that a request names. Raises Refused for any other parameter."""
    if [name for name, _ in query.multi_items()] != ["class"]:
        raise Refused(422, "name the image's class in the address: /collect?class=NAME")
    return query["class"]


def _parameters(query: QueryParams) -> tuple[int, bool]:
    """Return top_k and explain. Raises Refused for an unknown or invalid parameter."""
    for name, _ in query.multi_items():
        if name not in PARAMETERS:
            raise Refused(
                422, f"the parameter '{name[:50]}' is unknown; {suggest(name[:50], PARAMETERS)}"
            )
    top_k, explain = query.get("top_k", "5"), query.get("explain", "false")
    if not re.fullmatch(r"\d{1,4}", top_k, re.ASCII) or not 1 <= int(top_k) <= TOP_K:
        raise Refused(422, f"top_k is '{top_k[:50]}'; it must be 1 to {TOP_K}")
    if explain not in ("true", "false"):
        raise Refused(422, f"explain is '{explain[:50]}'; it must be true or false")
    if explain == "true" and int(top_k) > EXPLAINED:
        raise Refused(422, f"top_k is {top_k}; with explain it must be 1 to {EXPLAINED}")
    return int(top_k), explain == "true"


def _as_dict(upload: Upload, answer: Answer, top_k: int) -> dict[str, Any]:
    """Return an image's answer for JSON, in the form of `thawnet predict --json`."""
    if isinstance(answer, ImageError):
        return {"image": upload.name, "error": str(answer)}
    fields: dict[str, Any] = {"image": upload.name, **answer.as_dict(top_k)}
    if explanation := answer.explanation:
        maps = np.round(explanation.maps[:top_k].astype(np.float64), 3)
        box = [round(side, 4) for side in explanation.box]
        fields["explanation"] = {"box": box, "maps": maps.tolist()}
    return fields


def _answer_refusals(app: FastAPI) -> None:
    """Answer every refusal with {"error": sentence}."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return refusal(error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        sentences = {
            404: "there is nothing at this address",
            405: f"{request.method} is not allowed at this address",
        }
        sentence = sentences.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        return await refused(request, Refused(error.status_code, sentence, headers))
