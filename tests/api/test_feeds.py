from __future__ import annotations

import time
from typing import Any

import pytest

from tests.api.playing import BTC, ETH, Stage, algo_body, instrument


def _feed(**changes: Any) -> dict[str, Any]:
    return {"id": "crypto", "provider": "binance-spot", "instruments": [BTC], "workers": 1, **changes}


async def test_the_list_of_a_provider_is_fetched_and_searched(stage: Stage, venue: str) -> None:
    answer = await stage.ask(
        "POST", "/v1/instruments/import", {"provider": "binance-spot", "settings": {"base_url": venue}}
    )
    assert answer.json() == {"imported": 20}
    found = await stage.get("/v1/instruments?query=btc")
    assert found["items"][0]["id"] == BTC
    assert isinstance(found["items"][0]["tick_size"], str)
    assert (await stage.get(f"/v1/instruments/{BTC}"))["number"] > 0
    assert len((await stage.get("/v1/instruments?provider=binance-spot&limit=7"))["items"]) == 7
    assert (await stage.get("/v1/instruments?provider=binance-usdm"))["items"] == []
    await stage.refused(404, "unknown_instrument", "GET", "/v1/instruments/BINANCE:NOTHING")
    await stage.refused(422, "bad_input", "GET", "/v1/instruments/nonsense")


async def test_a_provider_that_does_not_answer_is_not_ready(stage: Stage) -> None:
    body = {"provider": "binance-spot", "settings": {"base_url": "http://127.0.0.1:9"}}
    await stage.refused(503, "not_ready", "POST", "/v1/instruments/import", body)
    said = await stage.refused(422, "unknown_provider", "POST", "/v1/instruments/import", {"provider": "acme"})
    assert said["field"] == "provider"


async def test_a_feed_fetches_the_list_it_lacks_and_grows_and_shrinks(stage: Stage, venue: str) -> None:
    made = await stage.make("/v1/feeds", _feed(settings={"base_url": venue}, workers=3))
    assert (made["workers"], made["instruments"], made["channels"]) == (3, [BTC], ["trade", "quote"])
    assert (made["settled"], made["live"]) == (False, [])
    grown = await stage.ask("PUT", f"/v1/feeds/crypto/instruments/{ETH}")
    assert grown.json()["instruments"] == [BTC, ETH]
    again = await stage.ask("PUT", f"/v1/feeds/crypto/instruments/{ETH}")
    assert again.json()["generation"] == grown.json()["generation"]
    many = await stage.ask("POST", "/v1/feeds/crypto/instruments", {"instruments": ["BINANCE:SOLUSDT", ETH]})
    assert many.json()["instruments"] == [BTC, ETH, "BINANCE:SOLUSDT"]
    assert (await stage.ask("PATCH", "/v1/feeds/crypto", {"workers": 5})).json()["workers"] == 5
    assert (await stage.ask("DELETE", f"/v1/feeds/crypto/instruments/{BTC}")).json()["instruments"] == [
        ETH,
        "BINANCE:SOLUSDT",
    ]
    actions = [(entry.actor, entry.action) for entry in await stage.services.desired.audit_of("crypto")]
    assert actions == [("admin", "update_feed")] * 4 + [("admin", "create_feed")]
    assert (await stage.ask("DELETE", "/v1/feeds/crypto")).status_code == 204
    await stage.refused(404, "unknown_feed", "GET", "/v1/feeds/crypto")


async def test_unknown_instruments_are_listed_and_nothing_is_made(stage: Stage, venue: str) -> None:
    wrong = ["BINANCE:NOPE", "BINANCE:NADA"]
    body = _feed(settings={"base_url": venue}, instruments=[BTC, *wrong])
    said = await stage.refused(422, "unknown_instrument", "POST", "/v1/feeds", body)
    assert said["field"] == "instruments"
    assert said["unknown"] == wrong
    assert (await stage.get("/v1/feeds"))["items"] == []
    await stage.make("/v1/feeds", _feed(settings={"base_url": venue}))
    body = {"instruments": [ETH, *wrong]}
    await stage.refused(422, "unknown_instrument", "POST", "/v1/feeds/crypto/instruments", body)
    await stage.refused(422, "unknown_instrument", "PUT", "/v1/feeds/crypto/instruments/BINANCE:NOPE")
    assert (await stage.get("/v1/feeds/crypto"))["instruments"] == [BTC]


async def test_an_instrument_of_another_provider_is_unknown_to_this_one(stage: Stage, venue: str) -> None:
    await stage.services.instruments.upsert([instrument("BINANCE-USDM:BTCUSDT", provider="binance-usdm")])
    body = _feed(settings={"base_url": venue}, instruments=["BINANCE-USDM:BTCUSDT"])
    await stage.refused(422, "unknown_instrument", "POST", "/v1/feeds", body)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"workers": 0}, "bad_input", "workers"),
        ({"workers": -1}, "bad_input", "workers"),
        ({"workers": 21}, "bad_input", "workers"),
        ({"id": "Bad Id"}, "bad_input", "id"),
        ({"instruments": ["btc"]}, "bad_input", "instruments"),
        ({"channels": ["smell"]}, "bad_input", "channels"),
        ({"channels": []}, "bad_input", "channels"),
        ({"provider": "acme"}, "unknown_provider", "provider"),
        ({"settings": {"colour": 1}}, "bad_input", "settings"),
        ({"settings": {"base_url": "ftp://x"}}, "bad_input", "base_url"),
    ],
)
async def test_a_wrong_feed_is_refused_by_field(stage: Stage, changes: dict[str, Any], code: str, field: str) -> None:
    await stage.services.instruments.upsert([instrument(BTC)])
    said = await stage.refused(422, code, "POST", "/v1/feeds", _feed(**changes))
    assert said["field"] == field
    assert (await stage.get("/v1/feeds"))["items"] == []


@pytest.mark.parametrize("workers", [0, 21])
async def test_a_worker_count_beyond_the_provider_is_refused_later_too(stage: Stage, workers: int) -> None:
    await stage.trading()
    await stage.fed()
    said = await stage.refused(422, "bad_input", "PATCH", "/v1/feeds/crypto", {"workers": workers})
    assert said["field"] == "workers"
    assert (await stage.get("/v1/feeds/crypto"))["workers"] == 2


async def test_what_an_algo_uses_is_not_taken_away(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(start=True))
    said = await stage.refused(409, "feed_in_use", "DELETE", "/v1/feeds/crypto")
    assert "momo-1" in said["detail"]
    await stage.refused(409, "instrument_in_use", "DELETE", f"/v1/feeds/crypto/instruments/{BTC}")
    assert (await stage.ask("DELETE", f"/v1/feeds/crypto/instruments/{ETH}")).status_code == 200
    await stage.refused(404, "unknown_instrument", "DELETE", f"/v1/feeds/crypto/instruments/{ETH}")


async def test_who_is_refused_for_algos_is_told_the_names_only_of_those_that_they_see(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    quant = await stage.person("quinn", "quant")
    quiet = "from strategies import Strategy\n\nclass Quiet(Strategy):\n    pass\n"
    answer = await stage.upload("quiet", "quiet.py", quiet.encode(), key=quant, smoke=False)
    version = answer.json()["version"]
    of_quiet = {"strategy": "quiet", "parameters": {}}
    await stage.make("/v1/algos", algo_body("hidden-1", start=True, **of_quiet))
    asks = [
        ("feed_in_use", "DELETE", "/v1/feeds/crypto", None),
        ("instrument_in_use", "DELETE", f"/v1/feeds/crypto/instruments/{BTC}", None),
        ("instrument_in_use", "PATCH", "/v1/feeds/crypto", {"instruments": [ETH]}),
        ("version_in_use", "DELETE", f"/v1/strategies/quiet/versions/{version}", None),
        ("strategy_in_use", "DELETE", "/v1/strategies/quiet", None),
    ]
    for code, method, path, body in asks:
        said = await stage.refused(409, code, method, path, body, key=quant)
        assert "hidden" not in said["detail"], said
        if code != "strategy_in_use":
            assert "(1 that you do not see)" in said["detail"], said
    await stage.make("/v1/accounts", {"id": "own", "user": "quinn", "connector": "paper"})
    await stage.make("/v1/algos", algo_body("own-1", account="own", start=True, **of_quiet))
    for code, method, path, body in asks[:-1]:
        said = await stage.refused(409, code, method, path, body, key=quant)
        assert "(own-1, 1 that you do not see)" in said["detail"], said
        assert "(hidden-1, own-1)" in (await stage.refused(409, code, method, path, body))["detail"]


async def test_what_a_client_wants_is_not_taken_from_algos_that_it_does_not_see(stage: Stage) -> None:
    await stage.trading()
    await stage.fed("crypto", BTC)
    quant = await stage.person("quinn", "quant")
    wish = "/v1/feeds/crypto/clients/a/instruments"
    assert (await stage.ask("PUT", wish, {"instruments": [ETH]})).status_code == 200
    await stage.make("/v1/algos", algo_body("hidden-1", instruments=[ETH], start=True))
    said = await stage.refused(409, "instrument_in_use", "PUT", wish, {"instruments": []}, key=quant)
    assert "hidden" not in said["detail"]


async def test_a_feed_shows_what_its_workers_tell(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    hot = stage.services.hot
    view = {
        "feed": "crypto",
        "generation": 1,
        "workers": 2,
        "assignment": {"0": [BTC], "1": [ETH]},
        "pending_steps": 0,
        "draining": [],
        "silent": [],
    }
    await hot.put("feed:crypto", view, 30)
    for shard, of in enumerate((BTC, ETH)):
        one = {"id": of, "phase": "live", "ticks": 5, "age_s": 0.2, "state": "live", "reason": ""}
        stats = {
            "feed": "crypto",
            "shard": shard,
            "epoch": 1,
            "node": "head",
            "connected": True,
            "reason": "",
            "at": time.time_ns(),
            "ticks": 100 + shard,
            "rate": 10.5,
            "batches": 9,
            "garbage": 0,
            "reconnects": 0,
            "unpublished": 0,
            "instruments": [one],
        }
        await hot.put(f"worker:crypto:{shard}", stats, 30)
    shown = await stage.get("/v1/feeds/crypto")
    assert (shown["settled"], shown["ticks"], shown["rate"]) == (True, 201, 21.0)
    assert [worker["instruments"][0]["id"] for worker in shown["live"]] == [BTC, ETH]
    assert 0 <= shown["live"][0]["age_s"] < 10
    assert (shown["instrument_count"], shown["assigned"]) == (2, {"0": 1, "1": 1})
    counted = await stage.get("/v1/feeds/crypto?instruments=false")
    assert (counted["instruments"], counted["assignment"]) == ([], {})
    assert [(worker["instruments"], worker["instrument_count"]) for worker in counted["live"]] == [([], 1), ([], 1)]
    same = ("instrument_count", "assigned", "settled", "ticks", "rate", "capacity")
    assert {name: counted[name] for name in same} == {name: shown[name] for name in same}
    (counted,) = (await stage.get("/v1/feeds?instruments=false"))["items"]
    assert (counted["instruments"], counted["assignment"], counted["instrument_count"]) == ([], {}, 2)
    (listed,) = (await stage.get("/v1/feeds"))["items"]
    assert [worker["instrument_count"] for worker in listed["live"]] == [1, 1]
    assert listed["live"][0]["instruments"] == []
    await stage.ask("PATCH", "/v1/feeds/crypto", {"workers": 1})
    assert (await stage.get("/v1/feeds/crypto"))["settled"] is False


async def test_two_who_change_a_feed_at_once_both_get_their_way(stage: Stage) -> None:
    import asyncio

    ids = [f"BINANCE:X{n}USDT" for n in range(4)]
    await stage.services.instruments.upsert([instrument(id) for id in (BTC, *ids)])
    await stage.make("/v1/feeds", _feed())
    answers = await asyncio.gather(*(stage.ask("PUT", f"/v1/feeds/crypto/instruments/{id}") for id in ids))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert set((await stage.get("/v1/feeds/crypto"))["instruments"]) == {BTC, *ids}
