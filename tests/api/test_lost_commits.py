"""`Idempotency-Key` where PostgreSQL goes away in the middle: a key is free again only if surely nothing was done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.routes import algos
from tests.api.playing import Stage, algo_body
from tests.support.relay import Cut, Relay, relayed
from trading.errors import NotReady

NEW_KEY = "INSERT INTO api_keys"
KILL = {"scope": "cluster", "reason": "prices look wrong"}


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    async with relayed(database_url) as made:
        yield made


@pytest.fixture
async def far(relay: Relay, stage: Stage) -> Stage:
    """The application, whose way to PostgreSQL is the relay."""
    for database in (stage.services.database, stage.services.key_database):
        await database.close()
        database.url = relay.url
        await database.open()
    return stage


async def sent(stage: Stage, path: str, body: Any, under: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stage.operator_key}", "Idempotency-Key": under}
    return await stage.http.post(path, json=body, headers=headers)


async def labels(stage: Stage) -> list[str]:
    return [each["label"] for each in (await stage.get("/v1/keys"))["items"] if each["label"] == "mine"]


@pytest.mark.parametrize(("where", "made"), [(Cut.COMMIT, 0), (Cut.ANSWER, 1)])
async def test_a_lost_commit_is_told_and_the_same_request_again_does_nothing(
    far: Stage, relay: Relay, where: Cut, made: int
) -> None:
    relay.cut(where, NEW_KEY)
    first = await sent(far, "/v1/keys", {"label": "mine"}, "k")
    assert (first.status_code, first.json()["code"], relay.cuts) == (504, "outcome_unknown", 1)
    assert "retry-after" not in first.headers
    again = await sent(far, "/v1/keys", {"label": "mine"}, "k")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (504, "true")
    assert len(await labels(far)) == made
    assert (await sent(far, "/v1/keys", {"label": "mine"}, "k2")).status_code == 201


async def test_what_broke_before_its_commit_is_done_by_the_same_request_again(far: Stage, relay: Relay) -> None:
    relay.cut(Cut.STATEMENT, NEW_KEY)
    first = await sent(far, "/v1/keys", {"label": "mine"}, "k")
    assert (first.status_code, first.json()["code"], first.headers["retry-after"]) == (503, "not_ready", "1")
    assert (await sent(far, "/v1/keys", {"label": "mine"}, "k")).status_code == 201
    assert len(await labels(far)) == 1


async def test_a_kill_whose_commit_was_lost_is_the_same_kill_when_it_is_thrown_again(far: Stage, relay: Relay) -> None:
    relay.cut(Cut.ANSWER, "INSERT INTO kills")
    assert (await sent(far, "/v1/risk/kill?wait_s=0", KILL, "k")).status_code == 504
    again = await sent(far, "/v1/risk/kill?wait_s=0", KILL, "k")
    assert (again.status_code, again.headers["idempotency-kept"]) == (201, "no")
    assert [kill["id"] for kill in await far.get("/v1/risk/kills")] == [again.json()["id"]]


async def test_what_failed_after_a_part_was_committed_is_not_done_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await stage.trading()
    await stage.fed()

    async def away(*_: Any) -> Any:
        raise NotReady("the algo was made, and then this was away")

    real = algos.shown
    monkeypatch.setattr(algos, "shown", away)
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k"}
    first = await stage.http.post("/v1/algos", json=algo_body(), headers=headers)
    assert first.status_code == 503
    monkeypatch.setattr(algos, "shown", real)
    again = await stage.http.post("/v1/algos", json=algo_body(), headers=headers)
    assert (again.status_code, again.json()["code"], again.json()["answered"]) == (424, "outcome_unknown", 503)
    assert [each["id"] for each in (await stage.get("/v1/algos", key=key))["items"]] == ["momo-1"]
