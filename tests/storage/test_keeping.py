"""Instruments, loans, snapshots, logs, keys, secrets and the paper book."""

from __future__ import annotations

import asyncio
import base64
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import psycopg
import pytest

from storage.algo_log import KEPT, AlgoLog
from storage.api_keys import ApiKeys
from storage.database import Database
from storage.desired import Desired
from storage.instruments import Instruments
from storage.leases import Leases
from storage.loans import Loans
from storage.paper_ledger import PaperLedger
from storage.records import LoanRecord
from storage.secrets import VARIABLE, Secrets, load_key
from storage.snapshots import Snapshots
from tests.storage.samples import ACCOUNT, ALGO, INSTRUMENT, fill, fill_desired
from trading.broker import BrokerFill, BrokerOrder, BrokerPosition
from trading.errors import BadInput, Fenced, NeedsOperator, UnknownThing
from trading.ids import AlgoId, BrokerOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instruments import Instrument
from trading.orders import OrderState, OrderType, Side, TimeInForce


def instrument(symbol: str, **changes: object) -> Instrument:
    values: dict[str, object] = {
        "id": InstrumentId(f"BINANCE:{symbol}"),
        "provider_symbol": symbol,
        "provider": "binance-usdm",
        "tick_size": Decimal("0.10"),
        "lot_size": Decimal("0.001"),
        "currency": "USDT",
        **changes,
    }
    return Instrument(**values)  # type: ignore[arg-type]


async def test_an_instrument_keeps_its_number_for_ever(db: Database) -> None:
    catalogue = Instruments(db)
    btc, eth = await catalogue.upsert([instrument("BTCUSDT"), instrument("ETHUSDT")])
    assert 1 <= btc.number < 2**31
    assert btc.number != eth.number
    for _ in range(5):
        await catalogue.upsert([instrument("ETHUSDT")])
    changed, new = await catalogue.upsert([instrument("ETHUSDT", tick_size=Decimal("0.05")), instrument("SOLUSDT")])
    assert (changed.number, changed.tick_size) == (eth.number, Decimal("0.05"))
    # Repeated writes burn no numbers.
    assert new.number == eth.number + 1
    assert await catalogue.get([new.id, InstrumentId("X:NONE"), btc.id]) == [new, btc]
    assert await catalogue.all("binance-usdm") == [btc, changed, new]
    assert await catalogue.all("nobody") == []


async def test_racing_writers_agree_on_numbers(db: Database) -> None:
    catalogue = Instruments(db)
    symbols = [f"S{n}USDT" for n in range(30)]
    done = await asyncio.gather(
        *(catalogue.upsert([instrument(s) for s in (symbols if n % 2 else symbols[::-1])]) for n in range(4))
    )
    numbers = [{each.id: each.number for each in one} for one in done]
    assert all(each == numbers[0] for each in numbers)
    assert len(set(numbers[0].values())) == 30


async def test_search_finds_by_symbol_and_description_and_takes_no_wildcards(db: Database) -> None:
    catalogue = Instruments(db)
    await catalogue.upsert([instrument("BTCUSDT", description="Bitcoin perpetual"), instrument("WBTCUSDT")])
    assert [each.provider_symbol for each in await catalogue.search("btc")] == ["BTCUSDT", "WBTCUSDT"]
    assert [each.provider_symbol for each in await catalogue.search("PERPET")] == ["BTCUSDT"]
    assert await catalogue.search("%") == []


async def test_an_instrument_with_a_senseless_step_is_refused_whole(db: Database) -> None:
    catalogue = Instruments(db)
    with pytest.raises(BadInput, match="tick_size"):
        await catalogue.upsert([instrument("BTCUSDT"), instrument("ETHUSDT", tick_size=Decimal(0))])
    with pytest.raises(BadInput, match="VENUE:SYMBOL"):
        await catalogue.upsert([instrument("BTCUSDT", id=InstrumentId("btc"))])
    assert await catalogue.all() == []


async def test_loans_are_kept_fenced_and_removed_at_zero(db: Database) -> None:
    loans, leases = Loans(db), Leases(db)
    epoch = await leases.take("risk/main", "a", 5)
    one = LoanRecord(session="u1", session_epoch=Epoch(1), resource="cluster/gross", amount=Decimal("10.5"))
    other = msgspec.structs.replace(one, session_epoch=Epoch(2), amount=Decimal(7))
    await loans.save(epoch, [one, other])
    assert await loans.load() == [one, other]
    await loans.save(epoch, [msgspec.structs.replace(one, amount=Decimal(0))])
    assert await loans.load() == [other]
    await leases.take("risk/main", "b", 5)
    with pytest.raises(Fenced):
        await loans.save(epoch, [one])
    with pytest.raises(BadInput, match="amount"):
        await loans.save(epoch + 1, [msgspec.structs.replace(one, amount=Decimal(-1))])
    assert await loans.load() == [other]


async def test_a_snapshot_of_an_old_incarnation_is_refused(db: Database) -> None:
    desired, snapshots = Desired(db), Snapshots(db)
    await fill_desired(desired, db)
    assert await snapshots.load(ALGO.id) is None
    first = await desired.new_algo_epoch(ALGO.id)
    await snapshots.save(ALGO.id, first, b"\x00one")
    second = await desired.new_algo_epoch(ALGO.id)
    with pytest.raises(Fenced) as caught:
        await snapshots.save(ALGO.id, first, b"late")
    assert caught.value.seen == second
    assert await snapshots.load(ALGO.id) == b"\x00one"
    await snapshots.save(ALGO.id, second, b"two")
    assert await snapshots.load(ALGO.id) == b"two"
    with pytest.raises(UnknownThing):
        await snapshots.save(AlgoId("none"), first, b"")


async def test_a_log_is_read_from_its_end_and_bounded(db: Database) -> None:
    log = AlgoLog(db)
    await fill_desired(Desired(db), db)
    now = time.time_ns()
    await log.append(ALGO.id, Epoch(1), [(Nanos(now), "info", "first"), (Nanos(now + 1), "error", "bad\0byte")])
    lines = await log.tail(ALGO.id, 10)
    assert [(each.at, each.level, each.text) for each in lines] == [
        (now, "info", "first"),
        (now + 1, "error", "bad\ufffdbyte"),
    ]
    assert await log.tail(ALGO.id, 10, after_id=lines[0].number) == lines[1:]
    for start in range(0, 12_000, 3_000):
        await log.append(ALGO.id, Epoch(2), [(Nanos(now + n), "info", str(n)) for n in range(start, start + 3_000)])
    async with db.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM algo_log")).fetchone()
    assert row == (KEPT,)
    assert (await log.tail(ALGO.id, 1))[0].text == "11999"
    with pytest.raises(UnknownThing):
        await log.append(AlgoId("none"), Epoch(1), [(Nanos(1), "info", "x")])


async def test_an_api_key_is_shown_once_and_stored_as_its_hash(db: Database, database_url: str) -> None:
    keys = ApiKeys(db)
    await fill_desired(Desired(db), db)
    assert await keys.count() == 0
    id, key = await keys.create(UserId("u1"), ["operator"], "first", None)
    found = await keys.find(key)
    assert found is not None
    assert (found.id, found.user, found.roles, found.label) == (id, "u1", ("operator",), "first")
    assert await keys.find(key + "x") is None
    with psycopg.connect(database_url) as connection:
        assert key not in str(connection.execute("SELECT * FROM api_keys").fetchall())
        assert key not in str(connection.execute("SELECT * FROM audit").fetchall())
    await keys.revoke(id, "op")
    assert await keys.find(key) is None
    assert await keys.count() == 1
    assert (await keys.list())[0].revoked_at is not None
    with pytest.raises(UnknownThing):
        await keys.revoke("none", "op")
    with pytest.raises(UnknownThing, match="no user named 'none'"):
        await keys.create(UserId("none"), ["operator"], "x", None)
    with pytest.raises(BadInput, match="roles"):
        await keys.create(UserId("u1"), [], "x", None)


async def test_an_expired_api_key_opens_nothing(db: Database) -> None:
    keys = ApiKeys(db)
    await fill_desired(Desired(db), db)
    _, key = await keys.create(UserId("u1"), ["viewer"], "short", Nanos(time.time_ns() + 3_600_000_000_000))
    assert await keys.find(key) is not None
    async with db.connection() as connection:
        await connection.execute("UPDATE api_keys SET expires_at = %s", (time.time_ns() - 1,))
    assert await keys.find(key) is None
    with pytest.raises(BadInput, match="expires_at"):
        await keys.create(UserId("u1"), ["viewer"], "x", Nanos(1))


async def test_secrets_are_unreadable_in_the_table_and_bound_to_their_name(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    key = load_key(tmp_path)
    secrets = Secrets(db, key)
    await secrets.put("account/a1", {"password": "hunter2", "totp": "ABC"})
    await secrets.put("account/a2", {"password": "other"})
    assert await secrets.get("account/a1") == {"password": "hunter2", "totp": "ABC"}
    with psycopg.connect(database_url, autocommit=True) as connection:
        rows = connection.execute("SELECT sealed FROM secrets").fetchall()
        assert all(b"hunter2" not in row[0] and b"password" not in row[0] for row in rows)
        connection.execute(
            "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'account/a1') "
            "WHERE name = 'account/a2'"
        )
    with pytest.raises(NeedsOperator, match="account/a2"):
        await secrets.get("account/a2")
    with pytest.raises(NeedsOperator, match="another key"):
        await Secrets(db, bytes(32)).get("account/a1")
    await secrets.delete("account/a1")
    with pytest.raises(UnknownThing):
        await secrets.get("account/a1")


def test_the_secret_key_is_made_once_and_must_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    key = load_key(tmp_path)
    assert len(key) == 32
    assert load_key(tmp_path) == key
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]
    (tmp_path / "secret.key").chmod(0o640)
    with pytest.raises(NeedsOperator, match="chmod 600"):
        load_key(tmp_path)
    (tmp_path / "secret.key").chmod(0o600)
    (tmp_path / "secret.key").write_text("short")
    with pytest.raises(NeedsOperator, match="32 bytes"):
        load_key(tmp_path)
    given = base64.urlsafe_b64encode(b"k" * 32).decode()
    monkeypatch.setenv(VARIABLE, given)
    assert load_key(tmp_path) == b"k" * 32
    monkeypatch.setenv(VARIABLE, "not base64!")
    with pytest.raises(NeedsOperator, match=VARIABLE):
        load_key(tmp_path)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(NeedsOperator, match="absent"):
        load_key(tmp_path / "absent")


def broker_order(id: str, state: OrderState, at: int, **changes: object) -> BrokerOrder:
    values: dict[str, object] = {
        "broker_order_id": BrokerOrderId(id),
        "tag": f"T{id}",
        "instrument": INSTRUMENT,
        "side": Side.SELL,
        "type": OrderType.STOP_LIMIT,
        "time_in_force": TimeInForce.GTC,
        "quantity": Decimal("2.0"),
        "filled_quantity": Decimal(0),
        "state": state,
        "at": Nanos(at),
        "limit_price": Decimal("10.1"),
        "stop_price": Decimal(11),
        **changes,
    }
    return BrokerOrder(**values)  # type: ignore[arg-type]


async def test_the_paper_book_comes_back_as_it_was_saved(db: Database) -> None:
    ledger, leases = PaperLedger(db), Leases(db)
    epoch = await leases.take(f"connection/{ACCOUNT}", "a", 5)
    assert await ledger.load(ACCOUNT) is None
    now = time.time_ns()
    trail = {"type": OrderType.TRAILING_STOP, "limit_price": None, "stop_price": None, "trail_price": Decimal(2)}
    old_open = broker_order("b1", OrderState.SUBMITTED, 5, **trail, high_water=Decimal("12.5"))
    old_done = broker_order("b2", OrderState.CANCELLED, 5)
    new_done = broker_order("b3", OrderState.FILLED, now, triggered=True, reason="x", filled_quantity=Decimal(2))
    executed = BrokerFill(
        broker_order_id=BrokerOrderId("b3"),
        tag="Tb3",
        instrument=INSTRUMENT,
        side=Side.SELL,
        fill=fill("x1", at=now),
    )
    position = BrokerPosition(instrument=INSTRUMENT, quantity=Decimal("-2.0"), average_price=Decimal("10.1"))
    cash = Decimal("1000.123456789012345678")
    await ledger.save(ACCOUNT, epoch, [old_open, old_done, new_done], [executed], [position], cash, "USDT")
    report = await ledger.load(ACCOUNT)
    assert report is not None
    assert report.orders == (old_open, new_done)
    assert report.fills == (executed,)
    assert report.positions == (position,)
    assert (report.cash, report.currency) == (cash, "USDT")
    assert report.requested_at <= report.received_at

    other_price = msgspec.structs.replace(executed, fill=fill("x1", price="1", at=now))
    flat = msgspec.structs.replace(position, quantity=Decimal(0))
    cancelled = msgspec.structs.replace(old_open, state=OrderState.CANCELLED, at=Nanos(now), high_water=Decimal(13))
    await ledger.save(ACCOUNT, epoch, [cancelled], [other_price], [flat], Decimal(5), "USDT")
    report = await ledger.load(ACCOUNT)
    assert report is not None
    assert report.fills == (executed,)
    assert report.positions == ()
    assert report.cash == 5
    assert {each.state for each in report.orders} == {OrderState.CANCELLED, OrderState.FILLED}
    assert cancelled in report.orders

    await leases.take(f"connection/{ACCOUNT}", "b", 5)
    with pytest.raises(Fenced):
        await ledger.save(ACCOUNT, epoch, [], [], [], Decimal(6), "USDT")
    report = await ledger.load(ACCOUNT)
    assert report is not None
    assert report.cash == 5
