"""A simple market maker: one bid and one offer around the middle, leaning against what it holds."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field, model_validator

from strategies.base import UPDATABLE, Strategy, StrategyParameters
from strategies.builtin.caution import Caution
from trading.ids import ClientOrderId
from trading.instruments import Instrument
from trading.orders import ZERO, Order, OrderState, Side
from trading.ticks import QUOTE, TickArray

#: A change that is not answered for so long is given up, and the order taken back.
_UNANSWERED: Final = 5_000_000_000
_WORKING: Final = frozenset({OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED})
_BASIS_POINT: Final = Decimal("0.0001")


class MakerParameters(StrategyParameters):
    """Parameters of the market maker."""

    notional: Annotated[Decimal, UPDATABLE] = Field(
        Decimal(1000),
        gt=0,
        le=Decimal(10**9),
        description="Value of each quote, in the instrument's currency",
    )
    max_notional: Annotated[Decimal, UPDATABLE] = Field(
        Decimal(5000), gt=0, le=Decimal(10**10), description="Largest value of the position, long or short"
    )
    half_spread_bps: Annotated[Decimal, UPDATABLE] = Field(
        Decimal(2), ge=0, le=1000, description="Distance of each quote from the middle, in basis points"
    )
    skew_bps: Annotated[Decimal, UPDATABLE] = Field(
        Decimal(2), ge=0, le=1000, description="Shift of both quotes against a full position, in basis points"
    )
    reprice_ticks: Annotated[int, UPDATABLE] = Field(
        2, ge=1, le=100_000, description="Move a quote that is this many ticks off"
    )
    requote_after: Annotated[float, UPDATABLE] = Field(
        0.5, ge=0, le=3600, description="Seconds between two changes of one quote"
    )
    allow_short: bool = Field(True, description="Whether to sell short; off for spot accounts")

    @model_validator(mode="after")
    def _fits(self) -> MakerParameters:
        if self.notional > self.max_notional:
            raise ValueError(f"notional ({self.notional}) must not be above max_notional ({self.max_notional})")
        return self


class MarketMaker(Strategy[MakerParameters]):
    """At most one working order per side and instrument; a fill never takes it beyond ``max_notional``.

    The cap is valued at the middle when the quote is placed; a quote that comes to exceed it by more than a
    twentieth is taken back.
    """

    Parameters = MakerParameters

    def set_up(self) -> None:
        """Have no quotes out."""
        self._caution = Caution()
        #: By order, when its last change was asked for; and whether that is still unanswered.
        self._changed: dict[ClientOrderId, tuple[int, bool]] = {}
        self._placed: dict[str, int] = {}

    def on_ticks(self, ticks: TickArray) -> None:
        """Quote around the newest best bid and offer of each instrument; older ones have passed."""
        quotes = ticks[(ticks["flags"] & QUOTE) != 0]
        newest: dict[int, tuple[float, float]] = {}
        for number, bid, ask in zip(
            quotes["instrument"].tolist(), quotes["bid"].tolist(), quotes["ask"].tolist(), strict=True
        ):
            newest[number] = (bid, ask)
        for instrument in self.instruments:
            best = newest.get(instrument.number)
            if best is not None and np.isfinite(best).all() and 0 < best[0] < best[1]:
                self._quote(instrument, Decimal(str(best[0])), Decimal(str(best[1])))

    def on_order(self, order: Order) -> None:
        """A change was answered, or the order has ended."""
        if self._caution.note(order, self.now):
            self.log(f"{order.instrument}: {order.state}: {order.reason}; holding back", "warning")
        if order.state.is_final:
            self._changed.pop(order.client_order_id, None)
        elif order.client_order_id in self._changed:
            self._changed[order.client_order_id] = (self._changed[order.client_order_id][0], False)

    def _quote(self, instrument: Instrument, best_bid: Decimal, best_ask: Decimal) -> None:
        p = self.parameters
        middle = (best_bid + best_ask) / 2
        unit = middle * instrument.multiplier
        held = self.position(instrument).quantity
        lean = p.skew_bps * max(min(held * unit / p.max_notional, Decimal(1)), Decimal(-1))
        # Behind the other side's best, so that a quote rests and does not take.
        bid = min(middle * (1 - (p.half_spread_bps + lean) * _BASIS_POINT), best_ask - instrument.tick_size)
        ask = max(middle * (1 + (p.half_spread_bps - lean) * _BASIS_POINT), best_bid + instrument.tick_size)
        most = p.max_notional / unit
        room = {Side.BUY: most - held, Side.SELL: (most if p.allow_short else ZERO) + held}
        for side, price in ((Side.BUY, bid), (Side.SELL, ask)):
            size = instrument.round_quantity(min(p.notional / unit, max(room[side], ZERO)))
            self._work(instrument, side, instrument.round_price(price), size, room[side])

    def _work(self, instrument: Instrument, side: Side, price: Decimal, size: Decimal, room: Decimal) -> None:
        own = [o for o in self.open_orders(instrument) if o.side is side]
        place = f"{instrument.id} {side}"
        wait = int(self.parameters.requote_after * 1e9)
        if not own:
            fits = size > 0 and size >= instrument.min_quantity and price > 0
            rested = self.now - self._placed.get(place, -wait) >= wait
            if fits and rested and not self._caution.holds(instrument.id, self.now):
                self._placed[place] = self.now
                if side is Side.BUY:
                    self.buy(instrument, size, limit=price)
                else:
                    self.sell(instrument, size, limit=price)
            return
        for surplus in own[1:]:
            self.cancel(surplus.client_order_id)
        order = own[0]
        key = order.client_order_id
        asked_at, unanswered = self._changed.get(key, (order.created_at, False))
        if order.cancelling or order.state not in _WORKING:
            return
        if order.open_quantity > max(room, ZERO) * Decimal("1.05") + instrument.lot_size:
            self.cancel(key)
        elif unanswered:
            if self.now - asked_at > _UNANSWERED:
                self.cancel(key)
        elif self.now - asked_at >= wait and order.limit_price is not None:
            off = abs(order.limit_price - price)
            if off >= self.parameters.reprice_ticks * instrument.tick_size:
                self._changed[key] = (self.now, True)
                self.modify(key, limit=price)

    def snapshot(self) -> dict[str, Any]:
        """When it last quoted, and what was refused."""
        return {
            "caution": self._caution.snapshot(),
            "changed": {key: list(change) for key, change in self._changed.items()},
            "placed": self._placed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `snapshot`."""
        self._caution.restore(state["caution"])
        self._changed = {ClientOrderId(k): (at, open_) for k, (at, open_) in state["changed"].items()}
        self._placed = dict(state["placed"])
