from __future__ import annotations

import base64
from decimal import Decimal

import pytest

from storage import desired
from storage.leases import Leases
from storage.secrets import secret_name
from tests.api.playing import BTC, Stage, algo_body, order_body
from trading.errors import NotReady, UnknownThing
from trading.ids import AccountId, Nanos
from trading.journal import JournalBatch
from trading.positions import Position


async def test_users_are_made_listed_and_audited(stage: Stage) -> None:
    made = await stage.make("/v1/users", {"id": "asha", "roles": ["trader", "viewer"]})
    assert made["created_at"].endswith("+00:00")
    assert [user["id"] for user in (await stage.get("/v1/users"))["items"]] == ["admin", "asha"]
    password, entry = await stage.services.desired.audit_of("asha")
    assert (password.action, password.after) == ("set_password", {"one_time": True})
    assert (entry.actor, entry.action) == ("admin", "create_user")
    await stage.refused(409, "user_exists", "POST", "/v1/users", {"id": "asha", "roles": ["viewer"]})
    said = await stage.refused(422, "bad_input", "POST", "/v1/users", {"id": "No Name", "roles": ["viewer"]})
    assert said["field"] == "id"


async def test_lists_go_page_by_page(stage: Stage) -> None:
    for name in ("c", "a", "b"):
        await stage.make("/v1/users", {"id": name, "roles": ["viewer"]})
    first = await stage.get("/v1/users?limit=3")
    second = await stage.get(f"/v1/users?limit=3&cursor={first['next']}")
    assert [user["id"] for user in first["items"] + second["items"]] == ["a", "admin", "b", "c"]
    assert second["next"] is None
    for query in ("limit=0", "limit=1001", "cursor=***"):
        await stage.refused(422, "bad_input", "GET", f"/v1/users?{query}")


async def test_an_account_lives_and_goes(stage: Stage) -> None:
    key = await stage.trading()
    record = await stage.get("/v1/accounts/paper-1", key=key)
    assert record["enabled"] is True
    changed = await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    assert changed.json()["enabled"] is False
    again = await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    assert again.json()["generation"] == changed.json()["generation"]
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1")).status_code == 204
    await stage.refused(404, "unknown_account", "GET", "/v1/accounts/paper-1")


async def test_an_account_in_use_stays(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/orders", order_body())
    said = await stage.refused(409, "account_in_use", "DELETE", "/v1/accounts/paper-1")
    assert "open orders" in said["detail"]
    await stage.ask("POST", "/v1/accounts/paper-1/cancel-all")
    await stage.make("/v1/algos", algo_body())
    await stage.refused(409, "account_in_use", "DELETE", "/v1/accounts/paper-1")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"connector": "nobody"}, "unknown_broker", "connector"),
        ({"user": "nobody"}, "unknown_user", "user"),
        ({"id": "Bad Id"}, "bad_input", "id"),
        ({"settings": {"colour": "red"}}, "bad_input", "settings.colour"),
        ({"settings": {"cash": "-5"}}, "bad_input", "settings.cash"),
        ({"settings": {"fill_ratio": "2"}}, "bad_input", "settings.fill_ratio"),
        ({"settings": {"orders_per_s": 0}}, "bad_input", "settings.orders_per_s"),
        ({"settings": {"late_arrival_s": "soon"}}, "bad_input", "settings.late_arrival_s"),
        ({"settings": {"feed": "nothing"}}, "unknown_feed", "settings.feed"),
    ],
)
async def test_a_wrong_account_is_refused_by_field(
    stage: Stage, changes: dict[str, object], code: str, field: str
) -> None:
    body = {"id": "paper-1", "user": "admin", "connector": "paper", **changes}
    said = await stage.refused(422, code, "POST", "/v1/accounts", body)
    assert said["field"] == field
    assert (await stage.get("/v1/accounts"))["items"] == []


ALPACA = {"id": "alpaca-1", "user": "admin", "connector": "alpaca", "settings": {"environment": "paper"}}
KEYS = {"key": "PKTOPSECRET", "secret": "very-secret-indeed"}


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the secrets store, so that none is made in the user's home."""
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())


@pytest.mark.usefixtures("secret_key")
async def test_credentials_go_in_encrypted_and_never_come_out(stage: Stage) -> None:
    made = await stage.make("/v1/accounts", ALPACA | {"credentials": KEYS})
    assert await stage.services.secrets.get(secret_name("alpaca-1")) == KEYS
    told = [made, await stage.get("/v1/accounts"), await stage.get("/v1/accounts/alpaca-1")]
    told.append(await stage.get("/v1/accounts/alpaca-1/credentials"))
    assert told[-1] == {"needed": ["key", "secret"], "given": ["key", "secret"]}
    audited = await stage.services.desired.audit_of()
    shown = repr(told) + repr(audited)
    for value in KEYS.values():
        assert value not in shown
    assert ("set_credentials", "alpaca-1", {"names": ["key", "secret"]}) in [
        (entry.action, entry.subject, entry.after) for entry in audited
    ]
    async with stage.services.database.connection() as connection:
        rows = await (await connection.execute("SELECT sealed FROM secrets")).fetchall()
    assert all(value.encode() not in bytes(row[0]) for row in rows for value in KEYS.values())


@pytest.mark.usefixtures("secret_key")
async def test_credentials_are_replaced_and_go_with_the_account(stage: Stage) -> None:
    await stage.make("/v1/accounts", ALPACA | {"credentials": KEYS})
    version = await stage.services.desired.version()
    path = "/v1/accounts/alpaca-1/credentials"
    new = {"key": "PK2", "secret": "other"}
    assert (await stage.ask("PUT", path, {"credentials": new})).status_code == 204
    assert await stage.services.secrets.get(secret_name("alpaca-1")) == new
    assert await stage.services.desired.version() > version, "the connection is told"
    said = await stage.refused(422, "bad_input", "PUT", path, {"credentials": {"key": "PK3"}})
    assert said["field"] == "credentials.secret"
    assert await stage.services.secrets.get(secret_name("alpaca-1")) == new
    assert (await stage.ask("DELETE", "/v1/accounts/alpaca-1")).status_code == 204
    with pytest.raises(UnknownThing):
        await stage.services.secrets.get(secret_name("alpaca-1"))


async def test_without_the_secret_key_nothing_is_made_and_nothing_changed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = base64.urlsafe_b64encode(bytes(32)).decode()
    services = stage.services
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "too short")
    version = await services.desired.version()
    await stage.refused(424, "needs_operator", "POST", "/v1/accounts", ALPACA | {"credentials": KEYS})
    await stage.refused(404, "unknown_account", "GET", "/v1/accounts/alpaca-1")
    assert await services.desired.version() == version
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", good)
    await stage.make("/v1/accounts", ALPACA | {"credentials": KEYS})
    assert await services.secrets.get(secret_name("alpaca-1")) == KEYS
    # An account goes with its credentials, whether anybody can read them or not.
    monkeypatch.setattr(services, "_secrets", None)
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "too short")
    path = "/v1/accounts/alpaca-1/credentials"
    await stage.refused(424, "needs_operator", "PUT", path, {"credentials": KEYS})
    assert (await stage.ask("DELETE", "/v1/accounts/alpaca-1")).status_code == 204
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", good)
    with pytest.raises(UnknownThing):
        await services.secrets.get(secret_name("alpaca-1"))


@pytest.mark.usefixtures("secret_key")
async def test_credentials_that_cannot_be_written_leave_no_account(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise NotReady("the database went away")

    monkeypatch.setattr(desired, "keep_secret", away)
    await stage.refused(503, "not_ready", "POST", "/v1/accounts", ALPACA | {"credentials": KEYS})
    await stage.refused(404, "unknown_account", "GET", "/v1/accounts/alpaca-1")
    assert "create_account" not in [entry.action for entry in await stage.services.desired.audit_of()]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "credentials.key"),
        ({"credentials": {"key": "PK"}}, "credentials.secret"),
        ({"credentials": KEYS | {"pin": "1"}}, "credentials.pin"),
        ({"credentials": KEYS, "settings": {"secret": "in the wrong place"}}, "settings"),
        ({"connector": "paper", "settings": {}, "credentials": KEYS}, "credentials.key"),
    ],
)
@pytest.mark.usefixtures("secret_key")
async def test_wrong_credentials_are_refused_by_field(stage: Stage, changes: dict[str, object], field: str) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/accounts", ALPACA | changes)
    assert said["field"] == field
    assert "very-secret" not in repr(said)
    assert "wrong place" not in repr(said)
    assert (await stage.get("/v1/accounts"))["items"] == []


@pytest.mark.usefixtures("secret_key")
async def test_a_feed_may_use_only_a_key_that_its_maker_may_use(stage: Stage) -> None:
    await stage.make("/v1/users", {"id": "other", "roles": ["quant"]})
    key = (await stage.make("/v1/keys", {"user": "other"}))["key"]
    await stage.make("/v1/accounts", ALPACA | {"credentials": KEYS})
    feed = {"id": "shares", "provider": "alpaca", "settings": {"account": "alpaca-1"}, "instruments": ["ALPACA:AAPL"]}
    said = await stage.refused(422, "unknown_account", "POST", "/v1/feeds", feed, key=key)
    assert said["field"] == "settings.account"


async def _hold(stage: Stage, account: str) -> None:
    position = Position(account=AccountId(account), instrument=BTC, quantity=Decimal("0.5"), updated_at=Nanos(5))
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    journal = stage.services.journal
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(positions=[position])))


async def test_an_account_that_holds_something_goes_only_by_force(stage: Stage) -> None:
    await stage.trading()
    await _hold(stage, "paper-1")
    said = await stage.refused(409, "account_in_use", "DELETE", "/v1/accounts/paper-1")
    assert f"holds {BTC}: flatten it first" in said["detail"]
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1?force=true")).status_code == 204


async def test_the_name_of_an_account_that_is_gone_is_nobody_elses(stage: Stage) -> None:
    await stage.trading()
    await _hold(stage, "paper-1")
    await stage.make("/v1/orders", order_body())
    await stage.ask("POST", "/v1/accounts/paper-1/cancel-all")
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1?force=true")).status_code == 204
    other = await stage.person("bo", "trader")
    body = {"id": "paper-1", "user": "bo", "connector": "paper"}
    said = await stage.refused(409, "name_was_anothers", "POST", "/v1/accounts", body)
    assert "asha" not in said["detail"]
    assert (await stage.get("/v1/orders", key=other))["items"] == []
    await stage.make("/v1/accounts", {**body, "user": "asha"})
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1?force=true")).status_code == 204
    await stage.refused(409, "name_was_anothers", "POST", "/v1/accounts", body)
