"""Alerts by REST and on the stream, to whom they are due."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.asyncio.client import connect

from tests.api.playing import Stage
from trading.ids import Nanos, UserId


async def raised(stage: Stage, subject: str = "o-1", **changes: Any) -> str:
    about: dict[str, Any] = {
        "kind": "large_order",
        "severity": "warning",
        "user": "asha",
        "account": "paper-1",
        "subject": subject,
        "text": "9 times the usual",
        "at": Nanos(1_700_000_000_000_000_000),
        **changes,
    }
    return (await stage.services.alerts.raise_alert(**about)).id


async def test_everybody_sees_the_own_alerts_and_operators_all(stage: Stage) -> None:
    asha, bo = await stage.trading(), await stage.person("bo", "trader")
    mine = await raised(stage)
    theirs = await raised(stage, user="bo", account=None, kind="session")
    decks = await raised(stage, user="", account=None, kind="deck")
    assert [each["id"] for each in (await stage.get("/v1/alerts", key=asha))["items"]] == [mine]
    assert [each["id"] for each in (await stage.get("/v1/alerts", key=bo))["items"]] == [theirs]
    everything = (await stage.get("/v1/alerts"))["items"]
    assert [each["id"] for each in everything] == [decks, theirs, mine]
    assert [each["user"] for each in everything] == [None, "bo", "asha"]
    assert [each["id"] for each in (await stage.get("/v1/alerts?kind=session"))["items"]] == [theirs]
    page = await stage.get("/v1/alerts?limit=2")
    assert [each["id"] for each in (await stage.get(f"/v1/alerts?limit=2&cursor={page['next']}"))["items"]] == [mine]
    await stage.refused(422, "bad_input", "GET", "/v1/alerts?cursor=***")
    await stage.refused(422, "bad_input", "GET", "/v1/alerts?kind=A%00B")


async def test_who_may_acknowledge(stage: Stage) -> None:
    asha, bo = await stage.trading(), await stage.person("bo", "viewer")
    trading, session = await raised(stage), await raised(stage, kind="session", account=None)
    path = f"/v1/alerts/{trading}/acknowledge"
    await stage.refused(404, "unknown_alert", "POST", path, key=bo)
    await stage.refused(403, "forbidden", "POST", path, key=asha)
    closed = (await stage.ask("POST", path)).json()
    assert (closed["acknowledged_by"], closed["acknowledged_at"] is not None) == ("admin", True)
    await stage.refused(409, "alert_is_acknowledged", "POST", path)
    own = await stage.ask("POST", f"/v1/alerts/{session}/acknowledge", key=asha)
    assert own.json()["acknowledged_by"] == "asha"
    assert (await stage.get("/v1/alerts?open=true"))["items"] == []
    assert len((await stage.get("/v1/alerts?open=false"))["items"]) == 2
    await stage.refused(404, "unknown_alert", "POST", "/v1/alerts/alert-none/acknowledge")


async def test_an_operator_closes_no_alert_about_themselves_while_there_is_another(stage: Stage) -> None:
    olga = await stage.person("olga", "operator", "trader")
    _, as_trader = await stage.services.keys.create(UserId("olga"), ("trader",), "test")
    for kind in ("session", "large_order"):
        id = await raised(stage, user="olga", account=None, kind=kind)
        path = f"/v1/alerts/{id}/acknowledge"
        said = await stage.refused(409, "own_alert", "POST", path, key=olga)
        assert "another operator closes it (admin)" in said["detail"]
        # Nor by a key that bears less than the user's roles.
        answer = await stage.ask("POST", path, key=as_trader)
        assert answer.status_code == (403 if kind == "large_order" else 409), answer.text
        assert (await stage.ask("POST", path)).json()["acknowledged_by"] == "admin"
    # About the deck, or somebody else, is theirs to close.
    for about in ({"user": "", "kind": "deck"}, {"user": "admin", "kind": "session"}):
        id = await raised(stage, account=None, **about)
        assert (await stage.ask("POST", f"/v1/alerts/{id}/acknowledge", key=olga)).status_code == 200
    entries = (await stage.get("/v1/audit?action=acknowledge_alert"))["items"]
    assert all("because" not in each["after"] for each in entries)


async def test_an_operator_closes_no_alert_about_what_they_did_in_anothers_account(stage: Stage) -> None:
    asha = await stage.trading()
    olga, _ = await stage.person("olga", "operator", "trader"), await stage.person("omar", "operator")
    id = await raised(stage, persons=("olga", "omar"))
    path = f"/v1/alerts/{id}/acknowledge"
    said = await stage.refused(409, "own_alert", "POST", path, key=olga)
    assert "another operator closes it (admin)" in said["detail"]
    await stage.refused(403, "forbidden", "POST", path, key=asha)
    assert (await stage.ask("POST", path)).json()["acknowledged_by"] == "admin"
    # What somebody else did there is theirs to close.
    id = await raised(stage, persons=("admin",))
    await stage.refused(409, "own_alert", "POST", f"/v1/alerts/{id}/acknowledge")
    assert (await stage.ask("POST", f"/v1/alerts/{id}/acknowledge", key=olga)).status_code == 200
    # All who could are concerned.
    id = await raised(stage, persons=("admin", "olga", "omar"))
    assert (await stage.ask("POST", f"/v1/alerts/{id}/acknowledge", key=olga)).status_code == 200
    entry = (await stage.get("/v1/audit?action=acknowledge_alert"))["items"][0]
    assert entry["after"]["because"] == "it is about them, and there was no other operator"


async def test_an_operator_who_is_alone_closes_their_own_and_the_audit_says_so(stage: Stage) -> None:
    await stage.person("olga", "operator")
    await stage.person("asha", "trader")
    id = await raised(stage, user="admin", account=None, kind="session")
    path = f"/v1/alerts/{id}/acknowledge"
    await stage.refused(409, "own_alert", "POST", path)
    # Who has no way in can close nothing.
    assert (await stage.ask("PATCH", "/v1/users/olga", {"enabled": False})).status_code == 200
    assert (await stage.ask("POST", path)).json()["acknowledged_by"] == "admin"
    (entry,) = (await stage.get("/v1/audit?action=acknowledge_alert"))["items"]
    assert entry["after"]["because"] == "it is about them, and there was no other operator"
    assert (entry["actor"], entry["after"]["user"], entry["before"]["acknowledged_by"]) == ("admin", "admin", "")


async def test_alerts_come_on_the_stream_to_whom_they_are_about(stage: Stage, served: str) -> None:
    asha = await stage.trading()
    bo = await stage.person("bo", "viewer")

    async def first(key: str, count: int) -> list[dict[str, Any]]:
        async with connect(f"ws://{served}/v1/stream") as socket:
            await socket.send(json.dumps({"key": key, "topics": ["alerts"]}))
            await socket.recv()
            ready.release()
            async with asyncio.timeout(20):
                told: list[dict[str, Any]] = []
                while len(told) < count:
                    told += [each for each in [json.loads(await socket.recv())] if each["body"]["kind"] != "probe"]
                return told

    ready = asyncio.Semaphore(0)
    readers = [asyncio.create_task(first(key, count)) for key, count in ((asha, 2), (bo, 1), (stage.operator_key, 4))]
    for _ in readers:
        await ready.acquire()
    # Until the hub has had its first look it tells nothing.
    hub, first_told = stage.services.hub, stage.services.hub.newest
    async with asyncio.timeout(20):
        while hub.newest == first_told:
            await raised(stage, user="", account=None, kind="probe")
            await asyncio.sleep(0.1)
    await raised(stage, user="", account=None, kind="deck")
    id = await raised(stage)
    await raised(stage, user="bo", account=None, kind="session")
    # Of two changes of one alert between two looks, the last is told.
    async with asyncio.timeout(20):
        while not any(told.change is not None and told.change.key == id for told in hub.after(first_told)):
            await asyncio.sleep(0.01)
    await stage.ask("POST", f"/v1/alerts/{id}/acknowledge")
    to_asha, to_bo, to_operator = await asyncio.gather(*readers)
    assert to_bo[0]["body"]["kind"] == "session"
    assert {each["body"]["user"] for each in to_asha} == {"asha"}
    assert {each["body"]["user"] for each in to_operator} == {None, "asha", "bo"}
    assert to_asha[-1]["body"]["acknowledged_by"] == "admin"
