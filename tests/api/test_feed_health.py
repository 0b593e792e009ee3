"""What REST tells of a feed's instruments, refused ticks and gaps, and how it is tuned."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import numpy as np
import pytest

from api import feed_rows
from storage.records import FeedGap
from tests.api.playing import BTC, ETH, Stage
from trading.feed_tuning import Tuning
from trading.ids import FeedId, InstrumentId, Nanos
from trading.ticks import QUOTE, TICK, TRADE

SECOND = 1_000_000_000
FEED = FeedId("crypto")


@pytest.fixture
async def feed(stage: Stage, venue: str) -> Stage:
    body = {"id": FEED, "provider": "binance-spot", "settings": {"base_url": venue}, "instruments": [BTC, ETH]}
    await stage.make("/v1/feeds", body)
    return stage


def instrument_stats(id_: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "phase": "live",
        "ticks": 10,
        "age_s": 0.5,
        "state": "live",
        "reason": "",
        "since": 5 * SECOND,
        "patience_s": 5.0,
        "rate": 20.0,
        "gaps": 1,
        "quarantined": 2,
        "skew_ms": 1.5,
        "skew_p99_ms": 8.0,
        "polled": False,
        **changes,
    }


def worker_stats(shard: int, *instruments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(
        (
            "ticks", "batches", "garbage", "reconnects", "unpublished", "received", "quarantined", "withheld",
            "backfilled", "polled", "resubscribed", "given_up", "gaps", "unfilled_gaps",
        ),
        3,
    )  # fmt: skip
    return {
        "feed": FEED, "shard": shard, "epoch": 1, "node": "head", "connected": True, "reason": "",
        "at": time.time_ns(), "rate": 2.0, **counts, "refused_ticks": {"crossed": 2, "out_of_band": 1},
        "states": {"pending": 0, "live": 1, "stale": 1, "failed": 0}, "skew_ms": 2.5,
        "instruments": list(instruments), **changes,
    }  # fmt: skip


async def test_instruments_are_listed_with_their_state_and_last_tick(feed: Stage) -> None:
    url = f"/v1/feeds/{FEED}/instruments"
    found = (await feed.get(url))["items"]
    assert [(each["id"], each["state"], each["shard"], each["reason"]) for each in found] == [
        (BTC, "pending", None, "no worker carries it now"),
        (ETH, "pending", None, "no worker carries it now"),
    ]
    hot = feed.services.hot
    stale = instrument_stats(ETH, state="stale", reason="silent for 9 s", polled=True)
    await hot.put(f"worker:{FEED}:0", worker_stats(0, instrument_stats(BTC, phase="muted"), stale), 30)
    await hot.put(f"worker:{FEED}:1", worker_stats(1, instrument_stats(BTC)), 30)
    number = (await feed.get(f"/v1/instruments/{BTC}"))["number"]
    rows = np.zeros(1, dtype=TICK)
    nan = float("nan")
    rows[0] = (number, TRADE | QUOTE, 100.5, 2.0, 100.0, 1.0, nan, nan, 7 * SECOND, 8 * SECOND, 42)
    await hot.put(f"last:{FEED}:1", rows.tobytes(), 30)
    btc, eth = (await feed.get(url))["items"]
    assert (btc["shard"], btc["phase"], btc["gaps"], btc["quarantined"], btc["skew_p99_ms"]) == (1, "live", 1, 2, 8.0)
    assert btc["since"] == "1970-01-01T00:00:05.000000000+00:00"
    assert btc["last"] == {
        "price": 100.5, "size": 2.0, "bid": 100.0, "bid_size": 1.0, "ask": None, "ask_size": None,
        "exchange_at": "1970-01-01T00:00:07.000000000+00:00", "received_at": "1970-01-01T00:00:08.000000000+00:00",
        "sequence": 42,
    }  # fmt: skip
    assert (eth["state"], eth["reason"], eth["polled"], eth["last"]) == ("stale", "silent for 9 s", True, None)
    assert [each["id"] for each in (await feed.get(f"{url}?state=stale"))["items"]] == [ETH]
    page = await feed.get(f"{url}?limit=1")
    assert [each["id"] for each in page["items"]] == [BTC]
    assert [each["id"] for each in (await feed.get(f"{url}?limit=1&cursor={page['next']}"))["items"]] == [ETH]
    await feed.refused(404, "unknown_feed", "GET", "/v1/feeds/nothing/instruments")


async def test_a_window_of_instruments_is_sorted_and_filtered_here(
    feed: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_rows, "FRESH_S", 0.0)
    url = f"/v1/feeds/{FEED}/instruments/window"
    names = [f"BINANCE:X{n:02}" for n in range(8)]
    rows = [
        instrument_stats(
            name, age_s=None if n == 3 else float(n % 5), rate=float(n), state="stale" if n % 4 == 0 else "live"
        )
        for n, name in enumerate(names)
    ]
    await feed.services.hot.put(f"worker:{FEED}:0", worker_stats(0, *rows[:4]), 30)
    await feed.services.hot.put(f"worker:{FEED}:1", worker_stats(1, *rows[4:]), 30)

    async def shown(query: str) -> list[str]:
        return [each["id"].removeprefix("BINANCE:") for each in (await feed.get(f"{url}?{query}"))["items"]]

    whole = await feed.get(url)
    assert (whole["total"], whole["offset"], len(whole["items"])) == (10, 0, 10)
    assert whole["states"] == {"live": 6, "pending": 2, "stale": 2}
    assert whole["items"] == (await feed.get(f"/v1/feeds/{FEED}/instruments"))["items"]
    assert await shown("sort=-rate&limit=3") == ["X07", "X06", "X05"]
    assert await shown("sort=-rate&limit=3&offset=3") == ["X04", "X03", "X02"]
    # What is alike by name, also where the largest come first; what is not known last.
    assert await shown("sort=age_s&search=x0") == ["X00", "X05", "X01", "X06", "X02", "X07", "X04", "X03"]
    assert await shown("sort=-age_s&search=X0") == ["X04", "X02", "X07", "X01", "X06", "X00", "X05", "X03"]
    assert await shown("search=no%20worker") == ["BTCUSDT", "ETHUSDT"]
    stale = await feed.get(f"{url}?state=stale&limit=1")
    assert (stale["total"], stale["states"], stale["items"][0]["id"]) == (2, whole["states"], "BINANCE:X00")
    assert await shown("offset=50") == []
    for query in ("sort=name", "offset=-1", "limit=5000", "state=gone", "colour=red", "where=rate", "where=name:x"):
        assert (await feed.ask("GET", f"{url}?{query}")).status_code == 422, query
    await feed.refused(404, "unknown_feed", "GET", "/v1/feeds/nothing/instruments/window")


async def test_a_window_is_filtered_by_each_column_and_sorted_by_prices(
    feed: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_rows, "FRESH_S", 0.0)
    url = f"/v1/feeds/{FEED}/instruments/window"
    second = {
        "feed": "spare", "instrument": BTC, "in_use": False, "since": 0, "switches": 0, "doubles": 0, "late": 0,
        "heard_at": SECOND,
    }  # fmt: skip
    btc = instrument_stats(BTC, rate=20.0, second=second)
    eth = instrument_stats(ETH, rate=2.5, state="stale", reason="Silent for 9 s", patience_s=60.0)
    other = instrument_stats("BINANCE:X00", rate=0.0)
    await feed.services.hot.put(f"worker:{FEED}:0", worker_stats(0, btc, eth, other), 30)
    known = await feed.services.instruments.get([InstrumentId(BTC), InstrumentId(ETH)])
    rows = np.zeros(2, dtype=TICK)
    for row, instrument, price in zip(rows, known, (41_000.5, 2_500.0), strict=True):
        row["instrument"], row["price"], row["flags"], row["received_at"] = instrument.number, price, TRADE, SECOND
    await feed.services.hot.put(f"last:{FEED}:0", rows.tobytes(), 30)

    async def shown(query: str) -> list[str]:
        found = await feed.get(f"{url}?{query}")
        assert found["total"] == len(found["items"])
        return [each["id"].removeprefix("BINANCE:") for each in found["items"]]

    assert await shown("where=rate:>=2.5") == ["BTCUSDT", "ETHUSDT"]
    assert await shown("where=rate:>=2.5&where=id:eth") == ["ETHUSDT"]
    # A part of it as it is shown, and nothing that is not known.
    assert await shown("where=rate:20") == ["BTCUSDT"]
    assert await shown("where=rate:.0") == []
    assert await shown("where=reason:silent") == ["ETHUSDT"]
    assert await shown("where=standby:spare") == ["BTCUSDT"]
    assert await shown("where=patience_s:>5&where=shard:=0") == ["ETHUSDT"]
    assert await shown("where=id:") == ["BTCUSDT", "ETHUSDT", "X00"]
    assert await shown("where=last:>3000") == ["BTCUSDT"]
    assert await shown("sort=last") == ["ETHUSDT", "BTCUSDT", "X00"]
    assert await shown("sort=-last") == ["BTCUSDT", "ETHUSDT", "X00"]
    (first, *_) = (await feed.get(f"{url}?sort=-last&limit=1"))["items"]
    assert first["last"]["price"] == 41_000.5


async def test_many_who_look_at_different_windows_cost_one_reading(
    feed: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    real = feed.services.look_all

    async def counted(prefix: str) -> Any:
        nonlocal reads
        reads += prefix == f"worker:{FEED}:"
        return await real(prefix)

    monkeypatch.setattr(feed.services, "look_all", counted)
    monkeypatch.setattr(feed_rows, "FRESH_S", 30.0)
    url = f"/v1/feeds/{FEED}/instruments/window"
    await asyncio.gather(*(feed.get(f"{url}?offset={n}") for n in range(30)))
    assert reads == 1


async def test_refused_ticks_are_shown_by_instrument_and_counted_by_reason(feed: Stage) -> None:
    url = f"/v1/feeds/{FEED}/quarantine"
    empty = await feed.get(url)
    assert (empty["items"], empty["counts"]) == ([], {})
    tick = {
        "reason": "out_of_band", "instrument": 1, "flags": 1, "price": 1.0, "size": 2.0, "bid": None, "bid_size": None,
        "ask": None, "ask_size": None, "exchange_at": SECOND, "received_at": 2 * SECOND, "sequence": 3,
        "reference": 100.0, "width": 0.5,
    }  # fmt: skip
    hot = feed.services.hot
    for shard, received in ((0, 9 * SECOND), (1, 4 * SECOND)):
        await hot.put(f"worker:{FEED}:{shard}", worker_stats(shard), 30)
        part = {"instrument": BTC, "shard": shard, "counts": {"out_of_band": 1 + shard}}
        last = [{**tick, "received_at": received}]
        await hot.put(f"quarantine:{FEED}:{shard}:{BTC}", {**part, "last": last}, 30)
    found = await feed.get(url)
    assert found["counts"] == {"crossed": 4, "out_of_band": 2}
    (shown,) = found["items"]
    assert (shown["instrument"], shown["counts"]) == (BTC, {"out_of_band": 3})
    assert [each["received_at"][17:19] for each in shown["last"]] == ["04", "09"]
    assert (shown["last"][0]["reference"], shown["last"][0]["bid"]) == (100.0, None)
    assert (await feed.get(f"{url}?instrument={ETH}"))["items"] == []
    await feed.refused(404, "unknown_instrument", "GET", f"{url}?instrument=BINANCE:NOPE")


async def test_gaps_are_told_newest_first_by_page(feed: Stage) -> None:
    url = f"/v1/feeds/{FEED}/gaps"
    gaps = [
        FeedGap(
            feed=FEED, shard=0, instrument=InstrumentId(name), since=Nanos(at * SECOND), until=Nanos((at + 2) * SECOND),
            reason="it fell silent",
        )
        for at, name in ((10, BTC), (20, ETH), (30, BTC))
    ]  # fmt: skip
    first, *_ = await feed.services.feed_gaps.add(gaps)

    await feed.services.feed_gaps.settle(msgspec.structs.replace(first, state="filled", trades=7))
    page = await feed.get(f"{url}?limit=2")
    assert [(each["instrument"], each["state"], each["since"][17:19]) for each in page["items"]] == [
        (BTC, "waiting", "30"),
        (ETH, "waiting", "20"),
    ]
    (last,) = (await feed.get(f"{url}?limit=2&cursor={page['next']}"))["items"]
    assert (last["state"], last["trades"], last["reason"]) == ("filled", 7, "it fell silent")
    assert len((await feed.get(f"{url}?instrument={BTC}"))["items"]) == 2
    span = "since=1970-01-01T00:00:15Z&until=1970-01-01T00:00:25Z"
    assert [each["instrument"] for each in (await feed.get(f"{url}?{span}"))["items"]] == [ETH]
    await feed.services.feed_gaps.abandon(FEED, 0, "the worker ended")
    assert [each["state"] for each in (await feed.get(url))["items"]] == []  # older than ninety days


async def test_filter_and_patience_are_tuned_for_a_feed_and_for_one_instrument(feed: Stage) -> None:
    url = f"/v1/feeds/{FEED}/tuning"
    (default,) = await feed.get(url)
    assert (default["instrument"], default["filter"]) == (None, {})
    assert default["in_force"]["filter"]["band_floor"] == 0.005
    answer = await feed.ask("PUT", url, {"filter": {"band_floor": 0.01, "off": ["crossed"]}, "freshness": {"gaps": 6}})
    assert answer.status_code == 200, answer.text
    answer = await feed.ask("PUT", f"{url}/{BTC}", {"filter": {"size_limit": 500}})
    assert answer.json()["in_force"]["filter"]["band_floor"] == 0.01
    whole, own = await feed.get(url)
    assert (whole["filter"], whole["freshness"]) == ({"band_floor": 0.01, "off": ["crossed"]}, {"gaps": 6})
    assert (own["instrument"], own["filter"], own["in_force"]["freshness"]["gaps"]) == (BTC, {"size_limit": 500}, 6.0)
    stored, each = await feed.services.feed_tunings.of(FEED)
    assert stored == Tuning(filter={"band_floor": 0.01, "off": ["crossed"]}, freshness={"gaps": 6})
    assert each == {BTC: Tuning(filter={"size_limit": 500})}
    audit = [(entry.action, entry.subject) for entry in await feed.services.desired.audit_of(FEED)]
    assert ("tune_feed", FEED) in audit
    assert (await feed.ask("DELETE", f"{url}/{BTC}")).status_code == 204
    assert len(await feed.get(url)) == 1
    assert (await feed.ask("PUT", url, {})).json()["filter"] == {}
    assert await feed.services.feed_tunings.of(FEED) == (Tuning(), {})


@pytest.mark.parametrize(
    ("where", "body", "status", "code", "field"),
    [
        ("", {"filter": {"band": 1}}, 422, "bad_input", "filter.band"),
        ("", {"filter": {"band_floor": "wide"}}, 422, "bad_input", "filter.band_floor"),
        ("", {"filter": {"off": ["dark"]}}, 422, "bad_input", "off"),
        ("", {"freshness": {"least_s": -1}}, 422, "bad_input", "least_s"),
        ("", {"patience": {}}, 422, None, None),
        (f"/{BTC}", {"freshness": {"step": 1}}, 422, "bad_input", "freshness.step"),
        ("/BINANCE:NOPE", {}, 404, "unknown_instrument", None),
    ],
)
async def test_tuning_that_makes_no_sense_is_refused_by_name_and_changes_nothing(
    feed: Stage, where: str, body: dict[str, Any], status: int, code: str | None, field: str | None
) -> None:
    answer = await feed.ask("PUT", f"/v1/feeds/{FEED}/tuning{where}", body)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["code"] == code
    if field is not None:
        assert answer.json()["field"] == field
    assert await feed.services.feed_tunings.of(FEED) == (Tuning(), {})


@pytest.mark.parametrize("where", ["", f"/{BTC}"])
async def test_a_tuning_is_set_only_on_the_one_that_was_seen(feed: Stage, where: str) -> None:
    url = f"/v1/feeds/{FEED}/tuning{where}"
    nothing: dict[str, Any] = {"filter": {}, "freshness": {}}
    theirs = {"filter": {"band_floor": 0.01}, "freshness": {"gaps": 6}}
    assert (await feed.ask("PUT", url, {**theirs, "seen": nothing})).status_code == 200
    mine = {"filter": {"band_floor": 0.02}}
    said = await feed.refused(409, "tuning_moved", "PUT", url, {**mine, "seen": nothing})
    assert {name: said["present"][name] for name in ("filter", "freshness")} == theirs
    assert said["present"]["instrument"] == (BTC if where else None)
    assert said["present"]["in_force"]["filter"]["band_floor"] == 0.01
    whole, own = await feed.services.feed_tunings.of(FEED)
    assert (own[BTC] if where else whole) == Tuning(filter={"band_floor": 0.01}, freshness={"gaps": 6.0})
    assert (await feed.ask("PUT", url, {**mine, "seen": theirs})).json()["filter"] == {"band_floor": 0.02}
    # Who does not say what they saw sets it whatever there is, as ever.
    assert (await feed.ask("PUT", url, {"filter": {"band_floor": 0.03}})).status_code == 200


async def test_of_two_tunings_at_once_on_what_both_saw_one_is_refused(feed: Stage) -> None:
    url, seen = f"/v1/feeds/{FEED}/tuning", {"filter": {}, "freshness": {}}
    bodies = [{"filter": {"band_floor": floor}, "seen": seen} for floor in (0.01, 0.02, 0.03, 0.04)]
    answers = await asyncio.gather(*(feed.ask("PUT", url, body) for body in bodies))
    assert sorted(each.status_code for each in answers) == [200, 409, 409, 409]
    (won,) = [each.json()["filter"] for each in answers if each.status_code == 200]
    assert (await feed.get(url))[0]["filter"] == won


async def test_a_feed_setting_that_an_instruments_own_makes_senseless_is_refused(feed: Stage) -> None:
    url = f"/v1/feeds/{FEED}/tuning"
    await feed.ask("PUT", f"{url}/{BTC}", {"freshness": {"most_s": 100}})
    said = await feed.refused(422, "bad_input", "PUT", url, {"freshness": {"least_s": 200}})
    assert BTC in said["detail"]


async def test_metrics_tell_of_bad_ticks_states_and_gaps(feed: Stage) -> None:
    await feed.services.hot.put(f"worker:{FEED}:0", worker_stats(0, instrument_stats(BTC)), 30)
    text = (await feed.ask("GET", "/metrics")).text
    of = '{feed="crypto",shard="0"'
    for line in (
        f"quarterdeck_feed_worker_quarantined{of}}} 3.0",
        f"quarterdeck_feed_worker_backfilled{of}}} 3.0",
        'quarterdeck_feed_refused_ticks{feed="crypto",reason="crossed",shard="0"} 2.0',
        'quarterdeck_feed_instruments{feed="crypto",shard="0",state="stale"} 1.0',
        f"quarterdeck_feed_worker_skew_seconds{of}}} 0.0025",
        f"quarterdeck_feed_worker_longest_silence_seconds{of}}} 0.5",
    ):
        assert line in text, line


async def test_what_only_a_client_wants_is_listed_and_tuned_as_well(feed: Stage, venue: str) -> None:
    sol = "BINANCE:SOLUSDT"
    await feed.refused(404, "unknown_instrument", "PUT", f"/v1/feeds/crypto/tuning/{sol}", {"filter": {}})
    wanted = await feed.ask("PUT", "/v1/feeds/crypto/clients/momo/instruments", {"instruments": [sol]})
    assert wanted.status_code == 200, wanted.text
    listed = (await feed.get("/v1/feeds/crypto/instruments"))["items"]
    assert {each["id"]: each["state"] for each in listed} == {BTC: "pending", ETH: "pending", sol: "pending"}
    tuned = await feed.ask("PUT", f"/v1/feeds/crypto/tuning/{sol}", {"freshness": {"least_s": 3.0}})
    assert tuned.status_code == 200, tuned.text
    assert (await feed.get(f"/v1/feeds/crypto/quarantine?instrument={sol}"))["items"] == []
