"""Money and shares of an account at the simulated Alpaca: what an order needs, and what is free.  Pure.

An order that opens exposure needs buying power (its limit, or 3 % above the market, times its quantity).  One that
closes needs what is held and not held back by other closing orders.  Alpaca does not turn a position over within one
order, and does not take an opening sell while a buy is open, or the other way around; ``lenient`` lets both pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from connectors.alpaca.venue_checks import FORBIDDEN, NOT_FOUND, UNPROCESSABLE, Refusal
from connectors.alpaca.venue_floor import Floor
from connectors.alpaca.venue_hours import Hours
from connectors.alpaca.venue_ledger import Ledger, VenueOrder
from connectors.alpaca.wire import AssetRow, plain
from trading.ids import Nanos
from trading.orders import ZERO, Side

#: What a market order may cost above the market.
_MARKET_MARGIN: Final = Decimal("1.03")


class Means(Floor):
    """What an account can afford."""

    def __init__(
        self,
        ledger: Ledger,
        assets: Iterable[AssetRow],
        multiplier: Decimal,
        hours: Hours | None,
        fill_ratio: Decimal,
        lenient: bool,
    ) -> None:
        super().__init__(ledger, assets, hours, fill_ratio)
        self.multiplier = multiplier
        self.lenient = lenient
        #: Orders with a replacement, and with a cancel, that has not arrived yet.
        self.replacing: set[str] = set()
        self.cancelling: set[str] = set()

    def buying_power(self, without: VenueOrder | None = None) -> Decimal:
        """Money that may still be put at risk, with what ``without`` holds back."""
        equity, gross = self.ledger.cash, ZERO
        for symbol, held in self.held():
            value = held.qty * (self.mark(symbol) or held.average_price)
            equity += value
            gross += abs(value)
        reserved = sum((o.reserved for o in self.ledger.open_orders() if o is not without), ZERO)
        return max(equity * self.multiplier - gross - reserved, ZERO)

    def available(self, symbol: str, without: VenueOrder | None = None) -> Decimal:
        """What of a position no order to close it (but ``without``) holds back, signed."""
        held = self.ledger.held(symbol).qty
        if not held:
            return ZERO
        side = Side.SELL if held > 0 else Side.BUY
        left = max(abs(held) - self._open_quantity(symbol, side, without), ZERO)
        return left if held > 0 else -left

    def _open_quantity(self, symbol: str, side: Side, without: VenueOrder | None = None) -> Decimal:
        return sum(
            (
                order.left
                for order in self.ledger.open_orders()
                if order.symbol == symbol and order.side is side and order is not without and _holds_shares(order)
            ),
            ZERO,
        )

    def check_means(
        self, symbol: str, side: Side, qty: Decimal, price: Decimal | None, without: VenueOrder | None = None
    ) -> Decimal:
        """The money to hold back for an order, in place of ``without``.

        Raises `Refusal` where money or shares do not suffice.
        """
        held = self.ledger.held(symbol).qty
        closes = held * side.sign < 0
        available = abs(self.available(symbol, without)) if closes else ZERO
        if closes and qty > available and not self.lenient:
            on_orders = abs(held) - available
            raise Refusal(
                403,
                FORBIDDEN,
                f"insufficient qty available for order (requested: {plain(qty)}, available: {plain(available)})",
                symbol=symbol,
                available=plain(available),
                existing_qty=plain(abs(held)),
                held_for_orders=plain(on_orders),
            )
        opens = max(qty - available, ZERO) if closes else qty
        if not opens:
            return ZERO
        if side is Side.SELL:
            self._check_short(symbol, held)
        elif not self.lenient and held == 0 and self._open_quantity(symbol, Side.SELL):
            raise Refusal(403, FORBIDDEN, "cannot open a long buy while a short sell order is open")
        market = self.price_to_pay(symbol, side)
        if price is None or (side is Side.SELL and market is not None and price < market):
            price = None if market is None else market * _MARKET_MARGIN
        cost = opens * (price or ZERO)
        power = self.buying_power(without)
        if cost > power:
            more = {"buying_power": plain(round(power, 2)), "cost_basis": plain(round(cost, 2))}
            raise Refusal(403, FORBIDDEN, "insufficient buying power", **more)
        return cost

    def _check_short(self, symbol: str, held: Decimal) -> None:
        asset = self.assets[symbol]
        if self.multiplier <= 1 or asset.asset_class == "crypto":
            raise Refusal(403, FORBIDDEN, "account is not allowed to short")
        if not asset.shortable:
            raise Refusal(422, UNPROCESSABLE, f'asset "{symbol}" cannot be sold short')
        if not self.lenient and held == 0 and self._open_quantity(symbol, Side.BUY):
            raise Refusal(403, FORBIDDEN, "cannot open a short sell while a long buy order is open")

    def find(self, order_id: str) -> VenueOrder:
        order = self.ledger.orders.get(order_id)
        if order is None:
            raise Refusal(404, NOT_FOUND, f"order not found for {order_id}")
        return order

    def tell_under_way(self, status: str, order: VenueOrder, now: Nanos) -> None:
        """Show that a request about an order is under way; the order itself goes on as it was."""
        before = order.status
        order.status = status
        self.tell(status, order, now)
        order.status = before


def _holds_shares(order: VenueOrder) -> bool:
    """Whether an open order counts: not one that waits for its turn, nor a replacement beside what it replaces."""
    return order.status != "held" and not (order.replaces is not None and order.status == "pending_new")
