"""The exposure kept up to date order by order, against a count from scratch."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trading.exposure import ExposureBook, effect_of
from trading.ids import AccountId, AlgoId, ClientOrderId, InstrumentId, Nanos
from trading.money_at_risk import money_at_risk, working
from trading.orders import Order, OrderType, PlaceOrder, Side, order_from

D = Decimal
ACCOUNTS = [AccountId("a"), AccountId("b")]
ALGOS = [None, AlgoId("g1"), AlgoId("g2")]
INSTRUMENTS = {InstrumentId("T:A"): D(1), InstrumentId("T:B"): D(50)}

#: The prices of the orders here: what values them while no mark is known.
OWN = {OrderType.LIMIT: D(9), OrderType.STOP: D(7)}

accounts = st.sampled_from(ACCOUNTS)
algos = st.sampled_from(ALGOS)
instruments = st.sampled_from(sorted(INSTRUMENTS))
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("held"), accounts, algos, instruments, st.integers(-50, 50), st.just("")),
        st.tuples(st.just("open"), accounts, algos, instruments, st.integers(-50, 50), keys),
        st.tuples(st.just("stop"), accounts, algos, instruments, st.integers(-50, 50), keys),
        st.tuples(st.just("mark"), accounts, algos, instruments, st.integers(1, 1000), st.just("")),
    ),
    max_size=30,
)
Move = tuple[str, AccountId, AlgoId | None, InstrumentId, int, str]
Key = tuple[AccountId, AlgoId | None, InstrumentId]


def made(key: str, side: Side, kind: OrderType = OrderType.LIMIT) -> Order:
    """An order whose account, algo and size do not matter here."""
    wanted = PlaceOrder(
        account=ACCOUNTS[0],
        client_order_id=ClientOrderId(key),
        instrument=InstrumentId("T:A"),
        side=side,
        type=kind,
        quantity=D(60),
        limit_price=None if kind is OrderType.STOP else OWN[kind],
        stop_price=OWN[kind] if kind is OrderType.STOP else None,
    )
    return order_from(wanted, key, Nanos(0))


class Naive:
    """Everything computed anew from what is held, open and last seen."""

    def __init__(self) -> None:
        self.held: dict[Key, Decimal] = {}
        self.orders: dict[tuple[Key, str], tuple[Order, Decimal]] = {}
        self.marks: dict[InstrumentId, Decimal] = {}

    def figures(self, account: AccountId, algo: AlgoId | None, instrument: InstrumentId, whole: bool) -> list[Decimal]:
        """Worst quantity, value, and signed money if all buys or all sells filled."""
        mine = [k for k in self.held if k[0] == account and k[2] == instrument and (whole or k[1] == algo)]
        held = sum((self.held[k] for k in mine), D(0))
        opened = [
            (o, q)
            for (k, _), (o, q) in self.orders.items()
            if k[0] == account and k[2] == instrument and (whole or k[1] == algo)
        ]
        buys = sum((q for o, q in opened if o.side is Side.BUY), D(0))
        sells = sum((q for o, q in opened if o.side is Side.SELL), D(0))
        worst = max(abs(held), abs(held + buys), abs(held - sells))
        if instrument not in self.marks:
            up, down = (self.worth(opened, side, instrument) for side in Side)
            return [worst, max(up, down), up, -down]
        unit = self.marks[instrument] * INSTRUMENTS[instrument]
        return [worst, worst * unit, (held + buys) * unit, (held - sells) * unit]

    def worth(self, orders: list[tuple[Order, Decimal]], side: Side, instrument: InstrumentId) -> Decimal:
        """Orders of one side at their own prices."""
        return sum((q * OWN[o.type] for o, q in orders if o.side is side), D(0)) * INSTRUMENTS[instrument]

    def risk(self, key: Key) -> Decimal:
        opened = [(o, q) for (k, _), (o, q) in self.orders.items() if k == key]
        if key[2] not in self.marks:
            return max(self.worth(opened, side, key[2]) for side in Side)
        mine = [working(o, q) for o, q in opened]
        return money_at_risk(self.held.get(key, D(0)), self.marks[key[2]], INSTRUMENTS[key[2]], mine)


def play(moves: list[Move]) -> tuple[ExposureBook, Naive]:
    book, naive = ExposureBook(), Naive()
    for kind, account, algo, instrument, amount, key in moves:
        multiplier = INSTRUMENTS[instrument]
        if kind == "mark":
            book.set_mark(instrument, D(amount))
            naive.marks[instrument] = D(amount)
            continue
        part = book.part(account, algo, instrument, multiplier)
        name: Key = (account, algo, instrument)
        if kind == "held":
            naive.held[name] = D(amount)
            if part.own is not None:
                book.set_position(part.own, D(amount))
            whole = sum((q for k, q in naive.held.items() if (k[0], k[2]) == (account, instrument)), D(0))
            book.set_position(part.line, whole)
            continue
        naive.held.setdefault(name, D(0))
        # One key is one order: its side and type stay.
        before = naive.orders.get((name, key))
        if before is None:
            side = Side.BUY if amount >= 0 else Side.SELL
            stop = OrderType.STOP if kind == "stop" else OrderType.LIMIT
            order = made(f"{key}-{account}-{algo}-{instrument}", side, stop)
            before = (order, D(0))
        book.count(part, before[0], before[1], D(abs(amount)))
        naive.orders[(name, key)] = (before[0], D(abs(amount)))
    return book, naive


@given(steps)
def test_use_kept_up_to_date_is_what_a_count_from_scratch_gives(moves: list[Move]) -> None:
    book, naive = play(moves)
    for account in ACCOUNTS:
        level = book.accounts.get(account)
        sums = [naive.figures(account, None, i, whole=True) for i in INSTRUMENTS]
        shown = [D(0)] * 3 if level is None else [level.gross, level.up, level.down]
        assert shown == [sum((s[n] for s in sums), D(0)) for n in (1, 2, 3)]
        for instrument, figures in zip(INSTRUMENTS, sums, strict=True):
            assert (level.positions.get(instrument, D(0)) if level is not None else D(0)) == figures[0]
        opened = sum(1 for (k, _), (_, q) in naive.orders.items() if k[0] == account and q)
        assert (level.open_orders if level is not None else 0) == opened
    for algo, level in book.algos.items():
        figures = [naive.figures(a, algo, i, whole=False) for a in ACCOUNTS for i in INSTRUMENTS]
        assert level.gross == sum((f[1] for f in figures), D(0))
    assert book.session.gross == sum((level.gross for level in book.accounts.values()), D(0))
    assert book.session.money_at_risk() == sum((naive.risk(key) for key in naive.held), D(0))


@given(steps, accounts, instruments, st.sampled_from(Side), st.integers(1, 50))
def test_effect_of_an_order_is_by_how_much_it_raises_the_worst_case(
    moves: list[Move], account: AccountId, instrument: InstrumentId, side: Side, quantity: int
) -> None:
    book, naive = play(moves)
    multiplier = INSTRUMENTS[instrument]
    part = book.part(account, None, instrument, multiplier)
    effect = effect_of(part.line, side, D(quantity), OWN[OrderType.LIMIT])
    worst, value, *_ = naive.figures(account, None, instrument, whole=True)
    key: Key = (account, None, instrument)
    naive.held.setdefault(key, D(0))
    naive.orders[(key, "new")] = (made("new", side), D(quantity))
    after, worth, *_ = naive.figures(account, None, instrument, whole=True)
    assert effect.quantity == after - worst
    assert effect.money == worth - value
    unit = (naive.marks.get(instrument) or OWN[OrderType.LIMIT]) * multiplier
    assert effect.up - effect.down == quantity * unit


@given(
    steps, accounts, algos, instruments, keys, st.sampled_from([OrderType.LIMIT, OrderType.STOP]), st.integers(1, 50)
)
def test_risk_of_a_change_counts_the_order_once_as_it_would_stand(
    moves: list[Move],
    account: AccountId,
    algo: AlgoId | None,
    instrument: InstrumentId,
    key: str,
    kind: OrderType,
    quantity: int,
) -> None:
    book, naive = play(moves)
    name: Key = (account, algo, instrument)
    part = book.part(account, algo, instrument, INSTRUMENTS[instrument])
    naive.held.setdefault(name, D(0))
    before = naive.orders.get((name, key))
    order = before[0] if before is not None else made(f"{key}-{account}-{algo}-{instrument}", Side.SELL, kind)
    shown = part.risk_with(order.client_order_id, working(order, D(quantity)), OWN[order.type])
    naive.orders[(name, key)] = (order, D(quantity))
    assert shown == naive.risk(name)
    assert part.money_at_risk() == play(moves)[0].part(account, algo, instrument, D(1)).money_at_risk()


def test_order_that_closes_needs_nothing() -> None:
    book = ExposureBook()
    account, instrument = ACCOUNTS[0], InstrumentId("T:A")
    line = book.line(account, instrument, D(1))
    book.set_mark(instrument, D(10))
    book.set_position(line, D(-5))
    assert effect_of(line, Side.BUY, D(10), D(10)).quantity == 0
    assert effect_of(line, Side.BUY, D(11), D(10)).quantity == 1
    assert line.reduces(Side.BUY, D(5))
    assert not line.reduces(Side.BUY, D(6))
    assert not line.reduces(Side.SELL, D(1))
