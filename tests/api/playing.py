"""A stage for the API: clients by role, things to trade, and sessions that journal what they are asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from fastapi import FastAPI
from msgspec.structs import replace

from api.services import Services
from storage.records import UserRecord
from trading.account_check import AccountCheck
from trading.errors import Conflict, TradeError, UnknownThing
from trading.flattening import Flattened, Flattening
from trading.ids import CauseId, ClientOrderId, InstrumentId, Nanos, UserId, broker_tag
from trading.instruments import Instrument
from trading.journal import Break, JournalBatch, Settlement
from trading.orders import (
    CancelOrder,
    EventKind,
    Order,
    OrderEvent,
    OrderState,
    OrderType,
    PlaceOrder,
    Side,
    apply,
    order_from,
)

BTC = InstrumentId("BINANCE:BTCUSDT")
ETH = InstrumentId("BINANCE:ETHUSDT")


def instrument(id: str, **changes: Any) -> Instrument:
    """An instrument of the spot market."""
    values: dict[str, Any] = {
        "id": InstrumentId(id),
        "provider_symbol": id.split(":")[1],
        "provider": "binance-spot",
        "tick_size": Decimal("0.1"),
        "lot_size": Decimal("0.001"),
        "currency": "USDT",
        **changes,
    }
    return Instrument(**values)


class PlayedSession:
    """Answers as a `UserSession` does, and writes to the real journal under a real lease."""

    def __init__(self, user: UserId, services: Services) -> None:
        self.user = user
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        #: Raised by the next call, once.
        self.raises: TradeError | None = None
        #: The next order is denied for these reasons.
        self.denies: list[str] = []
        #: What is answered to changes of these orders.
        self.refuses: dict[str, TradeError] = {}
        self.orders: dict[tuple[str, str], Order] = {}
        self._services = services
        self._epoch = 0
        self._batch = 0
        self._at = time.time_ns()

    async def call(self, method: str, *args: Any, timeout: float = 5.0) -> Any:
        self.calls.append((method, args))
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        if method == "place":
            return tuple([await self._place(intent) for intent in args[0]])
        if method == "cancel":
            return tuple([await self._change(c, EventKind.CANCELLED) for c in args[0]])
        if method == "modify":
            return await self._change(args[0], EventKind.MODIFY_REQUESTED)
        if method == "settle_break":
            return await self._settle(*args)
        if method == "reconcile":
            return AccountCheck(
                account=args[0],
                at=Nanos(self._at),
                orders=2,
                executions=1,
                positions=1,
                adopted=(),
                made_up=0,
                our_cash=Decimal(5),
                their_cash=Decimal(5),
                currency="USDT",
                cash_not_compared="",
                breaks=tuple(await self._services.journal.breaks()),
                tolerated=(),
            )
        if method == "kill":
            (kill,) = args
            mine = [o for o in self.orders.values() if not o.state.is_final]
            for order in mine:
                taken = CancelOrder(account=order.account, client_order_id=order.client_order_id, cause=kill.id)
                await self._change(taken, EventKind.CANCELLED)
            return len(mine)
        if method == "flatten":
            return await self._flatten(*args)
        assert method == "cancel_all"
        still_open = [o for o in self.orders.values() if o.account == args[0] and not o.state.is_final]
        return tuple([await self._change(o, EventKind.CANCELLED) for o in still_open])

    async def _flatten(self, wish: Flattening) -> Flattened:
        mine = [o for o in self.orders.values() if o.account == wish.account and not o.state.is_final]
        cancelled = [await self._change(order, EventKind.CANCELLED) for order in mine]
        closing = [
            PlaceOrder(
                account=held.account,
                client_order_id=ClientOrderId(f"{wish.id}-{number}.1"),
                instrument=held.instrument,
                side=Side.SELL if held.quantity > 0 else Side.BUY,
                type=OrderType.MARKET,
                quantity=abs(held.quantity),
                reduce_only=True,
                cause=CauseId(wish.cause),
            )
            for number, held in enumerate(await self._services.journal.positions([wish.account]))
            if held.quantity
        ]
        return Flattened(cancelled=tuple(cancelled), closing=tuple([await self._place(each) for each in closing]))

    async def _settle(self, account: str, break_id: str, how: str, by: str, note: str, seen: tuple[str, str]) -> Break:
        item = await self._services.journal.find_break(break_id)
        assert item is not None
        if (item.ours, item.theirs) != seen:
            raise Conflict("break_moved", "look at it again")
        closed = replace(
            item,
            resolved_at=Nanos(item.opened_at + 2_000_000_000),
            resolution=f"{how} by {by}: {note}",
            settlement=Settlement(how),
            resolved_by=by,
        )
        await self._append(JournalBatch(breaks=[closed]))
        return closed

    async def _place(self, intent: PlaceOrder) -> Order | TradeError:
        known = self.orders.get((intent.account, intent.client_order_id))
        if known is not None:
            return known
        found = await self._services.instruments.get([intent.instrument])
        if not found:
            return UnknownThing("instrument", intent.instrument)
        try:
            found[0].check_quantity(intent.quantity)
        except TradeError as error:
            return error
        self._at += 1
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), Nanos(self._at))
        if self.denies:
            order.state, order.reason = OrderState.DENIED, "; ".join(self.denies)
            self.denies = []
        kind = EventKind.DENIED if order.state is OrderState.DENIED else EventKind.PENDING
        self.orders[(order.account, order.client_order_id)] = order
        await self._append(JournalBatch(orders=[order], events=[self._event(order, kind, intent.cause)]))
        return order

    async def _change(self, what: Any, kind: EventKind) -> Order | TradeError:
        if (refusal := self.refuses.get(what.client_order_id)) is not None:
            return refusal
        order = self.orders.get((what.account, what.client_order_id))
        if order is None:
            return UnknownThing("order", what.client_order_id)
        if order.state.is_final:
            return Conflict("order_is_final", f"order {order.client_order_id} is {order.state}")
        if getattr(what, "seen", None) not in (None, order.updated_at):
            return Conflict("order_moved", "look at it again")
        self._at += 1
        event = self._event(order, kind, getattr(what, "cause", ""))
        apply(order, event)
        await self._append(JournalBatch(heads=[order], events=[event]))
        return order

    def _event(self, order: Order, kind: EventKind, cause: Any) -> OrderEvent:
        return OrderEvent(
            kind=kind,
            account=order.account,
            client_order_id=order.client_order_id,
            at=Nanos(self._at),
            actor=f"session/{self.user}",
            cause=cause,
        )

    async def _append(self, batch: JournalBatch) -> None:
        from storage.leases import Leases

        owner = f"session/{self.user}"
        if not self._epoch:
            self._epoch = await Leases(self._services.database).take(owner, "test", 60.0)
        self._batch += 1
        journal = self._services.journal
        await journal.append(owner, self._epoch, self._batch, journal.prepare(batch))


@dataclass
class Stage:
    """The application and what tests need of it."""

    app: FastAPI
    services: Services
    http: httpx.AsyncClient
    operator_key: str
    played: dict[str, PlayedSession]
    keys: dict[str, str] = field(default_factory=dict)

    async def person(self, user: str, *roles: str) -> str:
        """A user with these roles, and a key."""
        record = UserRecord(id=UserId(user), roles=roles, created_at=Nanos(1))
        await self.services.desired.create_user(record, "test")
        _, key = await self.services.keys.create(UserId(user), roles, "test")
        return key

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """A request as the operator, or with ``key`` ("" = without any)."""
        chosen = self.operator_key if key is None else key
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        return await self.http.request(method, path, json=body, headers=headers)

    async def upload(
        self, name: str, file: str, data: bytes, *, key: str | None = None, **query: Any
    ) -> httpx.Response:
        """Submit a strategy's file."""
        headers = {"Authorization": f"Bearer {self.operator_key if key is None else key}"}
        return await self.http.post(
            f"/v1/strategies/{name}/versions",
            content=data,
            headers=headers,
            params={"file": file, **query},
            timeout=120,
        )

    async def get(self, path: str, *, key: str | None = None, status: int = 200) -> Any:
        """The body of a GET that must succeed."""
        answer = await self.ask("GET", path, key=key)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def make(self, path: str, body: Any, *, key: str | None = None) -> Any:
        """The body of a POST that must create."""
        answer = await self.ask("POST", path, body, key=key)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def refused(
        self, status: int, code: str, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> Any:
        """The problem of a request that must be refused, its shape checked."""
        answer = await self.ask(method, path, body, key=key)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        said = answer.json()
        assert said["code"] == code, said
        assert said["status"] == status
        assert said["type"] == f"urn:quarterdeck:problem:{code}"
        assert said["title"]
        assert said["detail"]
        return said

    async def trading(self, user: str = "asha", account: str = "paper-1") -> str:
        """A trader with a paper account and two listed instruments; returns the key."""
        key = await self.person(user, "trader", "quant")
        await self.services.instruments.upsert([instrument(BTC), instrument(ETH)])
        await self.make("/v1/accounts", {"id": account, "user": user, "connector": "paper"})
        return key

    async def fed(self, feed: str = "crypto", *instruments: str) -> None:
        """A feed of listed instruments."""
        await self.make(
            "/v1/feeds",
            {
                "id": feed,
                "provider": "binance-spot",
                "instruments": list(instruments or (BTC, ETH)),
                "workers": 2,
            },
        )


def order_body(key: str | None = "k-1", account: str = "paper-1", **changes: Any) -> dict[str, Any]:
    """A limit order."""
    body: dict[str, Any] = {
        "account": account,
        "instrument": BTC,
        "side": "buy",
        "type": "limit",
        "quantity": "0.010",
        "limit_price": "60000.0",
        "time_in_force": "gtc",
        **changes,
    }
    return body if key is None else {**body, "client_order_id": key}


def algo_body(id: str = "momo-1", **changes: Any) -> dict[str, Any]:
    """A moving-average cross."""
    return {
        "id": id,
        "strategy": "ma-cross",
        "account": "paper-1",
        "feed": "crypto",
        "instruments": [BTC],
        "parameters": {"fast": 5, "slow": 20},
        **changes,
    }
