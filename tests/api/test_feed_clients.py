"""Several clients of one feed: counted by instrument, the widest wish wins, refused with what would fit."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from storage.records import NodeRecord
from tests.api.playing import BTC, ETH, Stage, algo_body, instrument
from trading.ids import FeedId, Nanos, NodeName

CLIENTS = "/v1/feeds/crypto/clients"
SOL = "BINANCE:SOLUSDT"
MANY = [f"BINANCE:X{n}USDT" for n in range(300)]


@pytest.fixture
async def fed(stage: Stage) -> Stage:
    """A feed of two workers with BTC and ETH of its own; 256 fit on each."""
    await stage.trading()
    await stage.services.instruments.upsert([instrument(each) for each in (SOL, *MANY)])
    await stage.fed()
    return stage


async def put(stage: Stage, client: str, instruments: list[str], channels: list[str] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"instruments": instruments, **({} if channels is None else {"channels": channels})}
    answer = await stage.ask("PUT", f"{CLIENTS}/{client}/instruments", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def wanted(stage: Stage) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for client in (await stage.get(CLIENTS))["items"]:
        for each, channels in client["instruments"].items():
            found.setdefault(each, set()).update(channels)
    return {each: sorted(channels) for each, channels in found.items()}


async def test_an_instrument_is_streamed_as_long_as_any_client_wants_it(fed: Stage) -> None:
    made = await put(fed, "momo", [SOL, BTC])
    assert made["instruments"] == {BTC: ["trade", "quote"], SOL: ["trade", "quote"]}
    assert (made["added"], made["removed"]) == ([SOL], [])
    assert (await put(fed, "panel", [SOL]))["added"] == []
    assert (await put(fed, "momo", [BTC]))["removed"] == []
    gone = (await fed.ask("DELETE", f"{CLIENTS}/panel/instruments/{SOL}")).json()
    assert (gone["removed"], gone["instruments"]) == ([SOL], {})
    assert await wanted(fed) == {BTC: ["quote", "trade"], ETH: ["quote", "trade"]}
    assert [c["client"] for c in (await fed.get(f"{CLIENTS}?instrument={BTC}"))["items"]] == ["feed", "momo"]
    # What the feed itself wants no more goes on for the client.
    assert (await fed.ask("DELETE", f"/v1/feeds/crypto/instruments/{BTC}")).status_code == 200
    assert set(await wanted(fed)) == {BTC, ETH}
    assert (await fed.ask("DELETE", f"{CLIENTS}/momo")).status_code == 204
    assert set(await wanted(fed)) == {ETH}


async def test_the_widest_wish_wins_and_is_taken_back(fed: Stage) -> None:
    await put(fed, "a", [SOL], ["trade"])
    wider = await put(fed, "b", [SOL], ["quote", "depth"])
    assert (wider["added"], wider["retuned"]) == ([], [SOL])
    assert (await wanted(fed))[SOL] == ["depth", "quote", "trade"]
    one = (await fed.ask("PUT", f"{CLIENTS}/b/instruments/{SOL}?channels=quote")).json()
    assert (one["retuned"], one["instruments"]) == ([SOL], {SOL: ["quote"]})
    assert (await put(fed, "b", []))["retuned"] == [SOL]
    await fed.refused(404, "unknown_client", "GET", f"{CLIENTS}/b")
    assert (await fed.get(f"{CLIENTS}/a"))["instruments"] == {SOL: ["trade"]}


async def test_a_wish_is_added_to_or_replaced(fed: Stage) -> None:
    await put(fed, "a", [SOL])
    more = await fed.ask("POST", f"{CLIENTS}/a/instruments", {"instruments": [ETH], "channels": ["trade"]})
    assert more.json()["instruments"] == {ETH: ["trade"], SOL: ["trade", "quote"]}
    assert (await put(fed, "a", [ETH]))["instruments"] == {ETH: ["trade", "quote"]}


async def test_capacity_is_shown_and_what_does_not_fit_is_refused_with_what_would(fed: Stage) -> None:
    before = await fed.get("/v1/feeds/crypto")
    assert before["capacity"] == {
        "provider": "binance-spot",
        "channels": ["trade", "quote", "depth", "bar", "book"],
        "instruments_per_worker": 256,
        "workers": 2,
        "max_workers": 20,
        "wanted": 2,
        "spare": 510,
        "spare_at_most": 5118,
    }
    assert (await fed.get("/v1/feeds"))["items"][0]["capacity"] is None
    await fed.ask("PATCH", "/v1/feeds/crypto", {"workers": 1})
    said = await fed.refused(422, "bad_input", "PUT", f"{CLIENTS}/a/instruments", {"instruments": MANY})
    assert said["field"] == "instruments"
    assert "1 workers have room for 254 more; 2 workers would carry all" in said["detail"]
    assert (await fed.get("/v1/feeds/crypto"))["generation"] == before["generation"] + 1
    await put(fed, "a", MANY[:254])
    # All clients count, whoever asks.
    said = await fed.refused(422, "bad_input", "PUT", f"/v1/feeds/crypto/instruments/{SOL}")
    assert "room for 0 more; 2 workers would carry all" in said["detail"]
    body = {"instruments": [BTC, ETH, SOL]}
    assert (await fed.refused(422, "bad_input", "PATCH", "/v1/feeds/crypto", body))["field"] == "instruments"
    assert (await fed.ask("PATCH", "/v1/feeds/crypto", {**body, "workers": 2})).json()["instruments"] == [BTC, ETH, SOL]
    assert (await fed.refused(422, "bad_input", "PATCH", "/v1/feeds/crypto", {"workers": 1}))["field"] == "workers"


@pytest.mark.parametrize(
    ("client", "body", "code", "field"),
    [
        ("a", {"instruments": ["btc"]}, "bad_input", "instruments"),
        ("a", {"instruments": [SOL, SOL]}, "bad_input", "instruments"),
        ("a", {"instruments": [SOL], "channels": ["smell"]}, "bad_input", "channels"),
        ("a", {"instruments": [SOL], "channels": []}, "bad_input", "channels"),
        ("a", {"instruments": ["BINANCE:OLDUSDT", SOL]}, "expired_instrument", "instruments"),
        ("Bad Client", {"instruments": [SOL]}, "bad_input", "client"),
        ("feed", {"instruments": [SOL]}, "bad_input", "client"),
        ("a", {}, "bad_input", "instruments"),
    ],
)
async def test_a_wrong_wish_is_refused_by_field(
    fed: Stage, client: str, body: dict[str, Any], code: str, field: str
) -> None:
    old = msgspec.structs.replace(instrument("BINANCE:OLDUSDT"), expires_on="2020-01-30")
    await fed.services.instruments.upsert([old])
    for method in ("PUT", "POST"):
        said = await fed.refused(422, code, method, f"{CLIENTS}/{client}/instruments", body)
        assert said["field"] == field
    assert await fed.services.wishes.of(FeedId("crypto")) == {}


async def test_unknown_instruments_clients_and_feeds_are_told_apart(stage: Stage, venue: str) -> None:
    await stage.make(
        "/v1/feeds",
        {"id": "crypto", "provider": "binance-spot", "settings": {"base_url": venue}, "instruments": [BTC]},
    )
    body = {"instruments": [ETH, "BINANCE:NOPE"]}
    said = await stage.refused(422, "unknown_instrument", "PUT", f"{CLIENTS}/a/instruments", body)
    assert (said["field"], said["unknown"]) == ("instruments", ["BINANCE:NOPE"])
    said = await stage.refused(422, "unknown_instrument", "PUT", f"{CLIENTS}/a/instruments/BINANCE:NOPE")
    assert said["field"] == "instrument"
    await stage.refused(404, "unknown_subscription", "DELETE", f"{CLIENTS}/a/instruments/{BTC}")
    await stage.refused(404, "unknown_feed", "PUT", "/v1/feeds/none/clients/a/instruments", {"instruments": []})
    await stage.refused(404, "unknown_feed", "GET", "/v1/feeds/none/clients")


async def test_what_a_running_algo_trades_is_not_taken_away_by_the_last_who_wants_it(fed: Stage) -> None:
    await fed.refused(422, "not_in_feed", "POST", "/v1/algos", algo_body(instruments=[SOL]))
    await put(fed, "a", [SOL])
    await put(fed, "b", [SOL])
    await fed.make("/v1/algos", algo_body(instruments=[SOL], start=True))
    await put(fed, "a", [])
    said = await fed.refused(409, "instrument_in_use", "DELETE", f"{CLIENTS}/b/instruments/{SOL}")
    assert "momo-1" in said["detail"]
    await fed.refused(409, "instrument_in_use", "DELETE", f"{CLIENTS}/b")
    await fed.ask("POST", "/v1/algos/momo-1/stop")
    assert (await fed.ask("DELETE", f"{CLIENTS}/b")).status_code == 204


async def test_clients_that_ask_at_once_all_get_their_way_and_never_more_than_fits(fed: Stage) -> None:
    await fed.ask("PATCH", "/v1/feeds/crypto", {"workers": 1})
    answers = await asyncio.gather(
        *(fed.ask("PUT", f"{CLIENTS}/c{n}/instruments", {"instruments": MANY[n * 50 : n * 50 + 50]}) for n in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [422]
    assert (await fed.get("/v1/feeds/crypto"))["capacity"]["wanted"] == 252


async def test_wishes_need_the_right_to_manage_feeds_and_are_audited(fed: Stage) -> None:
    viewer = await fed.person("vera", "viewer")
    await fed.refused(403, "forbidden", "PUT", f"{CLIENTS}/a/instruments", {"instruments": [SOL]}, key=viewer)
    assert (await fed.ask("GET", CLIENTS, key=viewer)).status_code == 200
    await put(fed, "a", [SOL])
    generation = (await fed.get("/v1/feeds/crypto"))["generation"]
    await put(fed, "a", [SOL])
    assert (await fed.get("/v1/feeds/crypto"))["generation"] == generation, "nothing new"
    entry, *_ = await fed.services.desired.audit_of("crypto")
    assert (entry.actor, entry.action) == ("admin", "wish_of_feed")
    assert entry.after == {"client": "a", "wanted": {SOL: ["trade", "quote"]}, "gone": []}


async def test_a_feed_changes_its_list_and_channels_as_a_whole(fed: Stage) -> None:
    changed = (await fed.ask("PATCH", "/v1/feeds/crypto", {"instruments": [SOL, ETH], "channels": ["trade"]})).json()
    assert (changed["instruments"], changed["channels"], changed["generation"]) == ([SOL, ETH], ["trade"], 2)
    assert (await fed.refused(422, "bad_input", "PATCH", "/v1/feeds/crypto", {"channels": ["smell"]}))[
        "field"
    ] == "channels"
    await fed.make("/v1/algos", algo_body(instruments=[SOL], start=True))
    await fed.refused(409, "instrument_in_use", "PATCH", "/v1/feeds/crypto", {"instruments": [ETH]})


async def test_a_feed_is_deleted_by_force_and_its_algos_are_told(fed: Stage) -> None:
    await put(fed, "a", [SOL])
    await fed.make("/v1/algos", algo_body(start=True))
    await fed.make("/v1/algos", algo_body(id="momo-2"))
    said = await fed.refused(409, "feed_in_use", "DELETE", "/v1/feeds/crypto")
    assert "momo-1, momo-2" in said["detail"]
    assert (await fed.ask("DELETE", "/v1/feeds/crypto?force=true")).status_code == 204
    await fed.refused(404, "unknown_feed", "GET", "/v1/feeds/crypto")
    assert (await fed.get("/v1/algos/momo-1"))["want"] == "stopped"
    (line,) = (await fed.get("/v1/algos/momo-1/logs"))["items"]
    assert "feed crypto was deleted by admin" in line["text"]
    assert (await fed.get("/v1/algos/momo-2/logs"))["items"] == []
    await fed.refused(409, "feed_is_gone", "POST", "/v1/algos/momo-2/start")
    await fed.refused(422, "unknown_feed", "POST", "/v1/algos", algo_body(id="momo-3"))
    # What it wanted went with it.
    await fed.fed()
    assert [c["client"] for c in (await fed.get(CLIENTS))["items"]] == ["feed"]
    await fed.refused(404, "unknown_feed", "DELETE", "/v1/feeds/none?force=true")


async def test_workers_run_on_the_machines_that_are_named(fed: Stage) -> None:
    for node in ("edge", "core"):
        record = NodeRecord(name=NodeName(node), labels={}, registered_at=Nanos(1))
        await fed.services.desired.create_node(record, "test")
    body = {"id": "spread", "provider": "binance-spot", "instruments": [SOL], "nodes": ["edge", "core"]}
    assert (await fed.make("/v1/feeds", body))["nodes"] == ["edge", "core"]
    said = await fed.refused(422, "unknown_node", "POST", "/v1/feeds", {**body, "id": "other", "nodes": ["none"]})
    assert said["field"] == "nodes"


async def test_what_a_coordinator_tells_is_shown_and_measured(fed: Stage) -> None:
    view = {
        "feed": "crypto",
        "generation": 1,
        "assignment": {"0": [BTC], "1": [ETH]},
        "pending_steps": 1,
        "draining": [],
        "silent": [1],
        "gone": [1],
        "moving": [BTC],
        "uncarried": [],
        "stranded": [ETH],
        "passed_over": [[BTC, 1]],
        "wanted": 2,
        "spare": 254,
        "moves": 7,
        "trouble": "no room",
    }
    await fed.services.hot.put("feed:crypto", view, 30)
    shown = await fed.get("/v1/feeds/crypto")
    for field in ("silent", "gone", "moving", "uncarried", "stranded", "passed_over", "trouble"):
        assert shown[field] == view[field], field
    assert shown["settled"] is False
    (listed,) = (await fed.get("/v1/feeds"))["items"]
    assert (listed["gone"], listed["moving"], listed["settled"]) == ([1], [], False)
    settled = {**view, "pending_steps": 0, "silent": [], "gone": [], "moving": [], "stranded": [], "passed_over": []}
    await fed.services.hot.put("feed:crypto", settled, 30)
    assert (await fed.get("/v1/feeds/crypto"))["settled"] is True
    await fed.services.hot.put("feed:crypto", view, 30)
    text = (await fed.http.get("/metrics")).text
    for line in (
        'quarterdeck_feed_wanted_instruments{feed="crypto"} 2.0',
        'quarterdeck_feed_spare_instruments{feed="crypto"} 254.0',
        'quarterdeck_feed_moves{feed="crypto"} 7.0',
        'quarterdeck_feed_pending_steps{feed="crypto"} 1.0',
        'quarterdeck_feed_workers_gone{feed="crypto"} 1.0',
        'quarterdeck_feed_instruments_not_settled{feed="crypto",state="stranded"} 1.0',
        'quarterdeck_feed_instruments_not_settled{feed="crypto",state="uncarried"} 0.0',
    ):
        assert line in text
