"""The service without its work: it reads each request whole and returns a constant.

    python benchmarks/constant_server.py 8001

It has the same server, guard and limits as the service, but parses no form and decodes no image, so
its time is the cost of HTTP.
"""

from __future__ import annotations

import sys

from fastapi import FastAPI, Request, Response

from thawnet.serve.connection import listen, run
from thawnet.serve.guard import Guard
from thawnet.serve.intake import Intake, Limits, Upload


class Nothing:
    """Reader that discards the body."""

    def write(self, chunk: bytes) -> None:
        """Discard a chunk."""

    def images(self) -> list[Upload]:
        """Return no images."""
        return []


ANSWER = b'{"images": [], "milliseconds": 1.0}'


def main(port: int) -> None:
    """Serve until stopped."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_middleware(Guard, token=None, local=True)
    intake = Intake(Limits())

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        with intake.room() as body:
            await body.receive(request, Nothing())
        return Response(ANSWER, media_type="application/json")

    run(app, listen("127.0.0.1", port))


if __name__ == "__main__":
    main(int(sys.argv[1]))
