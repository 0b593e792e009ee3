"""Values that the tests of storage write and expect back."""

from __future__ import annotations

from decimal import Decimal

from storage.database import Database
from storage.desired import Desired
from storage.records import AccountRecord, AlgoRecord, FeedRecord, StrategyRecord, UserRecord
from storage.strategies import Strategies
from trading.ids import (
    AccountId,
    AlgoId,
    ClientOrderId,
    Epoch,
    ExecutionId,
    FeedId,
    InstrumentId,
    Nanos,
    NodeName,
    UserId,
    broker_tag,
)
from trading.orders import (
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)

ACCOUNT = AccountId("acc-1")
INSTRUMENT = InstrumentId("BINANCE:BTCUSDT")


def order(key: str, *, at: int = 1_000, account: str = ACCOUNT, **changes: object) -> Order:
    values: dict[str, object] = {
        "account": AccountId(account),
        "client_order_id": ClientOrderId(key),
        "instrument": INSTRUMENT,
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": Decimal("1.50"),
        "limit_price": Decimal("27000.10"),
        "stop_price": None,
        "time_in_force": TimeInForce.GTC,
        "reduce_only": False,
        "algo": AlgoId("momo-1"),
        "tag": broker_tag(account, key),
        "state": OrderState.PENDING,
        "created_at": Nanos(at),
        "updated_at": Nanos(at),
        **changes,
    }
    return Order(**values)  # type: ignore[arg-type]


def event(of: Order, kind: EventKind, at: int = 1_000, **changes: object) -> OrderEvent:
    return OrderEvent(
        kind=kind,
        account=of.account,
        client_order_id=of.client_order_id,
        at=Nanos(at),
        actor="session/u1",
        **changes,  # type: ignore[arg-type]
    )


def fill(execution_id: str, quantity: str = "0.5", price: str = "27000.1", at: int = 2_000) -> Fill:
    return Fill(
        execution_id=ExecutionId(execution_id),
        quantity=Decimal(quantity),
        price=Decimal(price),
        at=Nanos(at),
        fee=Decimal("0.0135"),
        fee_currency="USDT",
    )


USER = UserRecord(id=UserId("u1"), roles=("trader",), created_at=Nanos(1))
TRADING_ACCOUNT = AccountRecord(
    id=ACCOUNT,
    user=UserId("u1"),
    connector="paper",
    settings={"cash": "1000"},
    enabled=True,
    created_at=Nanos(1),
)
FEED = FeedRecord(
    id=FeedId("crypto"),
    provider="binance-usdm",
    settings={},
    channels=("trade", "quote"),
    workers=3,
    instruments=(INSTRUMENT,),
    created_at=Nanos(1),
)
STRATEGY = StrategyRecord(
    name="ma-cross", version="0" * 64, entry="strategies.ma:Cross", builtin=True, schema={}, created_at=Nanos(1)
)
ALGO = AlgoRecord(
    id=AlgoId("momo-1"),
    user=UserId("u1"),
    account=ACCOUNT,
    strategy="ma-cross",
    parameters={"fast": 5, "slow": 20.5},
    instruments=(INSTRUMENT,),
    feed=FeedId("crypto"),
    node=NodeName(""),
    want="running",
    state="waiting",
    reason="",
    epoch=Epoch(0),
    created_at=Nanos(1),
    updated_at=Nanos(1),
)


async def fill_desired(desired: Desired, db: Database) -> None:
    """One of everything that an algo needs, and the algo."""
    await desired.create_user(USER, "test")
    await desired.create_account(TRADING_ACCOUNT, "test")
    await desired.create_feed(FEED, "test")
    await Strategies(db).put_builtin(STRATEGY, "test")
    await desired.create_algo(ALGO, "test")
