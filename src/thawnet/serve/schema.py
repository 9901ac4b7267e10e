"""The service's JSON, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from .intake import FORM, Limits


class Guess(BaseModel):
    """A class and its probability."""

    label: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class Explanation(BaseModel):
    """Where the network looked, and where it saw each class named."""

    box: tuple[float, float, float, float] = Field(
        description="left, top, right, bottom of the square seen, as shares of the upright image"
    )
    maps: list[list[list[float]]] = Field(
        description="a class-activation map for each class named: rows from the top, 0 to 1"
    )


class Answer(BaseModel):
    """What there is to say of one image: predictions, or why there are none."""

    image: str | None = Field(description="the file's name, if one was sent")
    predictions: list[Guess] | None = Field(None, description="the most probable first")
    unfamiliar: bool | None = Field(
        None, description="unlike the training data; absent where the network cannot tell"
    )
    explanation: Explanation | None = Field(
        None, description="if it was asked for and there is one"
    )
    error: str | None = Field(None, description="why the image cannot be read")


class Answers(BaseModel):
    """One answer for each image, in the order of the request."""

    images: list[Answer]
    milliseconds: float = Field(description="from the request's first byte to this answer")


class ModelFacts(BaseModel):
    """The network that answers."""

    name: str
    backbone: str
    classes: list[str]
    size: int = Field(description="pixels a side that it sees")
    temperature: float
    unfamiliar: bool = Field(description="whether it can tell images unlike the training data")
    explains: bool = Field(description="whether it has class-activation maps")
    limits: dict[str, int]
    examples: list[str]


class Health(BaseModel):
    """Alive."""

    status: str


class Error(BaseModel):
    """Why a request was refused, in one sentence."""

    error: str


_ONE = {
    "image": "cup.jpg",
    "predictions": [
        {"class": "cup", "probability": 0.981},
        {"class": "bowl", "probability": 0.012},
    ],
    "unfamiliar": False,
}
_BROKEN = {"image": "notes.txt", "error": "not an image in a known format"}
_SENTENCES = {
    400: "the form has more than 64 parts, the most allowed",
    401: "this service asks for its token: Authorization: Bearer TOKEN",
    403: "pages of other sites may not use this service",
    408: "1,024 bytes came in 30 seconds; the whole request must come in that time",
    413: f"the request is larger than {Limits.body / 2**20:g} MiB, the most that is taken",
    415: "Content-Type is 'text/plain'; send an image as image/jpeg, image/png and so on, "
    f"or images as {FORM}",
    503: "1,024 images are waiting already; try again in a second",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the statuses with which a request may be refused."""
    return {
        status: {
            "model": Error,
            "content": {"application/json": {"example": {"error": _SENTENCES[status]}}},
        }
        for status in statuses
    }


def predictions() -> dict[int | str, dict[str, Any]]:
    """Describe the answers of POST /predict."""
    found = {"images": [_ONE, _BROKEN], "milliseconds": 7.4}
    none = {"images": [_BROKEN], "milliseconds": 1.1}
    return {
        200: {"model": Answers, "content": {"application/json": {"example": found}}},
        422: {
            "description": "No image can be read, or a parameter is wrong",
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/Answers"},
                            {"$ref": "#/components/schemas/Error"},
                        ]
                    },
                    "examples": {
                        "images": {"value": none},
                        "parameter": {"value": {"error": "top_k is '0'; it must be 1 to 1000"}},
                    },
                }
            },
        },
        **refusals(400, 401, 403, 408, 413, 415, 503),
    }


def request(limits: Limits, top_k: int) -> dict[str, Any]:
    """Describe what POST /predict takes. top_k: classes that can be named."""
    picture = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "minItems": 1,
                "maxItems": limits.images,
                "description": "a file part for each image",
            }
        },
    }
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
        "requestBody": {
            "required": True,
            "content": {
                FORM: {"schema": form},
                "image/jpeg": picture,
                "image/png": picture,
                "application/octet-stream": picture,
            },
        },
    }
