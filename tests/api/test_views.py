"""Topics ``view:<path>`` on `/v1/stream`: what a GET answers, pushed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from api import feed_rows, glance, views
from api.routes import stream as route
from api.view_sources import MOST_VIEWS, PATHS
from api.views import Views
from storage.leases import Leases
from tests.api.playing import BTC, Stage, algo_body, order_body
from tests.api.test_feed_health import instrument_stats, worker_stats
from tests.support.patience import PATIENCE
from trading.errors import NotReady
from trading.ids import AccountId, AlgoId
from trading.journal import JournalBatch
from trading.positions import Position

#: What differs from one reading to the next.
_MOVING = re.compile(r'"(?:at|age_s|seen_at|[a-z_]*age[a-z_]*)": (?:"[^"]*"|[0-9.e+-]+|null)')


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are read often, each time anew, and looked at again soon."""
    monkeypatch.setattr(glance, "FRESH_S", 0.0)
    monkeypatch.setattr(feed_rows, "FRESH_S", 0.0)
    monkeypatch.setattr(views, "EVERY_S", 0.05)
    monkeypatch.setattr(route, "CHECK_S", 0.2)


@pytest.fixture
async def key(stage: Stage) -> str:
    """Asha has an account, a feed, an order open and an algo; her key."""
    key = await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    await stage.make("/v1/orders", order_body())
    risk = {"at": 1, "epoch": 1, "limits_version": 1, "exposure": [], "over": [], "levels": [], "limits": []}
    await stage.services.hot.put("risk", risk, 60)
    return key


@asynccontextmanager
async def listening(served: str, key: str, *topics: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": key, "topics": topics}))
        greeting = json.loads(await socket.recv())
        assert greeting["topics"] == list(topics)
        yield socket


async def until(socket: ClientConnection, good: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The first update that is good."""
    seen = []
    try:
        async with asyncio.timeout(20):
            while True:
                for update in json.loads(await socket.recv()).get("updates", ()):
                    seen.append(update)
                    if good(update):
                        return dict(update)
    except TimeoutError:
        raise AssertionError(f"it did not come; what came: {seen[-3:]}") from None


def still(body: Any) -> str:
    return _MOVING.sub("", json.dumps(body))


@pytest.mark.parametrize("path", PATHS)
async def test_a_view_is_what_the_route_answers(stage: Stage, served: str, key: str, path: str) -> None:
    feed = (await stage.ask("GET", "/v1/feeds")).json()["items"][0]["id"]
    path = path.replace("<id>", feed if path.startswith("feeds") else "momo-1")
    for who in (stage.operator_key, key):
        async with listening(served, who, f"view:{path}") as socket:
            update = await until(socket, lambda update: True)
        answer = await stage.ask("GET", f"/v1/{path}", key=who)
        assert answer.status_code == 200, answer.text
        assert (update["key"], update["topic"]) == (path, f"view:{path}")
        assert still(update["body"]) == still(answer.json())


async def test_only_what_has_changed_is_sent_and_now_and_then_all_of_it(
    stage: Stage, served: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "AGAIN_S", 1.0)
    async with listening(served, key, "view:deck") as socket:
        first = await until(socket, lambda update: True)
        assert first["body"]["open_orders"] == 1
        again = await until(socket, lambda update: True)
        assert again["n"] == first["n"] + 1
        assert again["body"] == {**first["body"], "at": again["body"]["at"]}
        await stage.make("/v1/orders", order_body("k-2"))
        changed = await until(socket, lambda update: update["body"]["open_orders"] == 2)
        assert changed["skipped"] == 0


async def test_what_happens_to_an_algo_and_what_it_holds_is_pushed_to_whom_the_get_tells_it(
    stage: Stage, served: str, key: str
) -> None:
    topics = ("view:algos/momo-1/events", "view:positions?algo=momo-1&flat=true")
    other = await stage.person("bo", "trader")
    async with listening(served, key, *topics) as socket, listening(served, other, *topics) as others:
        first = await until(socket, lambda update: update["topic"] == topics[0])
        held = await until(socket, lambda update: update["topic"] == topics[1])
        assert held["body"]["items"] == []
        for topic in topics:
            refused = await until(others, lambda update, topic=topic: update["topic"] == topic)  # type: ignore[misc]
            assert (refused["body"], refused["problem"]["code"]) == (None, "unknown_algo")
        assert [each["what"] for each in first["body"]["items"]] == [["created"]]
        assert (await stage.ask("POST", "/v1/algos/momo-1/start")).is_success
        changed = await until(socket, lambda update: update["topic"] == topics[0] and len(update["body"]["items"]) > 1)
        assert "want" in changed["body"]["items"][0]["what"]
        position = Position(account=AccountId("paper-1"), instrument=BTC, algo=AlgoId("momo-1"), realised=Decimal(3))
        epoch = await Leases(stage.services.database).take("session/test", "test", 60)
        journal = stage.services.journal
        await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(positions=[position])))
        traded = await until(socket, lambda update: update["topic"] == topics[1] and update["body"]["items"])
        assert (traded["body"]["items"][0]["realised"], traded["body"]["items"][0]["currency"]) == ("3", "USDT")
        given = await stage.ask("PUT", "/v1/grants/paper-1/bo", {"level": "view"})
        assert given.status_code < 300, given.text
        await until(others, lambda update: update["topic"] == topics[1] and update["body"] is not None)


async def test_views_are_watched_and_left_while_connected(stage: Stage, served: str, key: str) -> None:
    async with listening(served, key) as socket:
        await socket.send(json.dumps({"subscribe": ["view:deck", "view:risk/kills"]}))
        assert json.loads(await socket.recv())["topics"] == ["view:deck", "view:risk/kills"]
        await until(socket, lambda update: update["key"] == "risk/kills")
        await socket.send(json.dumps({"unsubscribe": ["view:deck"]}))
        async with asyncio.timeout(20):
            while (answer := json.loads(await socket.recv())).get("topics") is None:
                continue
        assert answer["topics"] == ["view:risk/kills"]
        await stage.make("/v1/orders", order_body("k-2"))
        await socket.send(json.dumps({"subscribe": ["view:orders"]}))
        async with asyncio.timeout(20):
            while "error" not in (answer := json.loads(await socket.recv())):
                assert {update["key"] for update in answer.get("updates", ())} <= {"risk/kills"}
        assert "no view 'orders'; there are deck, nodes" in answer["error"]
    async with asyncio.timeout(15):
        while len(stage.services.views):
            await asyncio.sleep(0.05)


async def test_what_cannot_be_read_is_told_as_a_problem_until_it_can(stage: Stage, served: str, key: str) -> None:
    async with listening(served, key, "view:feeds/none", "view:risk/exposure") as socket:
        update = await until(socket, lambda update: update["key"] == "feeds/none")
        assert update["body"] is None
        assert update["problem"]["code"] == "unknown_feed"
        await stage.services.hot.delete("risk")
        gone = await until(socket, lambda update: update.get("problem", {}).get("code") == "not_ready")
        assert gone["key"] == "risk/exposure"
        risk = {"at": 1, "epoch": 1, "limits_version": 1, "exposure": [], "over": [], "levels": [], "limits": []}
        await stage.services.hot.put("risk", risk, 60)
        await until(socket, lambda update: update["key"] == "risk/exposure" and update["body"] is not None)


async def test_of_a_long_list_only_the_window_that_is_looked_at_is_sent(stage: Stage, served: str, key: str) -> None:
    names = [f"BINANCE:X{n:04}" for n in range(3_000)]

    async def tell(tick: int) -> None:
        for shard in range(3):
            mine = [instrument_stats(each, age_s=n / 1000, ticks=tick, rate=n + 0.5) for n, each in enumerate(names)]
            await stage.services.hot.put(f"worker:crypto:{shard}", worker_stats(shard, *mine[shard::3]), 30)

    await tell(1)
    window = "view:feeds/crypto/instruments/window?sort=-rate&offset=100&limit=100"
    async with listening(served, key, window) as socket:
        update = await until(socket, lambda update: True)
        assert [each["id"] for each in update["body"]["items"]] == names[-101:-201:-1]
        assert update["body"]["total"] == 3_002
        await tell(2)
        changed = await until(socket, lambda update: update["body"]["items"][0]["ticks"] == 2)
        assert len(json.dumps(changed)) < 60_000, "a hundred rows"
        head = "view:feeds/crypto?instruments=false"
        await socket.send(json.dumps({"subscribe": [head, "view:feeds?instruments=false"]}))
        for topic in (head, "view:feeds?instruments=false"):
            counted = await until(socket, lambda update, topic=topic: update["topic"] == topic)  # type: ignore[misc]
            assert len(json.dumps(counted)) < 8_000, "how its workers go, and no instruments"
        both = "view:feeds/crypto/instruments/window?where=rate:%3E%3D10&where=rate:%3C13"
        await socket.send(json.dumps({"subscribe": [both]}))
        few = await until(socket, lambda update: update["topic"] == both)
        assert [each["rate"] for each in few["body"]["items"]] == [10.5, 11.5, 12.5]
        # Others are watched in its place while somebody scrolls.
        other = window.replace("offset=100", "offset=2900")
        await socket.send(json.dumps({"subscribe": [other], "unsubscribe": [window]}))
        scrolled = await until(socket, lambda update: update["topic"] == other)
        assert [each["id"] for each in scrolled["body"]["items"]][:2] == [names[99], names[98]]


async def test_a_grant_that_is_given_or_taken_shows_at_once(stage: Stage, served: str, key: str) -> None:
    other = await stage.person("bo", "viewer")
    async with listening(served, other, "view:deck") as socket:
        await until(socket, lambda update: update["body"]["accounts"] == [])
        given = await stage.ask("PUT", "/v1/grants/paper-1/bo", {"level": "view"})
        assert given.status_code < 300, given.text
        await until(socket, lambda update: [each["account"] for each in update["body"]["accounts"]] == ["paper-1"])
        taken = await stage.ask("DELETE", "/v1/grants/paper-1/bo")
        assert taken.status_code < 300, taken.text
        await until(socket, lambda update: update["body"]["accounts"] == [])


@pytest.mark.parametrize(
    ("topics", "reason"),
    [
        (["view:"], "no view ''"),
        (["view:feeds/"], "no view 'feeds/'"),
        (["view:feeds/a/b"], "no view 'feeds/a/b'"),
        (["view:deck?x=1"], "no view"),
        (["view:" + "x" * 500], "no view"),
        (["view:feeds/crypto/instruments/window?sort=name"], "sort: String should match"),
        (["view:feeds/crypto/instruments/window?where=rate%3E1"], "where.0: String should match"),
        (["view:feeds/crypto/instruments/window?a=1"], "a: Extra inputs"),
        (["view:feeds/crypto/instruments/window?" + "a=1&" * 40], "Max number of fields"),
        (["view:feeds/crypto/instruments/window?search=" + "x" * 2500], "no view"),
        ([f"view:algos/{n}" for n in range(MOST_VIEWS + 1)], f"a client may watch {MOST_VIEWS}"),
    ],
)
async def test_a_view_that_there_is_not_is_named(stage: Stage, served: str, topics: list[str], reason: str) -> None:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": stage.operator_key, "topics": topics}))
        async with asyncio.timeout(20):
            await socket.wait_closed()
        assert socket.close_code == route.BAD_HELLO
        assert reason in (socket.close_reason or "")


async def test_all_of_one_sight_share_one_reading_which_ends_with_the_last() -> None:
    reads = 0

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        return b"{}"

    shared = Views()
    news = [asyncio.Event() for _ in range(50)]
    seen = {shared.watch("asha", "deck", read, each) for each in news}
    other = shared.watch("bo", "deck", read, news[0])
    assert len(seen) == 1
    for each in news:
        await asyncio.wait_for(each.wait(), 2 * PATIENCE)
    assert reads <= 4
    for view in (*seen, other):
        for each in news:
            view.leave(each)
    async with asyncio.timeout(20):
        while len(shared):
            await asyncio.sleep(0.01)
    done = reads
    await asyncio.sleep(0.2)
    assert reads == done


async def test_readings_take_turns_and_rest_when_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = reads = 0

    async def read() -> bytes:
        nonlocal under_way, most, reads
        under_way, reads = under_way + 1, reads + 1
        most = max(most, under_way)
        await asyncio.sleep(0.1)
        under_way -= 1
        return b"{}"

    shared = Views()
    began = time.monotonic()
    for n in range(12):
        shared.watch(n, "deck", read, asyncio.Event())
    async with asyncio.timeout(20):
        while reads < 12:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.35)
    at_rest = reads
    took = time.monotonic() - began
    await shared.close()
    assert most == 4
    # Each had its turn once, and none has a second one within a second; without rests there would be twice as many.
    assert at_rest <= 12 * (1 + int(took)) + 4


async def test_a_reading_that_fails_unexpectedly_is_told_and_tried_again() -> None:
    answers: list[bytes | Exception] = [ValueError("a secret of ours"), NotReady("wait"), b'{"x":1}']

    async def read() -> bytes:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    shared, news = Views(), asyncio.Event()
    view = shared.watch("asha", "deck", read, news)
    told = []
    async with asyncio.timeout(20):
        while not told or told[-1]["body"] is None:
            await news.wait()
            news.clear()
            told.append(json.loads(view.written("view:deck", 0)))
    await shared.close()
    assert [each.get("problem", {}).get("code") for each in told] == ["internal_error", "not_ready", None]
    assert "secret" not in json.dumps(told)
