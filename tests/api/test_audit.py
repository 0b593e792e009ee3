"""Who did what is in the audit, whichever route they came by."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from api import logins
from api.logins import Logins
from storage.journal import Journal
from storage.leases import Leases
from storage.records import NodeRecord
from tests.api.auth_plays import AuthPlays
from tests.api.playing import BTC, ETH, Stage, algo_body, order_body
from tests.api.signing_in import clock
from trading.ids import AccountId, Nanos, NodeName
from trading.journal import Break, BreakKind, JournalBatch

__all__ = ["clock"]

#: Mutating routes that leave no entry of their own, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("post", "/v1/nodes/join/look"): "it only looks",
    ("post", "/v1/nodes/join/reach"): "it only tries to reach",
    ("post", "/v1/nodes/join"): "a machine calls it with its token: tests/api/test_joining.py shows the entry",
}

STRATEGY = """
from strategies import Strategy

class Quiet(Strategy):
    pass
"""


async def listed(stage: Stage, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await stage.get(f"/v1/audit?limit=1000&{query}"))["items"]
    return items


async def test_the_audit_is_filtered_and_paged(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    for number in range(7):
        await stage.ask("PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "position", "value": str(number)})
    everything = await listed(stage)
    numbers = [each["number"] for each in everything]
    assert numbers == sorted(numbers, reverse=True)
    paged: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await stage.get(f"/v1/audit?limit=3{cursor}")
        paged += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert paged == everything
    limits = await listed(stage, "action=set_limit")
    assert len(limits) == 7
    assert [each["after"]["value"] for each in limits] == ["6", "5", "4", "3", "2", "1", "0"]
    assert (limits[0]["before"]["value"], limits[-1]["before"]) == ("5", None)
    assert await listed(stage, "subject=cluster/position") == limits
    assert await listed(stage, "subject=cluster/position&action=create_feed") == []
    assert {each["actor"] for each in await listed(stage, "actor=test")} == {"test"}
    middle = limits[3]["at"].replace("+", "%2B")
    assert await listed(stage, f"action=set_limit&since={middle}") == limits[:4]
    assert await listed(stage, f"action=set_limit&until={middle}") == limits[4:]


async def test_the_audit_is_for_operators_only(stage: Stage) -> None:
    key = await stage.person("asha", "trader", "quant", "viewer")
    await stage.refused(403, "forbidden", "GET", "/v1/audit", key=key)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("cursor=zzz", "cursor"),
        ("since=noon", "since"),
        ("subject=%00", "subject"),
        ("actor=", "actor"),
    ],
)
async def test_a_wrong_question_names_the_field(stage: Stage, query: str, field: str) -> None:
    assert (await stage.refused(422, "bad_input", "GET", f"/v1/audit?{query}"))["field"] == field


async def test_a_change_behind_the_triggers_back_is_found_by_verifying(stage: Stage) -> None:
    await stage.trading()
    await stage.ask("PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "position", "value": "5"})
    good = (await stage.ask("POST", "/v1/audit/verify")).json()
    assert (good["ok"], good["findings"]) == (True, [])
    assert {head["chain"] for head in good["heads"]} >= {"deck"}
    assert (await listed(stage, "action=verify_audit"))[0]["after"]["ok"] is True
    with psycopg.connect(stage.services.deck.database_url) as owner:
        owner.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        owner.execute("UPDATE audit SET actor = 'nobody' WHERE action = 'set_limit'")
        owner.execute("ALTER TABLE audit ENABLE TRIGGER USER")
    bad = (await stage.ask("POST", "/v1/audit/verify")).json()
    assert bad["ok"] is False
    (finding,) = bad["findings"]
    assert finding.startswith("deck, link "), finding
    await stage.refused(403, "forbidden", "POST", "/v1/audit/verify", key=await stage.person("cho", "quant"))


async def broken(stage: Stage, *ids: str) -> None:
    """Open breaks of the account."""
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    breaks = [
        Break(
            id=id,
            account=AccountId("paper-1"),
            instrument=BTC,
            kind=BreakKind.POSITION,
            ours="1",
            theirs="2",
            opened_at=Nanos(1_700_000_000_000_000_000),
        )
        for id in ids
    ]
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(breaks=breaks)))


class Playing:
    """A call of every mutating route that succeeds and changes something."""

    def __init__(self, stage: Stage, venue: str) -> None:
        self.stage = stage
        self.venue = venue

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.stage.ask(method, path, body)
        assert answer.is_success, (method, path, answer.text)
        return answer.json() if answer.content else None

    def plays(self) -> list[tuple[str, str, str, Callable[[], Awaitable[Any]]]]:
        """(method, route, action in the audit, call), in an order in which each is possible."""
        made: dict[str, Any] = {}

        def call(method: str, path: str, body: Any = None) -> Callable[[], Awaitable[Any]]:
            return lambda: self.ask(method, path.format(**made), body)

        async def key() -> None:
            made["key"] = (await self.ask("POST", "/v1/keys", {"user": "cho"}))["id"]

        async def join_token() -> None:
            made["join"] = (await self.ask("POST", n + "/tokens", {"node": "edge"}))["id"]

        async def kill() -> None:
            made["kill"] = (await self.ask("POST", "/v1/risk/kill", {"scope": "user:cho", "reason": "x"}))["id"]

        async def seconds() -> None:
            await self.ask("POST", "/v1/feeds", {"id": "fy", "provider": "binance-spot"})
            await self.ask("PUT", "/v1/feeds/fx/seconds", {"seconds": {BTC: {"feed": "fy"}}})

        async def submit() -> None:
            loud = STRATEGY.replace("pass", "bars = ('1m',)")
            answer = await self.stage.upload("quiet", "quiet.py", loud.encode())
            assert answer.status_code == 201, answer.text
            made["version"] = answer.json()["version"]

        async def upgrade() -> None:
            first = (await self.ask("GET", "/v1/strategies/quiet/versions"))["items"][1]["version"]
            body = algo_body("quiet-1", feed="fx", strategy="quiet", strategy_version=first, parameters={})
            await self.ask("POST", "/v1/algos", body)
            await self.ask("POST", "/v1/algos/quiet-1/upgrade", {"version": made["version"]})

        async def delete_strategy() -> None:
            await self.ask("DELETE", "/v1/algos/quiet-1")
            await self.ask("DELETE", "/v1/strategies/quiet")

        async def acknowledge() -> None:
            about = {"kind": "session", "severity": "info", "user": "asha", "subject": "s", "text": "t", "at": Nanos(1)}
            raised = await self.stage.services.alerts.raise_alert(**about)  # type: ignore[arg-type]
            await self.ask("POST", f"/v1/alerts/{raised.id}/acknowledge")

        v = "/v1/strategies/{name}/versions"
        n = "/v1/nodes"
        a, o, f = "/v1/accounts", "/v1/orders", "/v1/feeds"
        c = f + "/{id}/clients/{client}"
        limit = {"scope": "cluster", "kind": "position", "value": "5"}
        imported = {"provider": "binance-spot", "settings": {"base_url": self.venue}}
        more = {"instruments": [ETH]}
        tuning = {"freshness": {"least_s": 2.0}}
        seen = {"ours": "1", "theirs": "2", "note": "bought by phone"}
        return [
            *AuthPlays(self.stage).plays(),
            ("post", "/v1/users", "create_user", call("POST", "/v1/users", {"id": "cho", "roles": ["trader"]})),
            ("patch", "/v1/users/{id}", "update_user",
             call("PATCH", "/v1/users/cho", {"roles": ["trader", "viewer"]})),
            ("post", "/v1/users/{id}/reset", "reset_user", call("POST", "/v1/users/cho/reset")),
            ("post", "/v1/users/{id}/unlock", "unlock_user", call("POST", "/v1/users/cho/unlock")),
            ("put", "/v1/grants/{account}/{user}", "grant_account",
             call("PUT", "/v1/grants/paper-1/cho", {"level": "view"})),
            ("delete", "/v1/grants/{account}/{user}", "revoke_grant", call("DELETE", "/v1/grants/paper-1/cho")),
            ("post", "/v1/keys", "create_api_key", key),
            ("delete", "/v1/keys/{id}", "revoke_api_key", call("DELETE", "/v1/keys/{key}")),
            ("post", a, "create_account", call("POST", a, {"id": "p-9", "user": "cho", "connector": "paper"})),
            ("patch", a + "/{id}", "update_account", call("PATCH", a + "/p-9", {"enabled": False})),
            ("put", a + "/{id}/credentials", "set_credentials",
             call("PUT", a + "/p-9/credentials", {"credentials": {}})),
            ("delete", a + "/{id}", "delete_account", call("DELETE", a + "/p-9")),
            ("post", "/v1/instruments/import", "import_instruments", call("POST", "/v1/instruments/import", imported)),
            ("post", f, "create_feed",
             call("POST", f, {"id": "fx", "provider": "binance-spot", "instruments": [BTC], "workers": 1})),
            ("patch", f + "/{id}", "update_feed", call("PATCH", f + "/fx", {"enabled": False})),
            ("post", f + "/{id}/instruments", "update_feed", call("POST", f + "/fx/instruments", more)),
            ("delete", f + "/{id}/instruments/{instrument}", "update_feed",
             call("DELETE", f + f"/fx/instruments/{ETH}")),
            ("put", f + "/{id}/instruments/{instrument}", "update_feed", call("PUT", f + f"/fx/instruments/{ETH}")),
            ("put", c + "/instruments", "wish_of_feed", call("PUT", f + "/fx/clients/a/instruments", more)),
            ("post", c + "/instruments", "wish_of_feed",
             call("POST", f + "/fx/clients/a/instruments", {"instruments": [BTC]})),
            ("delete", c + "/instruments/{instrument}", "wish_of_feed",
             call("DELETE", f + f"/fx/clients/a/instruments/{BTC}")),
            ("put", c + "/instruments/{instrument}", "wish_of_feed",
             call("PUT", f + f"/fx/clients/a/instruments/{ETH}?channels=depth")),
            ("put", f + "/{id}/tuning", "tune_feed", call("PUT", f + "/fx/tuning", tuning)),
            ("put", f + "/{id}/tuning/{instrument}", "tune_feed", call("PUT", f + f"/fx/tuning/{BTC}", tuning)),
            ("delete", f + "/{id}/tuning/{instrument}", "tune_feed", call("DELETE", f + f"/fx/tuning/{BTC}")),
            ("delete", c, "wish_of_feed", call("DELETE", f + "/fx/clients/a")),
            ("put", f + "/{id}/seconds", "update_feed", seconds),
            ("put", f + "/{id}/seconds/{instrument}", "update_feed",
             call("PUT", f + f"/fx/seconds/{ETH}", {"feed": "fy"})),
            ("delete", f + "/{id}/seconds/{instrument}", "update_feed", call("DELETE", f + f"/fx/seconds/{ETH}")),
            ("delete", f + "/{id}/seconds", "update_feed", call("DELETE", f + "/fx/seconds")),
            ("post", "/v1/strategies", "submit_strategy",
             call("POST", "/v1/strategies", {"name": "quiet", "source": STRATEGY})),
            ("post", v, "submit_strategy", submit),
            ("post", v + "/{version}/deprecate", "deprecate_strategy",
             call("POST", "/v1/strategies/quiet/versions/{version}/deprecate", {"because": "it is too loud"})),
            ("post", v + "/{version}/reinstate", "reinstate_strategy",
             call("POST", "/v1/strategies/quiet/versions/{version}/reinstate")),
            ("post", "/v1/algos", "create_algo", call("POST", "/v1/algos", algo_body(feed="fx"))),
            ("patch", "/v1/algos/{id}", "update_algo",
             call("PATCH", "/v1/algos/momo-1", {"parameters": {"fast": 6, "slow": 20}})),
            ("post", "/v1/algos/{id}/start", "update_algo", call("POST", "/v1/algos/momo-1/start")),
            ("post", "/v1/algos/{id}/restart", "update_algo", call("POST", "/v1/algos/momo-1/restart")),
            ("post", "/v1/algos/{id}/stop", "update_algo", call("POST", "/v1/algos/momo-1/stop")),
            ("post", "/v1/algos/{id}/pause", "update_algo", call("POST", "/v1/algos/momo-1/pause")),
            ("post", "/v1/algos/{id}/resume", "update_algo", call("POST", "/v1/algos/momo-1/resume")),
            ("post", "/v1/algos/{id}/move", "update_algo",
             call("POST", "/v1/algos/momo-1/move", {"node": "edge", "force": True})),
            ("post", "/v1/algos/batch", "update_algo",
             call("POST", "/v1/algos/batch", {"action": "pause", "ids": ["momo-1"]})),
            ("delete", "/v1/algos/{id}", "delete_algo", self._delete_algo),
            ("post", "/v1/algos/{id}/upgrade", "update_algo", upgrade),
            ("post", "/v1/algos/{id}/rollback", "update_algo", call("POST", "/v1/algos/quiet-1/rollback")),
            ("delete", v + "/{version}", "delete_strategy_version",
             call("DELETE", "/v1/strategies/quiet/versions/{version}")),
            ("delete", "/v1/strategies/{name}", "delete_strategy", delete_strategy),
            ("delete", f + "/{id}", "delete_feed", call("DELETE", f + "/fx")),
            ("put", "/v1/surveillance/terms", "set_surveillance_terms",
             call("PUT", "/v1/surveillance/terms", {"terms": {"cancels": 40}})),
            ("put", "/v1/surveillance/terms/{account}", "set_surveillance_terms",
             call("PUT", "/v1/surveillance/terms/paper-1", {"terms": {"cancels": 80}})),
            ("post", n + "/tokens", "create_join_token", join_token),
            ("delete", n + "/tokens/{id}", "revoke_join_token", call("DELETE", n + "/tokens/{join}")),
            ("patch", n + "/{name}", "update_node", call("PATCH", n + "/edge", {"cordoned": True})),
            ("delete", n + "/{name}", "delete_node", call("DELETE", n + "/edge")),
            ("post", o, "place_order", call("POST", o, order_body())),
            ("patch", o + "/{account}/{client_order_id}", "modify_order",
             call("PATCH", o + "/paper-1/k-1", {"limit_price": "60001.0"})),
            ("delete", o + "/{account}/{client_order_id}", "cancel_order", call("DELETE", o + "/paper-1/k-1")),
            ("post", a + "/{id}/cancel-all", "cancel_all", call("POST", a + "/paper-1/cancel-all")),
            ("post", a + "/{id}/flatten", "flatten", call("POST", a + "/paper-1/flatten", {"reason": "weekend"})),
            ("post", a + "/{id}/reconcile", "reconcile", call("POST", a + "/paper-1/reconcile")),
            ("put", "/v1/risk/limits", "set_limit", call("PUT", "/v1/risk/limits", limit)),
            ("delete", "/v1/risk/limits", "set_limit",
             call("DELETE", "/v1/risk/limits?scope=cluster&kind=position")),
            ("post", "/v1/breaks/{id}/accept", "accept_break", call("POST", "/v1/breaks/brk-1/accept", seen)),
            ("post", "/v1/breaks/{id}/explain", "explain_break", call("POST", "/v1/breaks/brk-2/explain", seen)),
            ("post", "/v1/audit/verify", "verify_audit", call("POST", "/v1/audit/verify")),
            ("post", "/v1/alerts/{id}/acknowledge", "acknowledge_alert", acknowledge),
            ("post", "/v1/risk/kill", "kill", kill),
            ("post", "/v1/risk/kills/{id}/lift", "lift_kill", call("POST", "/v1/risk/kills/{kill}/lift")),
        ]  # fmt: skip

    async def _delete_algo(self) -> None:
        # The Supervisor, which is not here, would find it stopped.
        desired = self.stage.services.desired
        epoch = await desired.new_algo_epoch("momo-1")  # type: ignore[arg-type]
        await desired.set_algo_state("momo-1", epoch, "stopped", "")  # type: ignore[arg-type]
        await self.ask("DELETE", "/v1/algos/momo-1")


async def test_every_route_that_changes_something_leaves_an_entry_with_its_actor(
    stage: Stage, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    await stage.trading()
    await broken(stage, "brk-1", "brk-2")
    edge = NodeRecord(name=NodeName("edge"), labels={}, registered_at=Nanos(1))
    await stage.services.desired.create_node(edge, "test")
    plays = Playing(stage, venue).plays()
    routes = {
        (method, path)
        for path, operations in stage.app.openapi()["paths"].items()
        for method in operations
        if method != "get"
    }
    played = {(method, path) for method, path, _, _ in plays}
    unplayed = routes - played - set(EXCEPTIONS)
    assert not unplayed, f"no call here shows that these leave an entry in the audit: {unplayed}"
    assert played <= routes, f"there is no such route: {played - routes}"
    for method, path, action, call in plays:
        newest = (await listed(stage))[0]["number"]
        await call()
        entries = [each for each in await listed(stage, f"action={action}") if each["number"] > newest]
        assert entries, f"{method} {path} left no {action}"
        assert {each["actor"] for each in entries} == {"admin"}, (method, path, entries)


async def test_an_orders_events_name_who_asked_for_it(stage: Stage) -> None:
    key = await stage.trading()
    await stage.make("/v1/orders", order_body(), key=key)
    await stage.ask("DELETE", "/v1/orders/paper-1/k-1", key=key)
    me = await stage.get("/v1/me", key=key)
    events = (await stage.get("/v1/orders/paper-1/k-1"))["events"]
    assert [each["cause"] for each in events] == [f"api/asha/{me['key_id']}"] * 2


async def test_a_keys_first_use_from_an_address_is_noted_once(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    for _ in range(3):
        me = await stage.get("/v1/me", key=key)
    (entry,) = await listed(stage, "action=login&actor=asha")
    assert (entry["subject"], entry["after"]) == (me["key_id"], {"address": "127.0.0.1", "roles": ["trader"]})
    assert len(await listed(stage, "action=login&actor=admin")) == 1


async def test_logins_are_noted_again_after_a_time_and_for_another_address(stage: Stage) -> None:
    now = [0.0]
    noting = Logins(stage.services.keys, stage.services.desired, clock=lambda: now[0])
    for at, address, count in ((0.0, "a", 1), (599.9, "a", 1), (599.9, "b", 2), (600.0, "a", 3), (601.0, "a", 3)):
        now[0] = at
        await noting.used("bo", "k1", ("viewer",), address)  # type: ignore[arg-type]
        assert len(await listed(stage, "action=login&actor=bo")) == count, (at, address)


async def test_a_login_is_noted_later_when_it_could_not_be_noted(stage: Stage, database_url: str) -> None:
    from storage.database import Database
    from storage.desired import Desired

    now = [0.0]
    database = Database(database_url, size=1, name="test")
    noting = Logins(stage.services.keys, Desired(database), clock=lambda: now[0])
    await noting.used("bo", "k1", ("viewer",), "a")  # type: ignore[arg-type]
    await database.open()
    try:
        now[0] = 4.0
        await noting.used("bo", "k1", ("viewer",), "a")  # type: ignore[arg-type]
        assert await listed(stage, "action=login&actor=bo") == []
        now[0] = 5.0
        await noting.used("bo", "k1", ("viewer",), "a")  # type: ignore[arg-type]
        assert len(await listed(stage, "action=login&actor=bo")) == 1
    finally:
        await database.close()


async def test_refused_keys_are_noted_without_the_key_and_tell_whose_it_was(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    id = (await stage.get("/v1/me", key=key))["key_id"]
    await stage.ask("DELETE", f"/v1/keys/{id}")
    await stage.refused(401, "unauthorized", "GET", "/v1/me", key=key)
    for _ in range(5):
        await stage.refused(401, "unauthorized", "GET", "/v1/me", key="qd_guessed_by_somebody")
    (entry,) = await listed(stage, "action=login_refused")
    assert (entry["actor"], entry["subject"], entry["after"]["key"]) == ("asha", id, id)
    assert "revoked" in entry["after"]["reason"]
    await stage.services.doorkeeper.logins.sweep(at_the_end=True)
    more, _ = await listed(stage, "action=login_refused")
    assert (more["actor"], more["subject"], more["after"]["refused"]) == ("unknown", "127.0.0.1", 5)
    assert (await stage.ask("GET", "/v1/audit")).text.find("qd_guessed") == -1


async def test_refused_keys_cannot_fill_the_audit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MOST_REFUSED", 5)
    now = [0.0]
    noting = Logins(stage.services.keys, stage.services.desired, clock=lambda: now[0])
    for number in range(60):
        await noting.refused("qd_x", f"10.0.0.{number % 20}", "not known")
    assert len(await listed(stage, "action=login_refused")) == 5
    now[0] = 600.0
    await noting.sweep()
    entries = await listed(stage, "action=login_refused")
    assert sum(each["after"]["refused"] for each in entries) == 60
    assert len(entries) <= 5 + 5 + 1
