"""`Idempotency-Key` by REST: acts once, answers again, and never holds up a stop."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import idempotency
from api.idempotency import FORM, Keys
from storage import idempotency as stored
from storage.database import Database
from storage.idempotency import KEPT_S, Idempotency
from tests.api.playing import Stage, algo_body, order_body
from tests.support.patience import PATIENCE
from trading.errors import NotReady, Unreachable


async def sent(
    stage: Stage, method: str, path: str, body: Any = None, *, under: str, key: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or stage.operator_key}", "Idempotency-Key": under}
    return await stage.http.request(method, path, json=body, headers=headers)


def is_replay(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


async def test_the_same_request_again_acts_once_and_gets_the_same_answer(stage: Stage) -> None:
    body = {"scope": "cluster", "kind": "position", "value": "5"}
    first = await sent(stage, "PUT", "/v1/risk/limits", body, under="k1")
    again = await sent(stage, "PUT", "/v1/risk/limits", body, under="k1")
    assert (first.status_code, again.status_code) == (200, 200)
    assert (is_replay(first), is_replay(again), first.content == again.content) == (False, True, True)
    assert first.headers["content-type"] == again.headers["content-type"]
    assert first.json()["version"] == 1
    for path, changed in (("/v1/risk/limits", {**body, "value": "6"}), ("/v1/risk/limits?x=1", body)):
        other = await sent(stage, "PUT", path, changed, under="k1")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
        assert other.json()["field"] == "Idempotency-Key"
    assert (await sent(stage, "PUT", "/v1/risk/limits", body, under="k2")).json()["version"] == 2


async def test_a_key_belongs_to_who_gave_it(stage: Stage) -> None:
    asha, bo = await stage.person("asha", "trader"), await stage.person("bo", "trader")
    mine = await sent(stage, "POST", "/v1/keys", {}, under="same", key=asha)
    theirs = await sent(stage, "POST", "/v1/keys", {}, under="same", key=bo)
    assert (mine.json()["user"], theirs.json()["user"]) == ("asha", "bo")
    refused = await stage.http.post("/v1/keys", json={}, headers={"Idempotency-Key": "same"})
    assert refused.status_code == 401


async def test_whoever_may_not_any_more_gets_no_answer_again(stage: Stage) -> None:
    made = await sent(stage, "POST", "/v1/keys", {"label": "x"}, under="k")
    key = made.json()["key"]
    await stage.person("cho", "trader")
    first = await sent(stage, "POST", "/v1/keys", {"user": "cho"}, under="own", key=key)
    assert first.status_code == 201
    await stage.ask("DELETE", f"/v1/keys/{made.json()['id']}")
    refused = await sent(stage, "POST", "/v1/keys", {"user": "cho"}, under="own", key=key)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


async def test_an_answer_with_a_secret_comes_again_and_lies_nowhere_in_clear(stage: Stage, database_url: str) -> None:
    first = await sent(stage, "POST", "/v1/keys", {"label": "mine"}, under="a-secret-key")
    again = await sent(stage, "POST", "/v1/keys", {"label": "mine"}, under="a-secret-key")
    assert first.json()["key"] == again.json()["key"]
    assert again.headers["cache-control"] == "no-store"
    with psycopg.connect(database_url) as connection:
        everything = b"".join(
            bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode()
            for row in connection.execute("SELECT * FROM idempotency").fetchall()
            for cell in row
        )
    assert first.json()["key"].encode() not in everything
    assert b"a-secret-key" not in everything
    assert b"mine" not in everything
    assert len([key for key in (await stage.get("/v1/keys"))["items"] if key["label"] == "mine"]) == 1


async def test_two_at_once_place_one_order(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await stage.trading()
    session = stage.services.session("asha")  # type: ignore[arg-type]
    real, entered, go = session.call, asyncio.Event(), asyncio.Event()

    async def slow(method: str, *args: Any, timeout: float = 5.0) -> Any:
        entered.set()
        await go.wait()
        return await real(method, *args, timeout=timeout)

    monkeypatch.setattr(session, "call", slow)
    first = asyncio.create_task(sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=key))
    await entered.wait()
    second = await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=key)
    assert (second.status_code, second.json()["code"], second.headers["retry-after"]) == (409, "in_progress", "1")
    go.set()
    assert (await first).status_code == 201
    third = await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=key)
    assert (third.status_code, is_replay(third), third.content) == (201, True, (await first).content)
    assert third.headers["location"] == (await first).headers["location"]
    assert len((await stage.get("/v1/orders"))["items"]) == 1


async def test_refusals_are_kept_and_what_was_not_done_is_not(stage: Stage) -> None:
    key = await stage.trading()
    wrong = order_body(None, quantity="0.00001")
    assert (await sent(stage, "POST", "/v1/orders", wrong, under="k1", key=key)).status_code == 422
    assert is_replay(await sent(stage, "POST", "/v1/orders", wrong, under="k1", key=key))
    stage.played["asha"].raises = NotReady("it starts", 1.0)
    assert (await sent(stage, "POST", "/v1/orders", order_body(None), under="k2", key=key)).status_code == 503
    assert (await sent(stage, "POST", "/v1/orders", order_body(None), under="k2", key=key)).status_code == 201
    viewer = await stage.person("dee", "viewer")
    assert (await sent(stage, "POST", "/v1/orders", wrong, under="k3", key=viewer)).status_code == 403
    assert not is_replay(await sent(stage, "POST", "/v1/orders", wrong, under="k3", key=viewer))
    stage.played["asha"].raises = Unreachable("session/asha", "no answer")
    unclear = await sent(stage, "POST", "/v1/orders", order_body("u-1"), under="k4", key=key)
    again = await sent(stage, "POST", "/v1/orders", order_body("u-1"), under="k4", key=key)
    assert (unclear.status_code, is_replay(again), again.json()["ask"]) == (504, True, "/v1/orders/paper-1/u-1")


async def test_an_order_without_a_key_of_its_own_gets_one_from_the_requests(stage: Stage) -> None:
    key = await stage.trading()
    stage.played.clear()
    session: Any = stage.services.session("asha")  # type: ignore[arg-type]
    real = session.call

    async def acts_but_is_not_heard(method: str, *args: Any, timeout: float = 5.0) -> Any:
        await real(method, *args, timeout=timeout)
        session.call = real
        raise NotReady("the answer was lost", 1.0)

    session.call = acts_but_is_not_heard
    assert (await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=key)).status_code == 503
    assert (await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=key)).status_code == 201
    assert len((await stage.get("/v1/orders"))["items"]) == 1


async def test_a_key_that_is_free_again_does_not_answer_with_the_order_that_it_placed_before(
    stage: Stage, database_url: str
) -> None:
    key = await stage.trading()
    placed = await sent(stage, "POST", "/v1/orders", order_body(None), under="daily", key=key)
    assert placed.status_code == 201
    # A day goes by: the key is swept, and the session remembers only what the journal gave it at its start.
    day = (KEPT_S + 60) * 1_000_000_000
    session: Any = stage.services.session("asha")  # type: ignore[arg-type]
    for order in session.orders.values():
        order.created_at -= day
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE idempotency SET began_at = began_at - %s", (day,))
    again = await sent(stage, "POST", "/v1/orders", order_body(None), under="daily", key=key)
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_request_whose_head_died_is_told_so_and_a_stop_is_done_again(stage: Stage, database_url: str) -> None:
    key = await stage.trading()
    await stage.make("/v1/orders", order_body(), key=key)
    session: Any = stage.services.session("asha")  # type: ignore[arg-type]
    real = session.call

    begun = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    for method, path, body, status in (
        ("POST", "/v1/orders", order_body("k-2"), 424),
        ("DELETE", "/v1/orders/paper-1/k-1", None, 200),
    ):
        session.call = never
        died = asyncio.create_task(sent(stage, method, path, body, under=f"{method}-1", key=key))
        async with asyncio.timeout(20):
            await begun.wait()
        begun.clear()
        died.cancel()
        await asyncio.wait([died])
        session.call = real
        # A stop is not put off until it is known that the first one's head is gone.
        at_once = await sent(stage, method, path, body, under=f"{method}-1", key=key)
        assert at_once.status_code == (409 if status == 424 else 200), at_once.text
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"UPDATE idempotency SET beat_at = beat_at - {int(stored.SILENT_S * 1e9) + 1}")
        again = await sent(stage, method, path, body, under=f"{method}-1", key=key)
        # The order was taken back by then: there is nothing more to do.
        assert again.json()["code"] == ("outcome_unknown" if status == 424 else "order_is_final"), again.text
    assert [each["state"] for each in (await stage.get("/v1/orders"))["items"]] == ["cancelled"]


async def test_an_answer_is_for_no_key_that_reaches_less_far(stage: Stage) -> None:
    wide = await stage.trading()
    await stage.make("/v1/accounts", {"id": "paper-2", "user": "asha", "connector": "paper"})
    narrow = (await stage.make("/v1/keys", {"user": "asha", "accounts": ["paper-2"], "label": "of paper-2 only"}))[
        "key"
    ]
    first = await sent(stage, "POST", "/v1/accounts/paper-1/cancel-all", None, under="k", key=wide)
    assert first.status_code == 200, first.text
    other = await sent(stage, "POST", "/v1/accounts/paper-1/cancel-all", None, under="k", key=narrow)
    assert other.status_code == 404
    assert "idempotency-replayed" not in other.headers


async def test_an_answer_is_not_given_again_to_who_lost_the_grant(stage: Stage) -> None:
    await stage.trading()
    bo = await stage.person("bo", "trader")
    grant = "/v1/grants/paper-1/bo"
    await stage.ask("PUT", grant, {"level": "trade"})
    first = await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=bo)
    assert first.status_code == 201
    assert is_replay(await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=bo))

    async def withheld() -> None:
        again = await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=bo)
        said = again.json()
        assert (again.status_code, said["code"], said["answered"]) == (424, "outcome_unknown", 201), again.text
        assert first.json()["client_order_id"] not in again.text
        assert not is_replay(again)

    await stage.ask("PUT", grant, {"level": "view"})
    await withheld()
    await stage.ask("DELETE", grant)
    await withheld()
    # What was gained since changes nothing, and nothing was done again meanwhile.
    await stage.ask("PUT", grant, {"level": "trade"})
    assert is_replay(await sent(stage, "POST", "/v1/orders", order_body(None), under="k", key=bo))
    assert len((await stage.get("/v1/orders"))["items"]) == 1


async def test_an_answer_is_not_given_again_to_who_lost_the_role_nor_is_it_done_again(stage: Stage) -> None:
    await stage.trading()
    olga = await stage.person("olga", "operator", "trader")
    path = "/v1/accounts/paper-1/reconcile"
    first = await sent(stage, "POST", path, None, under="k", key=olga)
    assert first.status_code == 200, first.text
    asked = len(stage.played["asha"].calls)
    await stage.ask("PUT", "/v1/grants/paper-1/olga", {"level": "trade"})
    await stage.ask("PATCH", "/v1/users/olga", {"roles": ["trader"]})
    again = await sent(stage, "POST", path, None, under="k", key=olga)
    assert (again.status_code, again.json()["code"]) == (424, "outcome_unknown")
    assert len(stage.played["asha"].calls) == asked
    # Of what the lost role was needed for, the route says so.
    await stage.ask("PATCH", "/v1/users/olga", {"roles": ["viewer"]})
    assert (await sent(stage, "POST", path, None, under="k", key=olga)).status_code == 403


async def test_a_stop_is_judged_anew_where_its_answer_is_not_given_again(stage: Stage) -> None:
    await stage.trading()
    await stage.make("/v1/accounts", {"id": "paper-2", "user": "asha", "connector": "paper"})
    bo = await stage.person("bo", "trader")
    for account in ("paper-1", "paper-2"):
        await stage.ask("PUT", f"/v1/grants/{account}/bo", {"level": "trade"})
    path = "/v1/accounts/paper-1/cancel-all"
    assert (await sent(stage, "POST", path, None, under="k", key=bo)).status_code == 200
    await stage.ask("DELETE", "/v1/grants/paper-2/bo")
    again = await sent(stage, "POST", path, None, under="k", key=bo)
    assert (again.status_code, is_replay(again)) == (200, False)
    await stage.ask("DELETE", "/v1/grants/paper-1/bo")
    assert (await sent(stage, "POST", path, None, under="k", key=bo)).status_code == 404


async def test_an_error_of_ours_is_not_answered_by_doing_it_again(stage: Stage) -> None:
    key = await stage.trading()
    session: Any = stage.services.session("asha")  # type: ignore[arg-type]

    async def bug(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    real, session.call = session.call, bug
    assert (await sent(stage, "POST", "/v1/orders", order_body("k-9"), under="k", key=key)).status_code == 500
    session.call = real
    again = await sent(stage, "POST", "/v1/orders", order_body("k-9"), under="k", key=key)
    assert (again.status_code, again.json()["code"], again.json()["answered"]) == (424, "outcome_unknown", 500)


async def test_a_kill_and_a_cancel_go_ahead_where_no_key_can_be_taken(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_S", 0.5)
    key = await stage.trading()
    for n in range(3):
        await stage.make("/v1/orders", order_body(f"k-{n}"), key=key)
    connection = await psycopg.AsyncConnection.connect(stage.services.database.url)
    await connection.execute("LOCK TABLE idempotency IN ACCESS EXCLUSIVE MODE")
    try:
        async with asyncio.timeout(3 * PATIENCE):
            cancelled = await sent(stage, "DELETE", "/v1/orders/paper-1/k-0", under="a", key=key)
            killed = await sent(
                stage, "POST", "/v1/risk/kill?wait_s=0", {"scope": "user:asha", "reason": "x"}, under="b"
            )
        assert (cancelled.status_code, cancelled.headers["idempotency-kept"]) == (200, "no")
        assert (killed.status_code, killed.headers["idempotency-kept"]) == (201, "no")
        refused = await sent(stage, "POST", "/v1/orders", order_body("k-5"), under="c", key=key)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    finally:
        await connection.rollback()
        await connection.close()
    states = {each["client_order_id"]: each["state"] for each in (await stage.get("/v1/orders"))["items"]}
    assert states == {"k-0": "cancelled", "k-1": "cancelled", "k-2": "cancelled"}


@pytest.mark.parametrize(
    ("action", "urgent"), [("stop", True), ("pause", True), ("start", False), ("restart", False), (7, False)]
)
async def test_a_batch_waits_for_its_key_unless_it_stops(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, action: object, urgent: bool
) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_S", 0.5)
    key = await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    connection = await psycopg.AsyncConnection.connect(stage.services.database.url)
    await connection.execute("LOCK TABLE idempotency IN ACCESS EXCLUSIVE MODE")
    try:
        async with asyncio.timeout(3 * PATIENCE):
            body = {"action": action, "ids": ["momo-1"]}
            answer = await sent(stage, "POST", "/v1/algos/batch", body, under="b", key=key)
    finally:
        await connection.rollback()
        await connection.close()
    assert answer.status_code == (207 if urgent else 503), answer.text
    assert answer.headers["idempotency-kept"] == "no"
    shown = await stage.get("/v1/algos/momo-1", key=key)
    assert shown["want"] == ("stopped" if action == "stop" else "running")
    assert shown["paused_by"] == ("asha" if action == "pause" else "")


async def test_a_batch_that_stops_is_done_again_where_nobody_knows_whether_it_was(
    stage: Stage, database_url: str
) -> None:
    key = await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    body = {"action": "stop", "ids": ["momo-1"]}
    assert (await sent(stage, "POST", "/v1/algos/batch", body, under="b", key=key)).status_code == 207
    assert is_replay(await sent(stage, "POST", "/v1/algos/batch", body, under="b", key=key))
    await stage.ask("POST", "/v1/algos/momo-1/start", key=key)
    with psycopg.connect(database_url, autocommit=True) as connection:
        silent = int(stored.SILENT_S * 1e9) + 1
        connection.execute(f"UPDATE idempotency SET status = NULL, answer = NULL, beat_at = beat_at - {silent}")
    again = await sent(stage, "POST", "/v1/algos/batch", body, under="b", key=key)
    assert (again.status_code, is_replay(again)) == (207, False)
    assert (await stage.get("/v1/algos/momo-1", key=key))["want"] == "stopped"


async def test_an_answer_that_could_not_be_kept_is_kept_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "BEAT_EVERY_S", 0.05)
    keys = Keys(Idempotency(stage.services.key_database, lambda: bytes(32)))
    claimed = await keys.take(b"id", "asha", b"request", again=False)
    away, keys._store = keys._store, Idempotency(Database("postgresql://127.0.0.1:9/none"), lambda: bytes(32))
    assert not await keys.done(claimed.claim, 204, stored.Answer(status=204, headers=[], body=b""))
    keys._store = away
    running = asyncio.create_task(keys.run())
    async with asyncio.timeout(20):
        while (await keys.take(b"id", "asha", b"request", again=False)).found is not stored.Found.DONE:
            await asyncio.sleep(0.02)
    running.cancel()


async def test_uploads_and_wrong_keys(stage: Stage) -> None:
    code = b"from strategies import Strategy\n\nclass Quiet(Strategy):\n    pass\n"
    headers = {"Authorization": f"Bearer {stage.operator_key}", "Idempotency-Key": "up"}
    query = {"file": "quiet.py", "smoke": "false"}
    path = "/v1/strategies/quiet/versions"
    answers = [
        await stage.http.post(path, content=content, headers=headers, params=query, timeout=120)
        for content in (code, code, code + b"# more\n")
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 422]
    assert is_replay(answers[1])
    for wrong in ("", " ", "x" * 101, "tab\there", "\xe9"):
        answer = await stage.http.put(
            "/v1/risk/limits",
            json={"scope": "cluster", "kind": "position", "value": "1"},
            headers=[
                (b"Authorization", f"Bearer {stage.operator_key}".encode()),
                (b"Idempotency-Key", wrong.encode("latin-1")),
            ],
        )
        assert (answer.status_code, json.loads(answer.content).get("field")) == (422, "Idempotency-Key"), repr(wrong)


@given(st.text(max_size=120))
def test_keys_are_printable_and_short(text: str) -> None:
    good = 1 <= len(text) <= 100 and all(" " <= c <= "~" for c in text) and text == text.strip(" ")
    assert (FORM.fullmatch(text) is not None) is good
