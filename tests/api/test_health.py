from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.link import Link
from cluster import runtime
from cluster.names import ActorName, Kind
from cluster.settings import DeckSettings
from cluster.specs import ActorSpec
from tests.api.playing import BTC, Stage, algo_body, order_body
from trading.errors import Conflict, NotReady

SUPERVISOR = ActorName(Kind.SUPERVISOR, "main")


def _view(age_s: float = 0.0) -> dict[str, Any]:
    def actor(name: str, state: str) -> dict[str, Any]:
        return {
            "name": name,
            "answers": True,
            "state": state,
            "reason": "",
            "node": "head",
            "pid": 1,
            "epoch": 1,
            "heart_age_s": 0.1,
            "facts": {},
        }

    return {
        "at": time.time_ns() - int(age_s * 1e9),
        "epoch": 1,
        "nodes": ["head"],
        "actors": [
            actor("risk/main", "ready"),
            actor("session/asha", "ready"),
            actor("session/bo", "starting"),
            actor("algo/momo-1/3", "ready"),
        ],
        "missing": ["session/bo"],
    }


async def test_the_deck_is_ready_once_the_supervisor_shows_itself(stage: Stage) -> None:
    said = await stage.refused(503, "not_ready", "GET", "/readyz", key="")
    assert said["missing"] == ["Supervisor: it has not shown the cluster yet"]
    await stage.services.hot.put("cluster", _view(), 60)
    assert (await stage.get("/readyz", key=""))["status"] == "ready"
    await stage.services.hot.put("cluster", _view(11), 60)
    said = await stage.refused(503, "not_ready", "GET", "/readyz", key="")
    assert "11 s old" in said["missing"][0]


async def test_a_cluster_that_is_not_connected_is_told(stage: Stage) -> None:
    await stage.services.hot.put("cluster", _view(), 60)
    stage.services.link = Link(stage.services.deck)
    said = await stage.refused(503, "not_ready", "GET", "/readyz", key="")
    assert said["missing"] == ["Ray: not connected to the head yet"]


async def test_without_its_stores_the_api_lives_and_says_what_is_missing() -> None:
    deck = DeckSettings(DATABASE_URL="postgresql://u@127.0.0.1:9/d", REDIS_URL="redis://127.0.0.1:9/0")  # type: ignore[call-arg]
    app = create_app(deck, connect=False)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://deck") as client:
            assert (await client.get("/healthz")).json() == {"status": "alive"}
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert [each.split(":")[0] for each in ready.json()["missing"]] == ["PostgreSQL", "Redis"]
            answer = await client.get("/v1/me", headers={"X-API-Key": "qd_any"})
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert "retry-after" in answer.headers
            metrics = (await client.get("/metrics")).text
    assert 'quarterdeck_store_up{store="postgres"} 0.0' in metrics
    assert 'quarterdeck_store_up{store="redis"} 0.0' in metrics


async def test_records_are_shown_while_redis_is_away(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    stage.services.hot = type(stage.services.hot)("redis://127.0.0.1:9/0")
    shown = await stage.get("/v1/feeds/crypto")
    assert (shown["workers"], shown["live"]) == (2, [])
    assert "not available" in shown["note"]
    await stage.refused(503, "not_ready", "GET", "/v1/cluster")


async def test_everyone_sees_the_own_part_of_the_cluster(stage: Stage) -> None:
    key = await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    await stage.services.hot.put("cluster", _view(), 60)
    every = await stage.get("/v1/cluster")
    assert len(every["actors"]) == 4
    assert every["missing"] == ["session/bo"]
    mine = await stage.get("/v1/cluster", key=key)
    assert [actor["name"] for actor in mine["actors"]] == ["risk/main", "session/asha", "algo/momo-1/3"]
    assert mine["missing"] == []
    assert 0 <= mine["age_s"] < 10


async def test_metrics_count_requests_orders_algos_workers_and_actors(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    await stage.make("/v1/orders", order_body())
    await stage.refused(404, "unknown_feed", "GET", "/v1/feeds/nothing")
    await stage.services.hot.put("cluster", _view(), 60)
    one = {"id": BTC, "phase": "live", "ticks": 5, "age_s": 0.2, "state": "live", "reason": ""}
    worker = {"feed": "crypto", "shard": 1, "at": time.time_ns(), "ticks": 81, "rate": 9.5, "instruments": [one]}
    await stage.services.hot.put("worker:crypto:1", worker, 30)
    text = (await stage.http.get("/metrics")).text
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return found[(name, tuple(sorted(labels.items())))]

    assert value("quarterdeck_http_requests_total", method="POST", route="/v1/orders", status="201") == 1
    assert value("quarterdeck_http_requests_total", method="GET", route="/v1/feeds/{id}", status="404") == 1
    assert value("quarterdeck_http_request_seconds_count", method="POST", route="/v1/orders") == 1
    assert value("quarterdeck_orders", state="pending") == 1
    assert value("quarterdeck_algos", state="stopped") == 1
    assert value("quarterdeck_open_breaks") == 0
    assert value("quarterdeck_feed_worker_ticks", feed="crypto", shard="1") == 81
    assert value("quarterdeck_feed_worker_ticks_per_second", feed="crypto", shard="1") == 9.5
    assert 0.2 <= value("quarterdeck_feed_worker_age_seconds", feed="crypto", shard="1") < 10
    assert value("quarterdeck_actors", kind="session", state="ready") == 1
    assert value("quarterdeck_store_up", store="postgres") == 1


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_link_makes_a_supervisor_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ActorSpec] = []
    trouble: list[Exception] = [NotReady("the head does not answer"), RuntimeError("odd")]

    def connect(_: DeckSettings) -> None:
        if trouble:
            raise trouble.pop()

    def spawn(spec: ActorSpec) -> None:
        made.append(spec)
        raise Conflict("actor_exists", "somebody was faster")

    monkeypatch.setattr("api.link.CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(runtime, "connect", connect)
    monkeypatch.setattr(runtime, "running", lambda: {SUPERVISOR} if made else set())
    monkeypatch.setattr(runtime, "spawn", spawn)
    link = Link(DeckSettings(REDIS_URL="redis://127.0.0.1:9/0"))  # type: ignore[call-arg]
    assert link.trouble
    task = asyncio.create_task(link.run())
    await _until(lambda: "odd" in link.trouble)
    await _until(lambda: "head does not answer" in link.trouble)
    await _until(lambda: link.trouble == "")
    await asyncio.sleep(0.1)
    task.cancel()
    assert [(spec.name, spec.args) for spec in made] == [(SUPERVISOR, ("main",))]


async def test_a_task_that_fails_unexpectedly_is_begun_again_and_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise ValueError("nobody thought of it")
        done.set()
        await asyncio.Event().wait()

    services = stage.services
    before = services.hub.newest
    services.run(work, "the work of this test")
    async with asyncio.timeout(20):
        await done.wait()
    assert services.hub.after(before)[0].change is None
    (said,) = [each for each in await services.missing() if "this test" in each]
    assert said == "the work of this test failed (ValueError): the log says more"
    monkeypatch.setattr("api.services._CALM_S", 0.0)
    assert not [each for each in await services.missing() if "this test" in each]
