"""Sessions in a world that delays, loses, doubles and reorders, and kills them at any instruction.

`World` carries out a core's instructions as the real shell may: each of them completes at some later moment,
interleaved with all others.  What must never happen is asserted where it would happen.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import cast

import msgspec

from tests.trading.fake_broker import FakeBroker
from tests.trading.fake_journal import FakeJournal, KeysExist, frozen
from tests.trading.making import instrument
from trading.broker import AmendTicket, Answer, BrokerUpdate, CancelTicket, OrderTicket, UpdateKind, Verdict
from trading.budgets import RiskBook
from trading.errors import Fenced
from trading.ids import AccountId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instructions import Append, AskBudget, AskReport, Instruction, Lane, Reply, Send, Tell, Wake
from trading.limits import Limit, LimitTree
from trading.orders import CancelOrder, ModifyOrder, OrderState, OrderType, PlaceOrder, Side
from trading.session import SessionCore
from trading.session_requests import STALE_NS

D = Decimal
SECOND = 1_000_000_000
MS = SECOND // 1000
START = Nanos(1_700_000_000 * SECOND)
#: An order of whose request no answer is expected any more can still show up at the broker for so long.
LATE_NS = SECOND
#: A connection may hold tickets back (rate limits) for so long before it sends and answers.
HELD_NS = 3 * SECOND
INSTRUMENTS = (instrument("1", "1", number=1, symbol="AAA"), instrument("1", "1", number=2, symbol="BBB"))
PRICE = D(100)


class Later(msgspec.Struct):
    """Something under way.  ``core``: for this incarnation's eyes; None: happens whoever lives."""

    what: str
    act: Callable[[], None]
    core: SessionCore | None
    #: Must happen by then.
    by: Nanos = Nanos(0)


class Desk(msgspec.Struct):
    """One user's session, its broker, and what links them."""

    user: UserId
    account: AccountId
    broker: FakeBroker
    core: SessionCore | None = None
    #: What the connection has read from the broker and the session has not.
    ring: list[BrokerUpdate] = []
    asked: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    keys: list[ClientOrderId] = []
    up: bool = False


class World:
    """Everything around the cores.  All that is random comes from ``seed``."""

    def __init__(self, seed: int, *, users: int = 1, limits: Sequence[Limit] = (), faults: bool = True) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.now = START
        self.journal = FakeJournal()
        self.loans: dict[tuple[str, Epoch, str], Decimal] = {}
        self.limits = LimitTree(limits, 1)
        self.desk_epoch = 0
        self.book = self._new_book()
        self.book_is_up = True
        self.later: list[Later] = []
        self.trace: deque[str] = deque(maxlen=400)
        self.token = 0
        self.sent: Counter[str] = Counter()
        self.desks = []
        for n in range(users):
            account = AccountId(f"acc{n}")
            self.desks.append(Desk(user=UserId(f"u{n}"), account=account, broker=FakeBroker(account)))
            self.begin(self.desks[-1])

    def note(self, text: str) -> None:
        self.trace.append(f"{(self.now - START) / 1e9:8.3f} {text}")

    # Life and death

    def begin(self, desk: Desk) -> None:
        epoch = self.journal.lease(f"session/{desk.user}")
        core = SessionCore(desk.user, epoch)
        core.instruments.update({i.id: i for i in INSTRUMENTS})
        desk.core, desk.up = core, False
        desk.asked, desk.answered = Counter(), Counter()
        self.note(f"{desk.user} begins epoch {epoch}")
        self.do(desk, core.add_account(self.journal.load(desk.account, self.now), LATE_NS, self.now))
        self.do(desk, core.set_marks({i.id: PRICE for i in INSTRUMENTS}, self.now))

    def crash(self, desk: Desk) -> None:
        """The process is gone; what it had sent may still arrive for a while."""
        self.note(f"{desk.user} crashes")
        self.later = [item for item in self.later if item.core is not desk.core or item.core is None]
        for item in self.later:
            item.by = Nanos(min(item.by, self.now + LATE_NS // 2))
        desk.core, desk.up, desk.ring = None, False, []
        desk.broker.told = []

    def _new_book(self) -> RiskBook:
        self.desk_epoch += 1
        book = RiskBook(self.limits, Epoch(self.desk_epoch))
        for (session, epoch, resource), amount in self.loans.items():
            book.restore(session, epoch, resource, amount)
        return book

    def restart_risk(self) -> None:
        """Central risk comes back with what it had saved."""
        self.note("risk restarts")
        self.book = self._new_book()

    def set_limits(self, limits: Sequence[Limit]) -> None:
        self.limits = self.book.limits = LimitTree(limits, self.limits.version + 1)

    # Carrying out

    def do(self, desk: Desk, instructions: Sequence[Instruction]) -> None:
        core = desk.core
        assert core is not None
        for instruction in instructions:
            match instruction:
                case Append(number, batch):
                    self._append(desk, core, number, frozen(batch))
                case Wake():
                    self.put("wake", lambda: self.do(desk, core.wake(self.now)), core)
                case Send():
                    self._send(desk, core, instruction)
                case AskReport():
                    self._report(desk, core, instruction)
                case AskBudget():
                    self._budget(desk, core, instruction)
                case Reply(token, results):
                    desk.answered[token] += 1
                    self.note(f"{desk.user} replies {token}: {[_short(r) for r in results]}")
                    assert desk.answered[token] == 1, f"token {token} was answered twice"
                    assert len(results) == desk.asked[token]
                case Tell(notes):
                    for told in notes:
                        assert told.event in self.journal.events, "told before it was durable"

    def put(self, what: str, act: Callable[[], None], core: SessionCore | None, within: int = 3600 * SECOND) -> None:
        self.later.append(Later(what, act, core, Nanos(self.now + within)))

    def _append(self, desk: Desk, core: SessionCore, number: int, batch: object) -> None:
        owner = f"session/{desk.user}"

        def write() -> None:
            try:
                self.journal.append(owner, core.epoch, number, batch)  # type: ignore[arg-type]
            except KeysExist as exist:
                known = exist.known
                self.put("refused", lambda: self.do(desk, core.append_refused(number, known, self.now)), core)
            else:
                self.put(f"appended {number}", lambda: self.do(desk, core.appended(number, self.now)), core)

        self.put(f"append {number}", write, core)

    def _send(self, desk: Desk, core: SessionCore, send: Send) -> None:
        self.note(f"{desk.user} sends {send.lane} {[t.tag[:4] for t in send.tickets]}")
        if send.lane is Lane.PLACE:
            for ticket in send.tickets:
                row = self.journal.order_of_tag(ticket.tag)
                assert row is not None, f"{ticket.tag} was sent before it was journaled"
                mine = core.accounts[desk.account].by_tag[ticket.tag]
                assert mine.state is OrderState.PENDING, f"a {mine.state} order was sent"
                assert self.now - mine.created_at <= STALE_NS, "a stale order was sent"
                self.sent[ticket.tag] += 1
                assert self.sent[ticket.tag] == 1, f"{ticket.tag} was sent twice"
        fate = self.random.random() if self.faults else 1.0
        if fate < 0.08:  # the request gets lost
            answers = [Answer(tag=t.tag, verdict=Verdict.UNKNOWN, reason="no answer") for t in send.tickets]
            self._answer(desk, core, send, answers)
        elif fate < 0.16:  # no answer in time, and yet it arrives
            answers = [Answer(tag=t.tag, verdict=Verdict.UNKNOWN, reason="too late") for t in send.tickets]

            def gives_up() -> None:
                self.do(desk, core.answered(send.account, send.lane, send.number, answers, self.now))
                self.put("arrives late", lambda: cast(None, self._arrive(desk, send)), None, LATE_NS // 2)

            self.put("gives up", gives_up, core, HELD_NS)
        elif fate < 0.20:  # refused by the connection
            answers = [Answer(tag=t.tag, verdict=Verdict.REJECTED, reason="not sent") for t in send.tickets]
            self._answer(desk, core, send, answers)
        else:

            def arrives() -> None:
                answers = self._arrive(desk, send)
                if self.faults and self.random.random() < 0.1:
                    answers = [Answer(tag=a.tag, verdict=Verdict.UNKNOWN, reason="answer lost") for a in answers]
                self._answer(desk, core, send, answers)

            self.put(f"{send.lane} arrives", arrives, None, HELD_NS)

    def _arrive(self, desk: Desk, send: Send) -> list[Answer]:
        broker, answers = desk.broker, []
        for ticket in send.tickets:
            bad = self.faults and self.random.random() < 0.1
            match ticket:
                case OrderTicket():
                    answers.append(broker.place(ticket, self.now, reject=bad))
                case AmendTicket():
                    answers.append(broker.amend(ticket, self.now, reject=bad))
                case CancelTicket():
                    answers.append(broker.cancel(ticket, self.now))
        self.note(f"at the broker: {[(a.tag[:4], str(a.verdict)) for a in answers]}")
        return answers

    def _answer(self, desk: Desk, core: SessionCore, send: Send, answers: list[Answer]) -> None:
        def deliver() -> None:
            if desk.core is core:
                self.note(f"{desk.user} hears {send.lane} {[(a.tag[:4], str(a.verdict)) for a in answers]}")
                self.do(desk, core.answered(send.account, send.lane, send.number, answers, self.now))

        self.put(f"answer {send.lane}", deliver, core, HELD_NS)

    def _report(self, desk: Desk, core: SessionCore, ask: AskReport) -> None:
        def fetch() -> None:
            report = desk.broker.report(ask.since, self.now)
            given = None if self.faults and self.random.random() < 0.1 else report
            self.put("reported", lambda: self.do(desk, core.reported(ask.account, given, self.now)), core)

        self.put("report", fetch, core)

    def _budget(self, desk: Desk, core: SessionCore, ask: AskBudget) -> None:
        def fail() -> None:
            self.do(desk, core.budget_failed(self.now))

        def reaches() -> None:
            if not self.book_is_up:
                return
            book = self.book
            try:
                grant, raised = book.report(ask.report)
            except Fenced:
                return
            # As in the shell: durable before it is given out, and lowered records go along.
            if raised:
                self.loans = {
                    (session, book.epoch_of(session), resource): amount
                    for session, mine in book.lent.items()
                    for resource, amount in mine.items()
                }
            if desk.core is not core or (self.faults and self.random.random() < 0.1):
                return
            self.put("granted", lambda: self.do(desk, core.granted(grant, self.now)), core)

        # Gives up before, after or without being heard; a report may reach central risk late.
        if self.faults and self.random.random() < 0.15:
            self.put("budget fails", fail, core)
            self.put("late report", reaches, None)
        else:

            def ask_and_fail() -> None:
                reaches()
                if not any(item.what == "granted" and item.core is core for item in self.later):
                    self.put("budget fails", fail, core)

            self.put("budget", ask_and_fail, core)

    # The world turns

    def step(self, item: Later | None = None) -> None:
        """One of the things under way happens."""
        if item is None:
            if not self.later:
                return
            item = self.random.choice(self.later)
        self.later.remove(item)
        self.note(item.what)
        item.act()

    def pass_time(self, ns: int) -> None:
        """Time goes on; what has a deadline keeps it; the sessions' clocks tick."""
        until = Nanos(self.now + ns)
        while due := [item for item in self.later if item.by <= until]:
            first = min(due, key=lambda item: item.by)
            self.now = Nanos(max(self.now, first.by))
            self.step(first)
        self.now = until
        for desk in self.desks:
            if desk.core is not None:
                self.do(desk, desk.core.clock(self.now))

    def link(self, desk: Desk) -> None:
        """The session reads the connection: some updates, doubled and out of order where faults are on."""
        core = desk.core
        if core is None:
            return
        if not desk.up:
            desk.up = True
            desk.ring, desk.broker.told = [], []
            self.do(desk, core.connection(desk.account, True, self.now))
            return
        desk.ring += desk.broker.take_told()
        if self.faults:
            self.random.shuffle(desk.ring)
            count = self.random.randint(0, len(desk.ring))
        else:
            count = len(desk.ring)
        page, desk.ring = desk.ring[:count], desk.ring[count:]
        if self.faults and page and self.random.random() < 0.2:
            page = [*page, self.random.choice(page)]
        if page:
            self.note(f"{desk.user} reads {[(u.tag[:4], str(u.kind)) for u in page]}")
            self.do(desk, core.updated(desk.account, page, self.now))

    def unlink(self, desk: Desk) -> None:
        """The connection drops, and with it what was not read."""
        if desk.core is not None and desk.up:
            desk.up, desk.ring, desk.broker.told = False, [], []
            self.do(desk, desk.core.connection(desk.account, False, self.now))

    def market(self, desk: Desk) -> None:
        """Something happens to an open order at the broker."""
        rows = desk.broker.open()
        if not rows:
            return
        row = self.random.choice(rows)
        chance = self.random.random()
        left = row.quantity - row.filled_quantity
        if chance < 0.75:
            desk.broker.fill(row.broker_order_id, D(self.random.randint(1, int(left))), PRICE, self.now)
        elif chance < 0.85:
            desk.broker.end(row.broker_order_id, UpdateKind.EXPIRED, self.now)
        elif chance < 0.92:
            desk.broker.end(row.broker_order_id, UpdateKind.REJECTED, self.now)
        elif self.faults:  # a fill that was under way when the order ended
            desk.broker.end(row.broker_order_id, UpdateKind.CANCELLED, self.now)
            desk.broker.fill(row.broker_order_id, D(1), PRICE, self.now)

    # Commands

    def order(
        self, desk: Desk, key: str, side: Side, quantity: int, symbol: InstrumentId, **more: object
    ) -> PlaceOrder:
        return PlaceOrder(
            account=desk.account,
            client_order_id=ClientOrderId(key),
            instrument=symbol,
            side=side,
            type=OrderType.LIMIT,
            quantity=D(quantity),
            limit_price=PRICE,
            created_at=self.now,
            **more,  # type: ignore[arg-type]
        )

    def place(self, desk: Desk, intents: Sequence[PlaceOrder]) -> None:
        if desk.core is not None:
            token = self._ask(desk, len(intents))
            desk.keys += [i.client_order_id for i in intents]
            self.note(
                f"{desk.user} place {token}: {[(i.client_order_id, str(i.side), int(i.quantity)) for i in intents]}"
            )
            self.do(desk, desk.core.place(token, intents, self.now))

    def cancel(self, desk: Desk, key: ClientOrderId) -> None:
        if desk.core is not None:
            token = self._ask(desk, 1)
            self.note(f"{desk.user} cancel {token}: {key}")
            cancels = [CancelOrder(account=desk.account, client_order_id=key)]
            self.do(desk, desk.core.cancel(token, cancels, self.now))

    def modify(self, desk: Desk, key: ClientOrderId, quantity: int) -> None:
        if desk.core is not None:
            token = self._ask(desk, 1)
            self.note(f"{desk.user} modify {token}: {key} to {quantity}")
            change = ModifyOrder(account=desk.account, client_order_id=key, quantity=D(quantity))
            self.do(desk, desk.core.modify(token, change, self.now))

    def _ask(self, desk: Desk, count: int) -> int:
        self.token += 1
        desk.asked[self.token] = count
        return self.token

    def heal(self, seconds: float = 70) -> None:
        """No more faults; everything under way happens; time passes until all is quiet."""
        self.faults, self.book_is_up = False, True
        for desk in self.desks:
            if desk.core is None:
                self.begin(desk)
        for _ in range(int(seconds / 0.25)):
            for desk in self.desks:
                self.link(desk)
            for _ in range(1000):
                if not self.later:
                    break
                self.step(self.later[0])
            self.pass_time(SECOND // 4)


def _short(result: object) -> str:
    return f"{result.state}" if hasattr(result, "state") else f"{type(result).__name__}: {result}"
