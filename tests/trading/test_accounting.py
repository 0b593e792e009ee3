"""Positions of accounts and algos, and their exposure, against sums over all fills and open orders."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trading.exposure import ExposureBook
from trading.ids import AccountId, AlgoId, ClientOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import Fill, Order, OrderType, PlaceOrder, Side, order_from
from trading.positions import Position

D = Decimal
ACCOUNTS = [AccountId("a"), AccountId("b")]
ALGOS = [None, AlgoId("g1"), AlgoId("g2")]
INSTRUMENTS = {InstrumentId("T:A"): D(1), InstrumentId("T:B"): D(50)}
Holder = tuple[AccountId, AlgoId | None, InstrumentId]
Deal = tuple[Holder, Side, Decimal, Decimal, Decimal]


class Accounting(RuleBasedStateMachine):
    """Orders are opened, filled bit by bit and taken back; prices move.  The model only keeps lists."""

    def __init__(self) -> None:
        super().__init__()
        self.book = ExposureBook()
        self.positions: dict[Holder, Position] = {}
        self.open: dict[ClientOrderId, tuple[Holder, Order, Decimal]] = {}
        self.deals: list[Deal] = []
        self.marks: dict[InstrumentId, Decimal] = {}
        self.number = 0
        for instrument in INSTRUMENTS:
            self.price(instrument, 100)

    @rule(instrument=st.sampled_from(sorted(INSTRUMENTS)), price=st.integers(1, 500))
    def price(self, instrument: InstrumentId, price: int) -> None:
        self.marks[instrument] = D(price)
        self.book.set_mark(instrument, D(price))

    @rule(
        account=st.sampled_from(ACCOUNTS),
        algo=st.sampled_from(ALGOS),
        instrument=st.sampled_from(sorted(INSTRUMENTS)),
        side=st.sampled_from(Side),
        quantity=st.integers(1, 20),
    )
    def opens(
        self, account: AccountId, algo: AlgoId | None, instrument: InstrumentId, side: Side, quantity: int
    ) -> None:
        self.number += 1
        key = ClientOrderId(f"k{self.number}")
        wanted = PlaceOrder(
            account=account,
            client_order_id=key,
            instrument=instrument,
            side=side,
            type=OrderType.MARKET,
            quantity=D(quantity),
            algo=algo,
        )
        holder: Holder = (account, algo, instrument)
        self.open[key] = (holder, order_from(wanted, key, Nanos(1)), D(0))
        self.counts(key, D(quantity))

    def counts(self, key: ClientOrderId, quantity: Decimal) -> None:
        (account, algo, instrument), order, before = self.open[key]
        part = self.book.part(account, algo, instrument, INSTRUMENTS[instrument])
        self.book.count(part, order, before, quantity)
        if quantity:
            self.open[key] = ((account, algo, instrument), order, quantity)
        else:
            del self.open[key]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def is_taken_back(self, data: st.DataObject) -> None:
        self.counts(data.draw(st.sampled_from(sorted(self.open))), D(0))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.integers(1, 4), price=st.integers(1, 500), fee=st.integers(-2, 5))
    def fills(self, data: st.DataObject, share: int, price: int, fee: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        holder, order, opened = self.open[key]
        account, algo, instrument = holder
        quantity = max(opened * share // 4, D(1))
        deal = Fill(execution_id=ExecutionId("x"), quantity=quantity, price=D(price), at=Nanos(1), fee=D(fee))
        multiplier = INSTRUMENTS[instrument]
        whole: Holder = (account, None, instrument)
        for owner in {whole, holder}:
            fresh = Position(account=account, instrument=instrument, multiplier=multiplier, algo=owner[1])
            self.positions.setdefault(owner, fresh).apply(order.side, deal)
        self.counts(key, opened - quantity)
        part = self.book.part(account, algo, instrument, multiplier)
        self.book.set_position(part.line, self.positions[whole].quantity)
        if part.own is not None:
            self.book.set_position(part.own, self.positions[holder].quantity)
        self.deals.append((holder, order.side, quantity, D(price), D(fee)))

    def deals_of(self, owner: Holder) -> list[Deal]:
        """An account's position has the deals of everybody, an algo's its own."""
        account, algo, instrument = owner
        return [d for d in self.deals if (d[0][0], d[0][2]) == (account, instrument) and algo in (None, d[0][1])]

    @invariant()
    def positions_are_the_sums_of_their_deals(self) -> None:
        for owner, position in self.positions.items():
            deals = self.deals_of(owner)
            held = sum((side.sign * quantity for _, side, quantity, _, _ in deals), D(0))
            cash = -sum((Fraction(side.sign * quantity * price) for _, side, quantity, price, _ in deals), Fraction(0))
            assert position.quantity == held
            assert position.fees == sum((fee for *_, fee in deals), D(0))
            mark, multiplier = self.marks[owner[2]], INSTRUMENTS[owner[2]]
            gained = (cash + Fraction(held * mark)) * Fraction(multiplier)
            assert abs(Fraction(position.realised + position.unrealised(mark)) - gained) < Fraction(1, 10**12)

    @invariant()
    def exposure_is_the_worst_case_of_all_lines(self) -> None:
        def worst(owner: Holder) -> Decimal:
            account, algo, instrument = owner
            position = self.positions.get(owner)
            held = position.quantity if position is not None else D(0)
            mine = [
                (order.side, quantity)
                for (a, g, i), order, quantity in self.open.values()
                if (a, i) == (account, instrument) and algo in (None, g)
            ]
            high = held + sum((q for side, q in mine if side is Side.BUY), D(0))
            low = held - sum((q for side, q in mine if side is Side.SELL), D(0))
            return max(abs(high), abs(low)) * self.marks[instrument] * INSTRUMENTS[instrument]

        def gross(account: AccountId, algo: AlgoId | None) -> Decimal:
            return sum((worst((account, algo, i)) for i in INSTRUMENTS), D(0))

        for account, level in self.book.accounts.items():
            assert level.gross == gross(account, None)
        for algo, level in self.book.algos.items():
            assert level.gross == sum((gross(a, algo) for a in ACCOUNTS), D(0))
        assert self.book.session.gross == sum((gross(a, None) for a in ACCOUNTS), D(0))
        assert self.book.session.open_orders == len(self.open)


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
