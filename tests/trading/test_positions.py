from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from trading.ids import AccountId, ExecutionId, InstrumentId, Nanos
from trading.orders import Fill, Side
from trading.positions import Position

D = Decimal


def fill(quantity: str, price: str, *, fee: str = "0", at: int = 1) -> Fill:
    return Fill(execution_id=ExecutionId("x"), quantity=D(quantity), price=D(price), at=Nanos(at), fee=D(fee))


def position(multiplier: str = "1") -> Position:
    return Position(account=AccountId("a"), instrument=InstrumentId("T:A"), multiplier=D(multiplier))


def traded(*deals: tuple[str, str, str], multiplier: str = "1") -> Position:
    p = position(multiplier)
    for side, quantity, price in deals:
        p.apply(Side(side), fill(quantity, price))
    return p


def test_adding_moves_the_average_and_reducing_does_not() -> None:
    p = traded(("buy", "1", "100"), ("buy", "3", "104"), ("sell", "2", "110"))
    assert (p.quantity, p.average_cost, p.realised) == (2, 103, 14)


def test_short_earns_when_it_buys_back_lower() -> None:
    p = traded(("sell", "4", "100"), ("buy", "3", "90"))
    assert (p.quantity, p.average_cost, p.realised) == (-1, 100, 30)
    assert p.unrealised(D(95)) == 5


def test_flip_through_zero_closes_the_old_side_and_opens_the_rest_at_its_own_price() -> None:
    p = traded(("buy", "2", "100"), ("sell", "5", "110"))
    assert (p.quantity, p.average_cost, p.realised) == (-3, 110, 20)


def test_flat_has_no_cost() -> None:
    p = traded(("buy", "2", "100"), ("sell", "2", "90"))
    assert (p.quantity, p.average_cost, p.realised) == (0, 0, -20)


def test_multiplier_scales_profit_and_exposure_but_not_cost() -> None:
    p = traded(("buy", "2", "100"), ("sell", "1", "101"), multiplier="50")
    assert (p.average_cost, p.realised) == (100, 50)
    assert p.exposure(D(101)) == 5050
    assert p.unrealised(D(99)) == -50


def test_fees_are_kept_apart_and_rebates_count() -> None:
    p = position()
    p.apply(Side.BUY, fill("1", "100", fee="0.5"))
    p.apply(Side.SELL, fill("1", "100", fee="-0.2"))
    assert (p.fees, p.realised, p.traded) == (D("0.3"), 0, 2)


def test_older_fill_does_not_turn_its_time_back() -> None:
    p = position()
    p.apply(Side.BUY, fill("1", "1", at=9))
    p.apply(Side.BUY, fill("1", "1", at=4))
    assert p.updated_at == 9


deals = st.lists(
    st.tuples(
        st.sampled_from(list(Side)),
        st.decimals("0.001", "1000", places=3),
        st.decimals("0.01", "100000", places=2),
        st.decimals("-5", "5", places=4),
    ),
    max_size=25,
)


@given(deals, st.sampled_from(["1", "50", "0.01"]), st.decimals("0.01", "100000", places=2))
def test_profit_equals_cash_plus_the_value_of_what_is_held(
    story: list[tuple[Side, Decimal, Decimal, Decimal]], multiplier: str, mark: Decimal
) -> None:
    p = position(multiplier)
    cash = held = fees = Fraction(0)
    for side, quantity, price, fee in story:
        p.apply(side, fill(str(quantity), str(price), fee=str(fee)))
        cash -= side.sign * Fraction(quantity) * Fraction(price) * Fraction(multiplier)
        held += side.sign * Fraction(quantity)
        fees += Fraction(fee)
        assert p.quantity == held
        assert p.fees == fees
        equity = cash + held * Fraction(mark) * Fraction(multiplier)
        profit = Fraction(p.realised) + Fraction(p.unrealised(mark))
        # An average may have no end of digits: 28 of them are kept, so what is lost is below this.
        assert abs(profit - equity) <= Fraction(1, 10**12)
        assert (p.average_cost == 0) == (p.quantity == 0)


@given(deals)
def test_round_lots_at_one_price_per_side_are_exact(
    story: list[tuple[Side, Decimal, Decimal, Decimal]],
) -> None:
    """Where no division is needed, nothing at all is lost."""
    p = position()
    cash = D(0)
    price = {Side.BUY: D("100.25"), Side.SELL: D("100.25")}
    for side, quantity, _, _ in story:
        p.apply(side, fill(str(quantity), str(price[side])))
        cash -= side.sign * quantity * price[side]
    assert p.realised == 0
    assert cash + p.quantity * D("100.25") == 0
    assert p.average_cost in (0, D("100.25"))
