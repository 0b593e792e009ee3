"""``/healthz``, ``/readyz``, ``/metrics``: for those who watch the deck.  They need no key."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.metrics import metrics_text
from api.problems import problem
from api.services import Deck

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The API itself is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "What is missing"}})
async def readyz(deck: Deck) -> JSONResponse:
    """Whether the deck can trade: the database answers, Ray is connected, the Supervisor is at work."""
    missing = await deck.missing()
    if missing:
        detail = "; ".join(missing)
        return problem(503, "not_ready", "Not ready", detail, {"Retry-After": "1"}, missing=missing, retry_after=1.0)
    return JSONResponse({"status": "ready", "missing": []})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(deck: Deck) -> PlainTextResponse:
    """Prometheus metrics."""
    return PlainTextResponse(await metrics_text(deck), media_type=CONTENT_TYPE_LATEST)
