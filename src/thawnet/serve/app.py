"""The service: what is asked at which address, and what is answered."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from ..bundle.model import Explanation, Model
from ..core.errors import ImageError
from ..image.decode import MAX_PIXELS
from ..webpage import HOUSE, ICON
from ..webpage.facts import STATIC, page_facts
from . import schema
from .batching import Batcher
from .guard import Guard, refusal
from .intake import Intake, Limits, Upload, reader_of
from .metrics import Counts
from .refusals import Failed, Refused
from .workers import Answer

TOP_K = 1000  # classes named at most


@dataclass(frozen=True)
class Settings:
    """How a service is set up.

    name: of the model, for people. token: None lets everyone ask. local: bound to this machine
    alone. examples: pictures to try, by name. waiting: images in the queue at most. window: seconds
    that a free process waits for a batch to fill.
    """

    name: str
    token: str | None = None
    local: bool = True
    examples: dict[str, Path] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    waiting: int = 1024
    window: float = 0.002


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
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses=schema.refusals(401, 403),
    )
    app.add_middleware(Guard, token=settings.token, local=settings.local)
    _answer_errors(app, counts)
    facts = _facts(model, settings)

    @app.post(
        "/predict",
        summary="Name the most probable classes of one or many images",
        responses=schema.predictions(),
        openapi_extra=schema.request(settings.limits, TOP_K),
    )
    async def predict(request: Request) -> Response:
        started = time.perf_counter()
        top_k, explain = _asked(request.query_params)
        with intake.room(), intake.body() as body:
            reader = reader_of(request.headers.get("content-type", ""), settings.limits)
            await body.receive(request, reader)
            uploads = reader.images()
            answers = await batcher.predict([each.data for each in uploads], top_k, explain)
        said = [_said(*pair, top_k) for pair in zip(uploads, answers, strict=True)]
        broken = sum("error" in each for each in said)
        spent = time.perf_counter() - started
        status = 422 if broken == len(said) else 200
        counts.predicted(status, len(said) - broken, broken, spent)
        return JSONResponse({"images": said, "milliseconds": round(1000 * spent, 1)}, status)

    @app.get("/model", summary="The network that answers", response_model=schema.ModelFacts)
    async def describe() -> Response:
        return JSONResponse(facts)

    @app.get("/healthz", summary="Whether the service lives", response_model=schema.Health)
    async def health() -> Response:
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

    @app.get("/examples/{name}", include_in_schema=False)
    async def example(name: str) -> Response:
        if name not in settings.examples:
            raise Refused(404, "there is no such example")
        return FileResponse(settings.examples[name])

    for file in (HOUSE, ICON):
        app.add_route(f"/static/{file.name}", _sending(file))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _sending(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def send(_request: Request) -> Response:
        return FileResponse(file)

    return send


def _facts(model: Model, settings: Settings) -> dict[str, Any]:
    limits = settings.limits
    return {
        **page_facts(model, settings.name, settings.examples),
        "limits": {"body_bytes": limits.body, "images": limits.images, "pixels": MAX_PIXELS},
    }


def _asked(query: Mapping[str, str]) -> tuple[int, bool]:
    """Return top_k and explain."""
    top_k, explain = query.get("top_k", "5"), query.get("explain", "false")
    if not re.fullmatch(r"\d{1,4}", top_k, re.ASCII) or not 1 <= int(top_k) <= TOP_K:
        raise Refused(422, f"top_k is '{top_k[:50]}'; it must be 1 to {TOP_K}")
    if explain not in ("true", "false"):
        raise Refused(422, f"explain is '{explain[:50]}'; it must be true or false")
    return int(top_k), explain == "true"


def _said(upload: Upload, answer: Answer, top_k: int) -> dict[str, Any]:
    """Return what the JSON says of one image, as `thawnet predict --json` does."""
    if isinstance(answer, ImageError):
        return {"image": upload.name, "error": str(answer)}
    said: dict[str, Any] = {"image": upload.name, **answer.as_dict(top_k)}
    if answer.explanation is not None:
        said["explanation"] = _explained(answer.explanation, top_k)
    return said


def _explained(explanation: Explanation, top_k: int) -> dict[str, Any]:
    maps = np.round(explanation.maps[:top_k].astype(np.float64), 3)
    return {"box": [round(side, 4) for side in explanation.box], "maps": maps.tolist()}


def _answer_errors(app: FastAPI, counts: Counts) -> None:
    """Let every error be answered as {"error": sentence}, and count it."""

    def answered(request: Request, refused: Refused) -> Response:
        route = request.scope.get("route")
        counts.requests.labels(getattr(route, "path", "other"), refused.status).inc()
        return refusal(refused)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return answered(request, error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        sentences = {
            404: "there is nothing at this address",
            405: f"{request.method} is not allowed at this address",
        }
        sentence = sentences.get(error.status_code, str(error.detail))
        return answered(request, Refused(error.status_code, sentence, dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def failed(request: Request, _error: Exception) -> Response:
        return answered(request, Failed())
