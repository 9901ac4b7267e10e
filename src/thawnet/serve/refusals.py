"""Exceptions that refuse a request, with a status and a sentence for its sender."""

from __future__ import annotations

from ..core.text import sentence as one_sentence


class Refused(Exception):  # noqa: N818 - a response, not an error
    """A refusal: the response has `status`, {"error": sentence} and `headers`."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        self.sentence = one_sentence(sentence)
        super().__init__(self.sentence)
        self.status = status
        self.headers = headers or {}


class Failed(Refused):
    """An internal error; only the service's log has the details."""

    def __init__(self) -> None:
        super().__init__(500, "this failed here; the service's log says why")


class Busy(Refused):
    """The service is overloaded; the same request may be accepted a second later."""

    def __init__(self, sentence: str) -> None:
        super().__init__(503, f"{sentence}; try again in a second", {"Retry-After": "1"})
