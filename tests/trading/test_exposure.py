from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trading.exposure import ExposureBook
from trading.ids import AccountId, InstrumentId
from trading.limits import CLUSTER, GROSS_EXPOSURE, POSITION, account_scope, resource
from trading.orders import Side

D = Decimal
ACCOUNTS = [AccountId("a"), AccountId("b")]
INSTRUMENTS = {InstrumentId("T:A"): D(1), InstrumentId("T:B"): D(50)}

accounts = st.sampled_from(ACCOUNTS)
instruments = st.sampled_from(sorted(INSTRUMENTS))
amounts = st.integers(0, 50).map(D)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("position"), accounts, instruments, st.integers(-50, 50).map(D)),
        st.tuples(st.just("buys"), accounts, instruments, amounts),
        st.tuples(st.just("sells"), accounts, instruments, amounts),
        st.tuples(st.just("mark"), accounts, instruments, st.integers(1, 1000).map(D)),
    ),
    max_size=30,
)


class Naive:
    """Everything computed anew from what is held, open and last seen."""

    def __init__(self) -> None:
        self.amounts: dict[tuple[str, AccountId, InstrumentId], Decimal] = {}
        self.marks: dict[InstrumentId, Decimal] = {}

    def worst(self, account: AccountId, instrument: InstrumentId, buys: int = 0, sells: int = 0) -> Decimal:
        held, open_buys, open_sells = (
            self.amounts.get((kind, account, instrument), D(0)) for kind in ("position", "buys", "sells")
        )
        return max(abs(held), abs(held + open_buys + buys), abs(held - open_sells - sells))

    def used(self) -> dict[str, Decimal]:
        out: dict[str, Decimal] = {}
        for account in ACCOUNTS:
            for instrument, multiplier in INSTRUMENTS.items():
                worst = self.worst(account, instrument)
                money = worst * multiplier * self.marks.get(instrument, D(0))
                for scope in (CLUSTER, account_scope(account)):
                    for name, amount in (
                        (resource(scope, POSITION, instrument), worst),
                        (resource(scope, GROSS_EXPOSURE, ""), money),
                    ):
                        out[name] = out.get(name, D(0)) + amount
        return {name: amount for name, amount in out.items() if amount}


def play(moves: list[tuple[str, AccountId, InstrumentId, Decimal]]) -> tuple[ExposureBook, Naive]:
    book, naive = ExposureBook(), Naive()
    for kind, account, instrument, amount in moves:
        line = book.line(account, instrument, INSTRUMENTS[instrument])
        before = naive.amounts.get((kind, account, instrument), D(0))
        if kind == "mark":
            book.set_mark(instrument, amount)
            naive.marks[instrument] = amount
            continue
        naive.amounts[(kind, account, instrument)] = amount
        if kind == "position":
            book.set_position(account, instrument, line, amount)
        else:
            side = Side.BUY if kind == "buys" else Side.SELL
            book.add_open(account, instrument, line, side, amount - before)
    return book, naive


@given(steps)
def test_use_kept_up_to_date_is_what_a_count_from_scratch_gives(
    moves: list[tuple[str, AccountId, InstrumentId, Decimal]],
) -> None:
    book, naive = play(moves)
    assert {name: amount for name, amount in book.used.items() if amount} == naive.used()


@given(steps, accounts, instruments, st.sampled_from(Side), st.integers(1, 50))
def test_need_of_an_order_is_by_how_much_it_raises_the_worst_case(
    moves: list[tuple[str, AccountId, InstrumentId, Decimal]],
    account: AccountId,
    instrument: InstrumentId,
    side: Side,
    quantity: int,
) -> None:
    book, naive = play(moves)
    multiplier = INSTRUMENTS[instrument]
    line = book.line(account, instrument, multiplier)
    more = naive.worst(
        account,
        instrument,
        buys=quantity if side is Side.BUY else 0,
        sells=quantity if side is Side.SELL else 0,
    ) - naive.worst(account, instrument)
    mark = naive.marks.get(instrument)
    needs = book.needs(account, instrument, line, side, D(quantity), D(7))
    if mark is None:
        worst = naive.worst(account, instrument) + more
        assert needs == ((more, worst * 7 * multiplier) if more else (0, 0))
    else:
        assert needs == (more, more * mark * multiplier)


def test_order_that_closes_needs_nothing() -> None:
    book = ExposureBook()
    account, instrument = ACCOUNTS[0], InstrumentId("T:A")
    line = book.line(account, instrument, D(1))
    book.set_mark(instrument, D(10))
    book.set_position(account, instrument, line, D(-5))
    assert book.needs(account, instrument, line, Side.BUY, D(10), D(10)) == (0, 0)
    assert book.needs(account, instrument, line, Side.BUY, D(11), D(10)) == (1, 10)
