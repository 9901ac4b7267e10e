"""Checks on every request (host, origin, token), the security headers, and refusals."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Failed, Refused

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Served without the token: the page that asks for it, the API's documentation, health checks.
OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
STATIC = "/static/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that refuses requests of strangers and adds the security headers.

    What fails in the application is answered here too, so that this answer has the headers as well.

    A page of another site can send requests to a service on the machine of a user who has the page
    open. The browser names the site in Origin. Host names what it looked up, which exposes DNS
    rebinding.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        local: bool,
        public: str | None = None,
        origins: Sequence[str] = (),
    ) -> None:
        """token: needed as `Authorization: Bearer`. local: bound to this machine only.

        public: the origin of a proxy in front. origins: those of other sites whose pages may send
        requests.
        """
        self.app = app
        self._token = token.encode() if token is not None else None
        self._local = local
        name = _parsed(public or "").hostname
        self._names = tuple(dict.fromkeys([*LOOPBACK, *filter(None, [name])]))
        self._public = public
        self._origins = {*origins, *filter(None, [public])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # sent by proxies as a health check
            scope = {**scope, "method": "GET"}  # the server omits the response's body

        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self.app(scope, receive, send_guarded)
        except Refused as refused:
            await refusal(refused)(scope, receive, send_guarded)
        except Exception:
            if not started:
                await refusal(Failed())(scope, receive, send_guarded)
            raise  # the server logs it

    def _check(self, path: str, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and _parsed(f"//{host}").hostname not in self._names:
            raise Refused(
                403,
                f"this service answers to the names {', '.join(self._names)} alone; behind a "
                "proxy, start it with --public-url",
            )
        same = origin is None or (_parsed(origin).netloc or None) == host
        if not same and origin not in self._origins:
            known = f"it is for the page at {self._public}" if self._public else ""
            raise Refused(
                403,
                "pages of other sites may not use this service; "
                + (known or "behind a proxy, start it with --public-url"),
            )
        if self._token is None or path in OPEN or path.startswith(STATIC):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self._token)
        if scheme.lower() != "bearer" or not right:
            raise Refused(
                401,
                "this service asks for its token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )


def refusal(refused: Refused) -> JSONResponse:
    """Return the response of a refusal."""
    return JSONResponse({"error": refused.sentence}, refused.status, refused.headers)


def _parsed(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # such as an unclosed bracket
        return urlsplit("")
