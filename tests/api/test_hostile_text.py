"""Text that no database can hold, wherever it may be put: refused before anything is done, and never an internal
error."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from api import problems
from api.formats import Body
from api.plain_text import all_cleaned, is_plain, unfit_place
from api.security import Caller
from storage.journal import Journal
from storage.leases import Leases
from tests.api.full_bodies import at, json_bodies, mappings, put, texts
from tests.api.playing import BTC, Stage, algo_body, order_body
from tests.api.signing_in import AGENT, PASSWORD, Browser, clock, has_password, signed_in
from trading.ids import AccountId, Nanos, UserId
from trading.journal import Break, BreakKind, JournalBatch

__all__ = ["clock"]

UNFIT = ("\0", "a\0b", "\ud800", "x\udfff")
REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/accounts/%00", None),
    ("GET", "/v1/users/%00", None),
    ("GET", "/v1/sessions?user=%00", None),
    ("DELETE", "/v1/sessions/%00", None),
    ("GET", "/v1/grants?account=%00", None),
    ("PUT", "/v1/grants/%00/x", {"level": "view"}),
    ("DELETE", "/v1/keys/%00", None),
    ("POST", "/v1/keys", {"label": "a\0b"}),
    ("POST", "/v1/keys", {"accounts": ["\0"]}),
    ("POST", "/v1/keys", {"expires_at": "2262-01-01T00:00:00Z"}),
    ("POST", "/v1/users/%00/reset", None),
    ("PATCH", "/v1/users/%00", {"enabled": True}),
    ("POST", "/v1/auth/login", {"user": "a\0", "password": "\0\0"}),
    ("POST", "/v1/auth/fresh", {"code": "\0"}),
    ("POST", "/v1/auth/password", {"current": "\0", "new": "\0" * 14}),
]


async def test_text_that_cannot_be_kept_is_refused(stage: Stage) -> None:
    browser = await signed_in(stage, "olga", "operator")
    for method, path, body in REQUESTS:
        answer = await browser.ask(method, path, body)
        assert answer.status_code in (401, 404, 422), (method, path, body, answer.text)
    for raw in (b'{"user":"\\ud800","password":"x"}', b'{"user":"x","password":"\\ud800"}'):
        answer = await stage.http.post("/v1/auth/login", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (401, 422), answer.text


async def test_a_browser_that_calls_itself_anything_signs_in(stage: Stage) -> None:
    browser = await signed_in(stage, "vera", "viewer", agent="x" * 3000)
    assert (await browser.ask("GET", "/v1/me")).status_code == 200
    assert (await Browser(stage, agent="").ask("GET", "/v1/auth/session")).status_code == 401


async def acts(stage: Stage) -> int:
    """How much there is in the audit, besides who came in and what was refused."""
    async with stage.services.database.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*) FROM audit WHERE action NOT LIKE %s AND action <> %s", ("login%", "strategy_refused")
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def bearers(stage: Stage) -> dict[str, dict[str, str]]:
    """First parts of paths -> headers and cookies of whoever comes as far as the body there; "": everywhere else."""
    machines = (await stage.make("/v1/nodes/tokens", {"pool": True}))["token"]
    done = await signed_in(stage, "olga", "operator")
    at_code = Browser(stage)
    assert await at_code.login("olga") == "code"
    await stage.person("vera", "operator")
    await has_password(stage, "vera")
    enrolling = Browser(stage)
    assert await enrolling.login("vera", PASSWORD) == "enrol"

    def headers(browser: Browser) -> dict[str, str]:
        cookies = browser.http.cookies
        csrf = cookies.get("__Host-qd_csrf") or cookies.get("qd_csrf") or ""
        sent = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return {"origin": browser.base, "user-agent": AGENT, "x-csrf-token": csrf, "cookie": sent}

    return {
        "/v1/nodes/join": {"authorization": f"Bearer {machines}"},
        "/v1/auth/code": headers(at_code),
        "/v1/auth/totp": headers(enrolling),
        "/v1/auth/": headers(done),
        "": {"authorization": f"Bearer {stage.operator_key}"},
    }


async def test_it_is_refused_in_every_place_of_every_body_and_nothing_is_done(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(start=True))
    await stage.make("/v1/orders", order_body())
    asking = await bearers(stage)
    before = await acts(stage), {user: len(session.calls) for user, session in stage.played.items()}

    async def refused(method: str, path: str, body: Any, field: str) -> None:
        headers = next(given for prefix, given in asking.items() if path.startswith(prefix))
        answer = await stage.http.request(
            method.upper(),
            re.sub(r"\{[^}]*\}", "x", path),
            content=json.dumps(body),
            headers={**headers, "content-type": "application/json"},
        )
        said = (method, path, body, answer.text)
        assert answer.status_code == 422, said
        assert (answer.json()["code"], answer.json()["field"]) == ("bad_input", field), said
        assert "a character" in answer.json()["detail"], said

    tried = 0
    for method, path, body in json_bodies(stage.app.openapi()):
        for text in UNFIT:
            for place in texts(body):
                await refused(method, path, put(body, place, text), ".".join(map(str, place)))
            for place in mappings(body):
                field = ".".join(map(str, place)) or "body"
                await refused(method, path, put(body, place, {**at(body, place), text: 1}), field)
            tried += 1
    assert tried > 100
    now = await acts(stage), {user: len(session.calls) for user, session in stage.played.items()}
    assert now == before


async def test_it_is_refused_in_every_part_of_every_address(stage: Stage) -> None:
    asking = await bearers(stage)
    tried = 0
    for path, operations in stage.app.openapi()["paths"].items():
        for method, operation in operations.items():
            headers = next(given for prefix, given in asking.items() if path.startswith(prefix))
            for parameter in operation.get("parameters", ()):
                if parameter["in"] not in ("path", "query"):
                    continue
                name, query = parameter["name"], ""
                if parameter["in"] == "path":
                    hostile = path.replace(f"{{{name}}}", "a%00")
                else:
                    hostile, query = path, f"?{name}=a%00b"
                address = re.sub(r"\{[^}]*\}", "x", hostile) + query
                answer = await stage.http.request(method.upper(), address, headers=headers)
                assert (answer.status_code, answer.json()["field"]) == (422, name), (method, address, answer.text)
                tried += 1
    assert tried > 150
    said = await stage.refused(422, "bad_input", "GET", "/v1/orders?a%00b=1")
    assert said["field"] == "query"


async def _hold(stage: Stage) -> None:
    async with stage.services.database.connection() as connection:
        await connection.execute(
            "INSERT INTO positions VALUES (%s, %s, 1, 2, 10, 0, 0, 0, 1)", (AccountId("paper-1"), BTC)
        )


async def test_an_account_is_not_flattened_for_a_reason_that_cannot_be_kept(stage: Stage) -> None:
    key = await stage.trading()
    await _hold(stage)
    path = "/v1/accounts/paper-1/flatten"
    for text in UNFIT:
        answer = await stage.http.post(
            path,
            content=json.dumps({"reason": text}),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "reason"), answer.text
    assert all(not session.calls for session in stage.played.values())
    # What people do write, they may.
    reason = "over the\tweekend:\n* é 😀 ￾ \x07"
    assert (await stage.ask("POST", path, {"reason": reason}, key=key)).status_code == 200
    (entry,) = (await stage.get("/v1/audit?action=flatten"))["items"]
    assert entry["after"]["reason"] == reason
    assert len(entry["after"]["closing"]) == 1


@pytest.mark.parametrize("verb", ["accept", "explain"])
async def test_a_break_is_not_settled_with_a_note_that_cannot_be_kept(stage: Stage, verb: str) -> None:
    key = await stage.trading()
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    item = Break(
        id="brk-1",
        account=AccountId("paper-1"),
        instrument=BTC,
        kind=BreakKind.POSITION,
        ours="1",
        theirs="2",
        opened_at=Nanos(1),
    )
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(breaks=[item])))
    body = {"ours": "1", "theirs": "2", "note": "a\0b"}
    said = await stage.refused(422, "bad_input", "POST", f"/v1/breaks/brk-1/{verb}", body, key=key)
    assert said["field"] == "note"
    assert (await stage.get("/v1/breaks/brk-1"))["resolved_at"] is None


async def test_many_algos_are_not_commanded_where_one_name_cannot_be_told(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(start=True))
    answer = await stage.http.post(
        "/v1/algos/batch",
        content=b'{"action": "stop", "ids": ["momo-1", "\\ud800"]}',
        headers={"authorization": f"Bearer {stage.operator_key}", "content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "ids.1"), answer.text
    assert (await stage.get("/v1/algos/momo-1"))["want"] == "running"


async def test_what_was_done_is_audited_whatever_there_is_to_tell_of_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caller = Caller(user=UserId("admin"), roles=("operator",), key_id="k")
    after = {"why": ["a\0b", {"x\ud800": "\udfff"}], "orders": 2}
    await stage.services.note(caller, "reconcile", "paper\0", after)
    (entry,) = (await stage.get("/v1/audit?action=reconcile"))["items"]
    assert entry["subject"] == "paper\ufffd"
    assert entry["after"] == {"why": ["a\ufffdb", {"x\ufffd": "\ufffd"}], "orders": 2}
    # What was done has been done: its answer does not hang on what cannot be written down.
    with caplog.at_level(logging.ERROR):
        await stage.services.note(caller, "reconcile", "paper-1", object())
    assert "reconcile of paper-1 by admin is not in the audit" in caplog.text


def test_a_problem_tells_what_utf_8_cannot() -> None:
    answer = problems.problem(409, "conflict", "Conflict", "no algo \ud800", {}, field="x\udfff")
    said = json.loads(bytes(answer.body))
    assert (said["detail"], said["field"]) == ("no algo ?", "x?")


def test_the_place_of_unfit_text_is_told_however_deep_it_is() -> None:
    deep: Any = "a\0"
    for _ in range(2_000):
        deep = [deep]
    found = unfit_place({"a": "fine", "b": deep})
    assert found is not None
    assert found[0][:2] == ("b", 0)
    assert unfit_place({"a": ["\t\r\n\x07\x1f\x7f", "é😀\uffff\ue000"], "b": [1, None, True, {"c": 0.5}]}) is None
    assert is_plain("\U0001f600")
    assert all_cleaned({"a": ("\0", 1)}) == {"a": ["\ufffd", 1]}


def test_a_refused_text_is_not_repeated() -> None:
    class Given(Body):
        password: str

    with pytest.raises(ValueError, match="no text may have") as refused:
        Given.model_validate({"password": "hush\0"})
    assert "hush" not in str(refused.value)
