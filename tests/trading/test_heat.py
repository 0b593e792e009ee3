"""The heat table adds up, and is hottest first; an account is closed only when it is known what it holds."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trading.exposure import ExposureBook
from trading.heat import RiskCell, cells_of, heat
from trading.ids import AccountId, AlgoId, InstrumentId

D = Decimal

cells = st.builds(
    RiskCell,
    account=st.sampled_from([AccountId("a"), AccountId("b")]),
    algo=st.sampled_from(["", "g1", "g2"]),
    instrument=st.sampled_from([InstrumentId("T:A"), InstrumentId("T:B")]),
    at_risk=st.decimals(min_value=D("0.01"), max_value=D(10**9), places=2),
)


@given(st.lists(cells, max_size=30))
def test_rows_columns_and_cells_add_up_to_the_total(given_cells: list[RiskCell]) -> None:
    table = heat(given_cells)
    assert table.total == sum((cell.at_risk for cell in given_cells), D(0)) == sum(table.cells.values(), D(0))
    for axis, names in ((0, table.algos), (1, table.instruments)):
        sums = [sum((risk for place, risk in table.cells.items() if place[axis] == name), D(0)) for name in names]
        assert sums == sorted(sums, reverse=True)
        assert {place[axis] for place in table.cells} == set(names)
        assert len(set(names)) == len(names)


def test_cells_are_what_each_algo_may_lose_and_say_nothing_where_that_is_nothing() -> None:
    book = ExposureBook()
    for algo, held in ((AlgoId("g1"), D(3)), (None, D(5)), (AlgoId("g2"), D(0))):
        part = book.part(AccountId("a"), algo, InstrumentId("T:A"), D(2))
        if part.own is not None:
            book.set_position(part.own, held)
    book.set_position(book.line(AccountId("a"), InstrumentId("T:A"), D(2)), D(8))
    book.set_mark(InstrumentId("T:A"), D(10))
    found = {(cell.algo, cell.at_risk) for cell in cells_of(book)}
    assert found == {("g1", D(60)), ("", D(100))}
    assert sum(risk for _, risk in found) == book.session.money_at_risk()
