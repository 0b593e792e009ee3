"""Second providers over REST: what may stand by for what, who is a client because of it, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.api.playing import BTC, ETH, Stage, instrument

SECONDS = "/v1/feeds/crypto/seconds"
SOL = "BINANCE:SOLUSDT"
OTHER = {"feed": "other"}


@pytest.fixture
async def fed(stage: Stage) -> Stage:
    """Feed `crypto` with BTC and ETH of its own, feed `other` with SOL."""
    await stage.trading()
    odd = msgspec.structs.replace(instrument("BINANCE:ODDUSDT"), tick_size=instrument(BTC).tick_size * 3)
    await stage.services.instruments.upsert([instrument(SOL), odd])
    await stage.fed()
    await made(stage, "other", [SOL])
    return stage


async def made(stage: Stage, name: str, instruments: list[str], **more: Any) -> dict[str, Any]:
    body = {"id": name, "provider": "binance-spot", "instruments": instruments, **more}
    answer = await stage.ask("POST", "/v1/feeds", body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def put(stage: Stage, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await stage.ask("PUT", path, body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def clients(stage: Stage, feed: str) -> dict[str, dict[str, list[str]]]:
    return {each["client"]: each["instruments"] for each in (await stage.get(f"/v1/feeds/{feed}/clients"))["items"]}


async def test_a_feed_is_a_client_of_those_that_stand_by_for_it(fed: Stage) -> None:
    shown = await put(fed, f"{SECONDS}/{BTC}", OTHER)
    assert shown == {"feed": "crypto", "seconds": {BTC: {"feed": "other", "instrument": BTC}}, "stands_by_for": []}
    assert await fed.get(SECONDS) == shown
    assert (await fed.get("/v1/feeds/other/seconds"))["stands_by_for"] == ["crypto"]
    assert (await fed.get("/v1/feeds/crypto"))["seconds"] == shown["seconds"]
    assert await clients(fed, "other") == {
        "feed": {SOL: ["trade", "quote"]},
        "second:crypto": {BTC: ["trade", "quote"]},
    }
    assert (await fed.get("/v1/feeds/other"))["capacity"]["wanted"] == 2
    # Another one for ETH, by another name; then only that.
    await put(fed, SECONDS, {"seconds": {BTC: OTHER, ETH: {"feed": "other", "instrument": SOL}}})
    assert (await clients(fed, "other"))["second:crypto"] == {BTC: ["trade", "quote"], SOL: ["trade", "quote"]}
    left = await fed.ask("DELETE", f"{SECONDS}/{BTC}")
    assert left.json()["seconds"] == {ETH: {"feed": "other", "instrument": SOL}}
    assert (await fed.ask("DELETE", SECONDS)).status_code == 204
    assert list(await clients(fed, "other")) == ["feed"]
    await fed.refused(404, "unknown_second", "DELETE", f"{SECONDS}/{BTC}")


async def test_nothing_is_wanted_of_the_other_feed_for_what_nobody_wants_of_the_first(fed: Stage) -> None:
    await put(fed, f"{SECONDS}/{BTC}", OTHER)
    assert (await fed.ask("PATCH", "/v1/feeds/crypto", {"channels": ["trade"]})).status_code == 200
    assert (await clients(fed, "other"))["second:crypto"] == {BTC: ["trade"]}
    assert (await fed.ask("DELETE", f"/v1/feeds/crypto/instruments/{BTC}")).status_code == 200
    assert list(await clients(fed, "other")) == ["feed"]
    wish = await fed.ask("PUT", "/v1/feeds/crypto/clients/momo/instruments", {"instruments": [BTC]})
    assert wish.status_code == 200
    assert (await clients(fed, "other"))["second:crypto"] == {BTC: ["trade"]}
    assert (await fed.ask("PATCH", "/v1/feeds/crypto", {"enabled": False})).status_code == 200
    assert list(await clients(fed, "other")) == ["feed"]


async def test_seconds_are_set_when_a_feed_is_made(fed: Stage) -> None:
    feed = await made(fed, "third", [BTC], seconds={BTC: OTHER})
    assert feed["seconds"] == {BTC: {"feed": "other", "instrument": BTC}}
    body = {"id": "fourth", "provider": "binance-spot", "instruments": [BTC], "seconds": {BTC: {"feed": "none"}}}
    problem = await fed.refused(422, "unknown_feed", "POST", "/v1/feeds", body)
    assert problem["field"] == f"seconds.{BTC}.feed"
    await fed.refused(404, "unknown_feed", "GET", "/v1/feeds/fourth")


@pytest.mark.parametrize(
    ("first", "second", "code", "field", "says"),
    [
        (BTC, {"feed": "none"}, "unknown_feed", "feed", "none"),
        (BTC, {"feed": "crypto"}, "bad_input", "feed", "the feed itself"),
        (SOL, OTHER, "bad_input", "instrument", "not among the instruments of feed crypto"),
        (BTC, {"feed": "other", "instrument": "nonsense"}, "bad_input", "instrument", "not an instrument"),
        (BTC, {"feed": "other", "instrument": "BINANCE:ODDUSDT"}, "bad_input", "instrument", "tick size"),
    ],
)
async def test_what_cannot_stand_by_is_refused_with_the_field(
    fed: Stage, first: str, second: dict[str, str], code: str, field: str, says: str
) -> None:
    for path, body, where in (
        (f"{SECONDS}/{first}", second, field),
        (SECONDS, {"seconds": {first: second}}, f"seconds.{first}.{field}"),
    ):
        answer = await fed.ask("PUT", path, body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (422, code, where), problem
        assert says in problem["detail"]
    assert (await fed.get(SECONDS))["seconds"] == {}


async def test_a_circle_and_one_that_stands_by_twice_are_refused(fed: Stage) -> None:
    await made(fed, "third", [BTC, ETH])
    await put(fed, f"{SECONDS}/{BTC}", {"feed": "third"})
    await put(fed, f"/v1/feeds/third/seconds/{BTC}", OTHER)
    wish = await fed.ask("PUT", "/v1/feeds/other/clients/momo/instruments", {"instruments": [BTC, ETH]})
    assert wish.status_code == 200
    problem = (await fed.ask("PUT", f"/v1/feeds/other/seconds/{BTC}", {"feed": "crypto"})).json()
    assert (problem["code"], problem["field"]) == ("bad_input", "feed")
    assert "crypto/BINANCE:BTCUSDT → third/BINANCE:BTCUSDT → other/BINANCE:BTCUSDT" in problem["detail"]
    # Of another instrument it is no circle.
    await put(fed, f"/v1/feeds/other/seconds/{ETH}", {"feed": "crypto"})
    twice = {BTC: {"feed": "third", "instrument": ETH}, ETH: {"feed": "third"}}
    answer = await fed.ask("PUT", SECONDS, {"seconds": twice})
    assert (answer.status_code, answer.json()["field"]) == (422, "seconds")


async def test_a_feed_without_room_or_channels_in_common_cannot_stand_by(fed: Stage) -> None:
    many = [f"BINANCE:X{n}USDT" for n in range(256)]
    await fed.services.instruments.upsert([instrument(each) for each in many])
    await made(fed, "full", many)
    problem = (await fed.ask("PUT", f"{SECONDS}/{BTC}", {"feed": "full"})).json()
    assert problem["field"] == "feed"
    assert "feed full cannot stand by: 1 new instruments do not fit" in problem["detail"]
    await put(fed, f"{SECONDS}/{BTC}", OTHER)
    await made(fed, "bars", [BTC], channels=["bar"])
    problem = (await fed.ask("PUT", f"/v1/feeds/bars/seconds/{BTC}", OTHER)).json()
    assert "neither trades nor quotes" in problem["detail"]


async def test_a_feed_that_stands_by_is_deleted_by_force_only(fed: Stage) -> None:
    await put(fed, f"{SECONDS}/{BTC}", OTHER)
    before = (await fed.get("/v1/feeds/crypto"))["generation"]
    problem = (await fed.ask("DELETE", "/v1/feeds/other")).json()
    assert problem["code"] == "feed_in_use"
    assert "stands by for feeds (crypto)" in problem["detail"]
    assert (await fed.ask("DELETE", "/v1/feeds/other?force=true")).status_code == 204
    after = await fed.get("/v1/feeds/crypto")
    assert (after["seconds"], after["generation"]) == ({}, before + 1)
    notes = (await fed.get("/v1/audit?subject=crypto"))["items"]
    assert "feed other was deleted by force" in str(notes[0])


async def test_how_seconds_go_is_shown_and_measured(fed: Stage) -> None:
    stats = {
        "feed": "other", "instrument": BTC, "in_use": True, "since": 1_700_000_000_000_000_000, "switches": 3,
        "doubles": 2, "late": 1, "heard_at": 0,
    }  # fmt: skip
    shown = {
        "id": BTC, "phase": "live", "ticks": 5, "age_s": 9.0, "state": "stale", "reason": "silent", "since": 1,
        "patience_s": 5.0, "rate": 0.0, "gaps": 0, "quarantined": 0, "skew_ms": None, "skew_p99_ms": None,
        "polled": True, "second": stats,
    }  # fmt: skip
    worker = {
        "feed": "crypto", "shard": 0, "epoch": 1, "node": "head", "connected": True, "reason": "", "at": 1,
        "ticks": 5, "rate": 1.0, "batches": 2, "garbage": 0, "reconnects": 0, "unpublished": 0, "from_second": 7,
        "by_second": 1, "second_switches": 3, "second_doubles": 2, "second_lost": 0, "instruments": [shown],
    }  # fmt: skip
    await fed.services.hot.put("worker:crypto:0", worker, ttl_s=30)
    found = {each["id"]: each["second"] for each in (await fed.get("/v1/feeds/crypto/instruments"))["items"]}
    assert found[ETH] is None
    assert {**found[BTC], "since": None} == {**stats, "since": None, "heard_at": None}
    assert (await fed.get("/v1/feeds/crypto"))["live"][0]["second_switches"] == 3
    text = (await fed.ask("GET", "/metrics")).text
    of = 'feed="crypto",shard="0"'
    for line in (
        f"quarterdeck_feed_instruments_by_second{{{of}}} 1.0",
        f"quarterdeck_feed_worker_from_second{{{of}}} 7.0",
        f"quarterdeck_feed_worker_second_switches{{{of}}} 3.0",
        f"quarterdeck_feed_worker_second_doubles{{{of}}} 2.0",
    ):
        assert line in text
