"""Requests of the service: their type and body, as bytes from anyone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

from support.fuzz.mutate import mutated
from support.fuzz.target import Target, encoded, picture
from thawnet.serve.intake import Limits, reader_of
from thawnet.serve.refusals import Refused

PIECE = 700  # bytes that come at once


class Request(Target):
    """Content-Type, a line break, and the body."""

    name = "request"
    refusals = (Refused,)
    tokens = (
        *b"--edge --edge-- multipart/form-data; boundary=edge image/png".split(),
        *(b"\r\n", b"\r\n\r\n", b"\r\n--edge\r\n", b"\r\n--edge--\r\n", b"\n--edge\n"),
        *(b'Content-Disposition: form-data; name="x"; filename="', b"filename*=utf-8''x"),
        *(b"Content-Transfer-Encoding: base64\r\n", b"boundary=" + b"b" * 500, b"\0", b"\xff"),
    )

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """An image as the body, and forms of one and of several."""
        image = encoded(picture(), "PNG")
        part = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        field = b'--edge\r\nContent-Disposition: form-data; name="x"\r\n\r\nwords\r\n'
        one = part + image + b"\r\n"
        head = b"multipart/form-data; boundary=edge\n"
        return [
            b"image/png\n" + image,
            *(head + one * count + b"--edge--\r\n" for count in (1, 3)),
            head + field + one + field + b"--edge--\r\n",
        ]

    def make(self, rng: random.Random) -> bytes:
        """Spoil everything, or the body alone, so that most reach the reader of forms."""
        if rng.random() < 0.3:
            return mutated(rng, self.seeds, self.tokens)
        head, _, body = rng.choice(self.seeds).partition(b"\n")
        return head + b"\n" + mutated(rng, [body], self.tokens)

    def run(self, content: bytes) -> None:
        """Take its images out."""
        kind, _, sent = content.partition(b"\n")
        reader = reader_of(kind.decode("latin-1"), Limits())
        for start in range(0, len(sent), PIECE):
            reader.write(sent[start : start + PIECE])
        reader.images()
