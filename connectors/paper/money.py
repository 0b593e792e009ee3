"""The money of a paper account: cash, positions, and what may still be put at risk.  Pure.

A fill moves cash by its notional and its fee; positions may be short.  There is no leverage: an order that
opens exposure needs that much *free* money, which is the account's worth, less what its positions are worth
(long or short), less what is held back for open orders.  Without shorts that is the cash.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from connectors.base import PaperAccount
from trading.broker import BrokerOrder
from trading.errors import BadInput
from trading.ids import AccountId, InstrumentId
from trading.instruments import Instrument
from trading.orders import ZERO, Fill, Side
from trading.positions import Position


class CashAccount:
    """Cash and positions of one account, in one currency."""

    def __init__(
        self, account: AccountId, settings: PaperAccount, instruments: Mapping[InstrumentId, Instrument]
    ) -> None:
        self._account = account
        self._settings = settings
        self._instruments = instruments
        self.cash = settings.cash
        self.positions: dict[InstrumentId, Position] = {}
        #: Money held back for open orders.
        self.reserved = ZERO
        #: Middle of the last quote, else the last price: what positions are valued at.
        self._marks: dict[InstrumentId, Decimal] = {}
        self._quoted: set[InstrumentId] = set()

    def __repr__(self) -> str:
        return f"<CashAccount {self._account} cash={self.cash} reserved={self.reserved}>"

    def see_quote(self, instrument: InstrumentId, bid: Decimal, ask: Decimal) -> None:
        """Value ``instrument`` at the middle of a quote that has both sides."""
        if bid.is_finite() and ask.is_finite() and bid > 0 and ask > 0:
            self._marks[instrument] = (bid + ask) / 2
            self._quoted.add(instrument)

    def see_trade(self, instrument: InstrumentId, price: Decimal) -> None:
        """Value ``instrument`` at its last price while it has no quote."""
        if instrument not in self._quoted:
            self._marks[instrument] = price

    def has_mark(self, instrument: InstrumentId) -> bool:
        """Whether a market price has been seen."""
        return instrument in self._marks

    def position(self, instrument: InstrumentId) -> Position:
        """The position, flat ones too."""
        position = self.positions.get(instrument)
        if position is None:
            listed = self._instruments.get(instrument)
            position = self.positions[instrument] = Position(
                account=self._account,
                instrument=instrument,
                multiplier=Decimal(1) if listed is None else listed.multiplier,
            )
        return position

    def apply(self, instrument: InstrumentId, side: Side, fill: Fill) -> None:
        """Account for one fill."""
        position = self.position(instrument)
        self.cash -= side.sign * fill.quantity * fill.price * position.multiplier + fill.fee
        position.apply(side, fill)

    def free(self) -> Decimal:
        """Money that may still be put at risk."""
        worth = self.cash
        bound = self.reserved
        for instrument, position in self.positions.items():
            if position.quantity:
                value = position.exposure(self._mark(instrument))
                worth += value
                bound += abs(value)
        return worth - bound

    def need(self, money: Decimal) -> None:
        """Raise `BadInput` unless ``money`` and the fee on it are free."""
        if money <= 0:
            return
        money += money * self._settings.fee_bps / 10_000
        free = self.free()
        if money > free:
            raise BadInput(
                "cash",
                f"insufficient: it needs {money:f} {self._settings.currency}, free are {max(free, ZERO):f}",
            )

    def opening(self, row: BrokerOrder, quantity: Decimal) -> Decimal:
        """Value of the exposure that ``quantity`` of ``row`` would open beyond closing what is held."""
        held = self.position(row.instrument)
        closing = min(abs(held.quantity), quantity) if held.quantity * row.side.sign < 0 else ZERO
        return (quantity - closing) * self.price(row) * held.multiplier

    def price(self, row: BrokerOrder) -> Decimal:
        """What one unit may cost: a buyer's limit, else the market."""
        mark = self._mark(row.instrument)
        if row.limit_price is not None:
            return row.limit_price if row.side is Side.BUY else max(row.limit_price, mark)
        return max(row.stop_price or ZERO, mark)

    def _mark(self, instrument: InstrumentId) -> Decimal:
        found = self._marks.get(instrument)
        return self.position(instrument).average_cost if found is None else found
