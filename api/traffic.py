"""Requests counted and bounded: an ASGI layer around the application."""

from __future__ import annotations

import re
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Largest body of a request, and of one that uploads a strategy.
MOST_BYTES: Final = 4 << 20
MOST_UPLOADED: Final = 20_000_000
_UPLOAD: Final = re.compile(r"/v1/strategies/[^/]+/versions/?")
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Traffic:
    """Counts and times of requests by route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "quarterdeck_http_requests", "Requests", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "quarterdeck_http_request_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )


class Counted:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app = app
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        taken = 0
        most = MOST_UPLOADED if _UPLOAD.fullmatch(scope["path"]) else MOST_BYTES

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def bounded_receive() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"the body has more than {most} bytes; send less")
            return message

        try:
            await self.app(scope, bounded_receive, counted_send)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            method = scope["method"] if scope["method"] in _METHODS else "(other)"
            self.traffic.requests.labels(method, route, str(status)).inc()
            self.traffic.seconds.labels(method, route).observe(time.perf_counter() - began)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
