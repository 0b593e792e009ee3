"""One session core driven by hand: the test decides what comes back, and when."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

from msgspec.structs import replace

from tests.trading.fake_broker import FakeBroker
from tests.trading.making import instrument
from trading.account_book import AccountBook
from trading.broker import (
    Answer,
    BrokerPosition,
    BrokerReport,
    BrokerUpdate,
    Capabilities,
    OrderTicket,
    UpdateKind,
    Verdict,
)
from trading.budgets import RiskBook
from trading.errors import TradeError
from trading.ids import AccountId, BrokerOrderId, ClientOrderId, Epoch, ExecutionId, InstrumentId, Nanos, UserId
from trading.instructions import (
    Append,
    AskBudget,
    AskReport,
    Checked,
    Instruction,
    Lane,
    Reply,
    Send,
    Settled,
    Tell,
    Wake,
)
from trading.journal import AccountHistory
from trading.limits import Limit, LimitTree
from trading.orders import CancelOrder, Fill, ModifyOrder, Order, OrderState, OrderType, PlaceOrder, Side
from trading.positions import Position
from trading.session import SessionCore

D = Decimal
ACC = AccountId("acc")
AAA = instrument("1", "1", number=1, symbol="AAA")
BBB = instrument("1", "1", number=2, symbol="BBB")
SECOND = 1_000_000_000
START = Nanos(1_700_000_000 * SECOND)
LATE_NS = SECOND
PRICE = D(100)
T = TypeVar("T", Append, Wake, Send, AskReport, AskBudget, Reply, Tell, Settled, Checked)


def limit(kind: str, value: int | str, scope: str = "cluster", of: str = "") -> Limit:
    return Limit(scope=scope, kind=kind, instrument=of, value=D(value))


def buy(key: str, quantity: int = 5, price: str | None = "100", **more: Any) -> PlaceOrder:
    return intent(key, Side.BUY, quantity, price, **more)


def sell(key: str, quantity: int = 5, price: str | None = "100", **more: Any) -> PlaceOrder:
    return intent(key, Side.SELL, quantity, price, **more)


def intent(key: str, side: Side, quantity: int, price: str | None, **more: Any) -> PlaceOrder:
    return PlaceOrder(
        account=ACC,
        client_order_id=ClientOrderId(key),
        instrument=more.pop("of", AAA.id),
        side=side,
        type=more.pop("type", OrderType.LIMIT if price else OrderType.MARKET),
        quantity=D(quantity),
        limit_price=D(price) if price else None,
        **more,
    )


def held(quantity: int, of: InstrumentId = AAA.id) -> Position:
    return Position(account=ACC, instrument=of, quantity=D(quantity), average_cost=PRICE)


def used_of(core: SessionCore, resource: str) -> Decimal:
    """Use of a shared amount by a session."""
    exposure = core.exposure
    return exposure.used(exposure.session.money_at_risk()).get(resource, D(0))


class Rig:
    """The core, its clock, the instructions that nobody has carried out yet, and a broker to ask."""

    def __init__(
        self,
        *,
        limits: Sequence[Limit] | None = (),
        history: AccountHistory | None = None,
        positions: Sequence[Position] = (),
        ready: bool = True,
        marks: bool = True,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.now = START
        self.core = SessionCore(UserId("u"), Epoch(1))
        self.core.instruments.update({AAA.id: AAA, BBB.id: BBB})
        self.todo: list[Instruction] = []
        self.broker = FakeBroker(ACC)
        self.risk = RiskBook(LimitTree(limits or (), 1), Epoch(1))
        self.token = 0
        history = history or AccountHistory(
            account=ACC, loaded_at=START, orders=[], positions=list(positions), executions=set(), breaks=[]
        )
        self.base = {p.instrument: p.quantity for p in history.positions}
        self.do(self.core.add_account(history, LATE_NS, self.now, capabilities))
        if marks:
            self.do(self.core.set_marks({AAA.id: PRICE, BBB.id: PRICE}, self.now))
        if ready:
            self.do(self.core.connection(ACC, True, self.now))
            self.report()
            self.commit_all()
        if limits is not None:
            self.clock()
            self.grant()

    @property
    def book(self) -> AccountBook:
        return self.core.accounts[ACC]

    def do(self, instructions: Sequence[Instruction]) -> None:
        self.todo += instructions

    def waiting(self, kind: type[T]) -> list[T]:
        return [i for i in self.todo if isinstance(i, kind)]

    def take(self, kind: type[T]) -> T:
        found = next((i for i in self.todo if isinstance(i, kind)), None)
        assert found is not None, f"no {kind.__name__} among {self.todo}"
        self.todo.remove(found)
        return found

    def take_send(self, lane: Lane) -> Send:
        found = next((i for i in self.todo if isinstance(i, Send) and i.lane is lane), None)
        assert found is not None, f"no {lane} among {self.todo}"
        self.todo.remove(found)
        return found

    # Events

    def after(self, seconds: float) -> None:
        self.now = Nanos(self.now + int(seconds * SECOND))

    def clock(self, after: float = 0.0) -> None:
        self.after(after)
        self.do(self.core.clock(self.now))

    def commit(self) -> Append:
        append = self.take(Append)
        self.do(self.core.appended(append.number, self.now))
        return append

    def commit_all(self) -> list[Append]:
        done = []
        while self.waiting(Append):
            done.append(self.commit())
        return done

    def grant(self) -> None:
        grant, _ = self.risk.report(self.take(AskBudget).report)
        self.do(self.core.granted(grant, self.now))

    def place(self, *intents: PlaceOrder) -> int:
        self.token += 1
        self.do(self.core.place(self.token, intents, self.now))
        return self.token

    def cancel(self, *keys: str) -> int:
        self.token += 1
        cancels = [CancelOrder(account=ACC, client_order_id=ClientOrderId(k)) for k in keys]
        self.do(self.core.cancel(self.token, cancels, self.now))
        return self.token

    def modify(
        self,
        key: str,
        quantity: int | None = None,
        price: int | None = None,
        seen: Nanos | None = None,
        **more: Decimal,
    ) -> int:
        self.token += 1
        change = ModifyOrder(
            account=ACC,
            client_order_id=ClientOrderId(key),
            quantity=None if quantity is None else D(quantity),
            limit_price=None if price is None else D(price),
            seen=seen,
            **more,
        )
        self.do(self.core.modify(self.token, change, self.now))
        return self.token

    def reply(self, token: int) -> tuple[Order | TradeError, ...]:
        found = [r for r in self.waiting(Reply) if r.token == token]
        assert len(found) == 1, f"{len(found)} replies to {token}"
        self.todo.remove(found[0])
        return found[0].results

    def one(self, token: int) -> Order:
        (result,) = self.reply(token)
        assert isinstance(result, Order), result
        return result

    def error(self, token: int) -> TradeError:
        (result,) = self.reply(token)
        assert isinstance(result, TradeError), result
        return result

    def answer(self, send: Send, verdict: Verdict = Verdict.ACCEPTED, reason: str = "") -> None:
        """Answer every ticket of a request without the broker having seen it."""
        answers = [
            Answer(tag=t.tag, verdict=verdict, reason=reason) if verdict is not Verdict.ACCEPTED else self._accept(t)
            for t in send.tickets
        ]
        self.do(self.core.answered(ACC, send.lane, send.number, answers, self.now))

    def _accept(self, ticket: Any) -> Answer:
        if isinstance(ticket, OrderTicket):
            return self.broker.place(ticket, self.now)
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED)

    def working(self, wanted: PlaceOrder) -> Order:
        """An order that the broker has accepted."""
        token = self.place(wanted)
        while not [r for r in self.waiting(Reply) if r.token == token]:
            if self.waiting(AskBudget):
                self.grant()
            self.commit_all()
        order = self.one(token)
        assert order.state is OrderState.PENDING, order
        self.answer(self.take_send(Lane.PLACE))
        self.commit_all()
        self.broker.take_told()
        return self.order(wanted.client_order_id)

    def filled(self, wanted: PlaceOrder) -> Order:
        order = self.working(wanted)
        self.fill(wanted.client_order_id, int(order.quantity))
        self.commit_all()
        return order

    def order(self, key: str) -> Order:
        return self.book.orders[ClientOrderId(key)]

    def at_broker(self, key: str) -> BrokerOrderId:
        row = self.broker.of_tag(self.order(key).tag)
        assert row is not None
        return row.broker_order_id

    def fill(self, key: str, quantity: int, price: str = "100") -> BrokerUpdate:
        self.broker.fill(self.at_broker(key), D(quantity), D(price), self.now)
        return self.hear()

    def end(self, key: str, kind: UpdateKind) -> BrokerUpdate:
        self.broker.end(self.at_broker(key), kind, self.now)
        return self.hear()

    def hear(self) -> BrokerUpdate:
        """The session reads all that the broker has said; returns the last of it."""
        told = self.broker.take_told()
        self.do(self.core.updated(ACC, told, self.now))
        return told[-1]

    def update(
        self, key: str, kind: UpdateKind, *, execution: str = "", quantity: int = 1, size: int = 0, **more: Any
    ) -> None:
        """An update out of thin air."""
        order = self.order(key)
        fill = (
            Fill(execution_id=ExecutionId(execution), quantity=D(quantity), price=PRICE, at=self.now)
            if execution
            else None
        )
        update = BrokerUpdate(
            kind=kind,
            tag=order.tag,
            instrument=order.instrument,
            at=self.now,
            fill=fill,
            quantity=D(size) if size else None,
            **more,
        )
        self.do(self.core.updated(ACC, [update], self.now))

    def report(self, report: BrokerReport | None = None) -> None:
        """The report that was asked for comes in: of the broker as it is now, or a given one."""
        self.take(AskReport)
        self.do(self.core.reported(ACC, report or self.view(), self.now))

    def next_report(self, report: BrokerReport | None = None) -> None:
        """Wait until a report is due, then take it in."""
        for _ in range(400):
            if self.waiting(AskReport):
                self.report(report)
                return
            self.clock(0.1)
            if self.waiting(AskBudget):
                self.grant()
        raise AssertionError("no report was asked for in 40 s")

    def view(self) -> BrokerReport:
        """The broker's view, with what was held before the test began."""

        report = self.broker.report(Nanos(0), self.now)
        theirs = {p.instrument: p.quantity for p in report.positions}
        sums = {i: self.base.get(i, D(0)) + theirs.get(i, D(0)) for i in {*self.base, *theirs}}
        return replace(report, positions=tuple(BrokerPosition(instrument=i, quantity=q) for i, q in sums.items()))

    def used(self, resource: str) -> Decimal:
        return used_of(self.core, resource)

    def kinds(self, appends: Sequence[Append]) -> list[str]:
        return [str(e.kind) for a in appends for e in a.batch.events]
