"""The OpenAPI schema of the service's JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import BaseModel, Field

from .intake import FORM, Limits


class Guess(BaseModel):
    """A class and its probability."""

    label: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class Explanation(BaseModel):
    """The part of the image that the network saw, and a map for each predicted class."""

    box: tuple[float, float, float, float] = Field(
        description="left, top, right, bottom of the square seen, as shares of the upright image; "
        "beyond 0 to 1 where it is padded"
    )
    maps: list[list[list[float]]] = Field(
        description="a class-activation map for each class named: rows from the top, 0 to 1"
    )


class Answer(BaseModel):
    """The predictions for one image, or why there are none."""

    image: str | None = Field(description="the file's name, if one was sent")
    predictions: list[Guess] | None = Field(None, description="the most probable first")
    unfamiliar: bool | None = Field(
        None, description="unlike the training data; null where the network cannot tell"
    )
    explanation: Explanation | None = Field(
        None, description="if it was asked for and there is one"
    )
    error: str | None = Field(None, description="why the image cannot be read")


class Answers(BaseModel):
    """One answer for each image, in the order of the request."""

    images: list[Answer]
    milliseconds: float = Field(description="from the request's first byte to this answer")


class Accuracy(BaseModel):
    """The share of images classified correctly, and its 95 % interval."""

    share: float
    least: float
    most: float
    images: int


class ModelFacts(BaseModel):
    """The network that answers."""

    name: str
    backbone: str
    classes: list[str]
    size: int = Field(description="pixels a side that it sees")
    temperature: float
    flags_unfamiliar: bool = Field(
        description="whether it can flag images unlike the training data"
    )
    explains: bool = Field(description="whether it has class-activation maps")
    accuracy: Accuracy | None = Field(description="on images new to it, if told")
    limits: dict[str, int]
    examples: list[str]
    collects: bool = Field(description="whether /collect keeps images to train with")


class Kept(BaseModel):
    """Where an image was kept."""

    image: str = Field(description="its class folder, and a name made of its content")


class Health(BaseModel):
    """The state of the service."""

    status: str


class Error(BaseModel):
    """Why a request was refused, in one sentence."""

    error: str


EXAMPLE = {
    "images": [
        {
            "image": "cup.jpg",
            "predictions": [
                {"class": "cup", "probability": 0.981},
                {"class": "bowl", "probability": 0.012},
            ],
            "unfamiliar": False,
        },
        {"image": "notes.txt", "error": "not an image in a known format"},
    ],
    "milliseconds": 7.4,
}


def add_token(document: dict[str, Any], without: Collection[str]) -> None:
    """Declare in an OpenAPI document that all paths but those in `without` need the token."""
    kinds = document.setdefault("components", {}).setdefault("securitySchemes", {})
    kinds["token"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        if path in without:
            for operation in operations.values():
                operation["security"] = []


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the responses that refuse a request, by status."""
    return {status: {"model": Error} for status in statuses}


def predictions() -> dict[int | str, dict[str, Any]]:
    """Describe the answers of POST /predict."""
    return {
        200: {"model": Answers, "content": {"application/json": {"example": EXAMPLE}}},
        422: {
            "model": Answers | Error,
            "description": "No image can be read, or a parameter is wrong",
        },
        **refusals(400, 401, 403, 408, 413, 415, 503),
    }


def request(limits: Limits, top_k: int) -> dict[str, Any]:
    """Describe the parameters and the body of POST /predict. top_k: its largest value."""
    return {
        "parameters": [
            {
                "name": "top_k",
                "in": "query",
                "description": "classes to name",
                "schema": {"type": "integer", "minimum": 1, "maximum": top_k, "default": 5},
            },
            {
                "name": "explain",
                "in": "query",
                "description": "add class-activation maps",
                "schema": {"type": "boolean", "default": False},
            },
        ],
        "requestBody": _images(limits.images),
    }


def request_to_collect(labels: Sequence[str]) -> dict[str, Any]:
    """Describe the parameters and the body of POST /collect. labels: those that it takes."""
    label = {
        "name": "class",
        "in": "query",
        "required": True,
        "description": "the class of the image; the last of them if none is right",
        "schema": {"type": "string", "enum": list(labels)},
    }
    return {"parameters": [label], "requestBody": _images(1)}


def _images(most: int) -> dict[str, Any]:
    """Describe a body of up to so many images."""
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {
                "type": "array",
                "items": file,
                "minItems": 1,
                "maxItems": most,
                "description": "a file part for each image",
            }
        },
    }
    plain = ("image/jpeg", "image/png", "application/octet-stream")
    return {
        "required": True,
        "content": {FORM: {"schema": form}, **{kind: {"schema": file} for kind in plain}},
    }
