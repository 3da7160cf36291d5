"""What happens around every request: its id, who may send it, how long it took, and the headers of the answer."""

import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.service.access import Role, is_cross_site, names_this_machine, role_of_request
from retrieval.service.metrics import Metrics
from retrieval.service.problems import Problem, response_of
from retrieval.service.protocol import MOST_HEADER_BYTES
from retrieval.service.settings import ServiceSettings

REQUESTS = "retrieval.service.requests"  # the logger of a line of JSON for each
_log = logging.getLogger(REQUESTS)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = ("/healthz", "/readyz")  # to whoever asks
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class Watch:
    """The outermost layer of the service.

    Args:
        app: what is inside.
        settings: who may do what.
        metrics: that are kept.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s, headers = time.perf_counter(), Headers(scope=scope)
        said = headers.get("x-request-id", "")
        request_id = said if _REQUEST_ID.fullmatch(said) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["x-request-id"] = request_id
                for name, value in _HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # the server leaves out the body
        try:
            scope["state"]["role"] = self._role(scope, headers)
            await self._app(inner, receive, send_with_headers)
        except Problem as problem:
            await response_of(problem, request_id, self._metrics)(scope, receive, send_with_headers)
        finally:
            self._note(scope, inner.get("route"), request_id, status, time.perf_counter() - start_s)

    def _role(self, scope: Scope, headers: Headers) -> Role | None:
        """What the request may do.

        Raises:
            Problem: it comes from where none may come from.
        """
        settings = self._settings
        if sum(len(name) + len(value) for name, value in headers.raw) > MOST_HEADER_BYTES:
            raise Problem(431, f"the headers are longer than {MOST_HEADER_BYTES} bytes")
        if settings.is_loopback and not settings.keys and not names_this_machine(headers.get("host", "")):
            raise Problem(421, "this server answers to localhost alone; name it so, or serve with --api-key-file")
        if scope["method"] not in _SAFE_METHODS and is_cross_site(headers):
            raise Problem(403, "pages of other sites may not send this")
        if scope["path"] in _OPEN:
            return "read"
        return role_of_request(settings.keys, headers, cookie_parser(headers.get("cookie", "")))

    def _note(self, scope: Scope, route: Any, request_id: str, status: int, seconds: float) -> None:
        name = getattr(route, "path", "other")
        self._metrics.requests.labels(name, scope["method"], status).inc()
        self._metrics.request_seconds.labels(name).observe(seconds)
        if self._settings.logs_requests:
            client = (scope.get("client") or ("",))[0]
            said = {
                "request_id": request_id, "client": client, "method": scope["method"], "route": name, "status": status,
                "ms": round(1000 * seconds, 2),
            }  # fmt: skip
            _log.info(json.dumps(said))
