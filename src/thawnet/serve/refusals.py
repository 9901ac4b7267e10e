"""Refusals of a request: a status and one sentence for its sender."""

from __future__ import annotations

from ..core.text import sentence as one_sentence


class Refused(Exception):  # noqa: N818 - it is an answer and nobody's error
    """A request is answered with `status`, {"error": sentence} and some headers."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        self.sentence = one_sentence(sentence)
        super().__init__(self.sentence)
        self.status = status
        self.headers = headers or {}


class Failed(Refused):
    """A fault of the service, of which only its log says more."""

    def __init__(self) -> None:
        super().__init__(500, "this failed here; the service's log says why")


class Busy(Refused):
    """Too much is under way; the same request may well be taken a second later."""

    def __init__(self, sentence: str) -> None:
        super().__init__(503, f"{sentence}; try again in a second", {"Retry-After": "1"})
