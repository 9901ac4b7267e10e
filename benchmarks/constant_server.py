"""The service without its work: it reads each request whole and answers a constant.

    python benchmarks/constant_server.py 8001

The same server, the same guard, the same limits; no form is taken apart, no image is seen. What it
takes is what HTTP costs here.
"""

from __future__ import annotations

import sys

from fastapi import FastAPI, Request, Response

from thawnet.serve.connection import listen, run
from thawnet.serve.guard import Guard
from thawnet.serve.intake import Intake, Limits, Upload


class Nothing:
    """Reads a body and makes nothing of it."""

    def write(self, chunk: bytes) -> None:
        """Take some of it."""

    def images(self) -> list[Upload]:
        """Return none."""
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
