"""The application: routes under ``/v1``, problems for errors, services for the life of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI

from api import docs_page, idempotency, openapi, panel_files, problems
from api.headers import SecurityHeaders
from api.plain_text import refuse_unfit_address
from api.routes import (
    accounts,
    alerts,
    algo_batch,
    algo_commands,
    algo_story,
    algo_versions,
    algos,
    audit,
    auth,
    breaks,
    connectors,
    deck_view,
    equity,
    exports,
    feed_clients,
    feed_health,
    feed_seconds,
    feed_tuning,
    feeds,
    flatten,
    grants,
    health,
    heat,
    history,
    holdings,
    instruments,
    joining,
    keys,
    kills,
    node_history,
    nodes,
    orders,
    reconciliations,
    risk,
    search,
    strategies,
    strategy_versions,
    surveillance,
    users,
)
from api.routes import sessions as session_routes
from api.routes import stream as stream_routes
from api.services import Services, Session
from api.traffic import Counted
from cluster.settings import DeckSettings, settings
from trading.ids import UserId

_DESCRIPTION = """
Command algos, feeds and orders of a Quarterdeck.

* Give an API key as `Authorization: Bearer qd_…` or `X-API-Key`; people sign in with `POST /v1/auth/login`.
* Decimals are strings, both ways; times are ISO 8601 with offset.
* Lists are `{"items": […], "next": cursor or null}`.
* Errors are `application/problem+json`; `code` is stable.
* `GET /v1/stream` is a WebSocket.  The first message is `{"key": "qd_…", "topics": ["orders", "portfolio",
  "algos", "feeds", "alerts"], "after": null}`; then come `{"sequence", "topic", "key", "at", "body"}`.  To resume,
  send the last `sequence` as `after` (and the greeting's `instance`); `"reset": true` means that changes may be
  missing.
"""


def create_app(
    deck: DeckSettings | None = None,
    *,
    connect: bool = True,
    sessions: Callable[[UserId], Session] | None = None,
) -> FastAPI:
    """The application.

    ``connect`` False leaves the cluster alone (no Ray, no Supervisor); ``sessions`` gives the way to a user's
    session in place of the cluster's.
    """
    services = Services(deck or settings(), connect=connect, sessions=sessions)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = FastAPI(
        title="Quarterdeck",
        version="0.1.0",
        description=_DESCRIPTION,
        lifespan=life,
        # Of all routes, before anything of theirs.
        dependencies=[Depends(refuse_unfit_address)],
        separate_input_output_schemas=False,
        # The page that shows the document is `docs_page`'s.
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    rooms: tuple[Any, ...] = (
        auth, session_routes, users, keys, grants, accounts, connectors, flatten, instruments, history, feeds,
        feed_clients, feed_health, feed_tuning, feed_seconds, strategies,
        strategy_versions, algos, algo_commands, algo_batch, algo_story, algo_versions, orders, holdings, exports,
        deck_view, heat, equity, search, alerts, breaks, reconciliations, risk, kills, surveillance, joining,
        node_history, nodes, audit, stream_routes, health, docs_page,
    )  # fmt: skip
    for room in rooms:
        app.include_router(room.router)
    app.include_router(strategies.submitting)
    app.include_router(strategy_versions.submitting)
    panel_files.install(app)
    problems.install(app)
    idempotency.install(app)
    app.add_middleware(idempotency.Kept, keys=services.request_keys)
    app.add_middleware(Counted, traffic=services.traffic)
    app.add_middleware(SecurityHeaders)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    return app
