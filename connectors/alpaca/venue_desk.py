"""The order desk of the simulated Alpaca: takes orders in and back, and closes positions.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

from connectors.alpaca.venue_checks import (
    BAD_FIELD,
    NOT_FOUND,
    UNPROCESSABLE,
    OrderForm,
    Refusal,
    check_asset,
    form_of,
    number_in,
)
from connectors.alpaca.venue_hours import Hours, takes_close_orders, takes_open_orders
from connectors.alpaca.venue_ledger import Ledger, VenueOrder, row_of
from connectors.alpaca.venue_replace import Replacing
from connectors.alpaca.wire import AssetRow, as_json, plain
from trading.ids import Nanos
from trading.orders import OrderType, TimeInForce

_STEP: Final = Decimal("0.000000001")


class Desk(Replacing):
    """Decides about requests."""

    def __init__(
        self,
        ledger: Ledger,
        assets: Iterable[AssetRow],
        multiplier: Decimal,
        hours: Hours | None,
        fill_ratio: Decimal,
        lenient: bool = False,
    ) -> None:
        super().__init__(ledger, assets, multiplier, hours, fill_ratio, lenient)
        self.account_id = ledger.new_id()
        #: The next order is accepted and rejected right afterwards.
        self.rejects_next = False
        self.cancel_takes = 0

    # Placing

    def place(self, body: bytes, now: Nanos) -> dict[str, Any]:
        """``POST /v2/orders``: the order as it stands before it meets the market.  Raises `Refusal`."""
        form = form_of(body)
        if form.client_order_id in self.ledger.by_client_id:
            raise Refusal(422, BAD_FIELD, "client_order_id must be unique")
        try:
            asset = self.asset(form.symbol)
        except Refusal as error:
            raise Refusal(422, UNPROCESSABLE, f'asset "{form.symbol}" not found') from error
        check_asset(form, asset)
        self._check_auction(form, now)
        qty = form.qty if form.qty is not None else self._qty_of(form, asset)
        cost = self.check_means(form.symbol, form.side, qty, form.limit_price or form.stop_price)
        order = VenueOrder(
            id=self.ledger.new_id(),
            client_order_id=form.client_order_id or self.ledger.new_id(),
            asset_id=asset.id,
            asset_class=asset.asset_class,
            symbol=asset.symbol,
            side=form.side,
            type=form.type,
            time_in_force=form.time_in_force,
            qty=qty,
            arrived_at=now,
            notional=form.notional,
            limit_price=form.limit_price,
            stop_price=form.stop_price,
            trail_price=form.trail_price,
            trail_percent=form.trail_percent,
            order_class=form.order_class,
            extended_hours=form.extended_hours,
            updated_at=now,
            reserved=cost,
        )
        if form.order_class == "oco":
            order.limit_price = form.take_profit
        self.ledger.add(order)
        legs = self._add_legs(order, form, now)
        shown = row_of(order, (row_of(leg) for leg in legs) if legs else None)
        if self.rejects_next:
            self.tell("pending_new", order, now)
            self.end(order, "rejected", now)
            return shown
        self.submit(order, now)
        if order.order_class == "oco" and not order.is_ended:
            for leg in legs:
                self.watch(leg, now)
        if not self.is_open or order.status == "accepted":
            return row_of(order, (row_of(leg) for leg in legs) if legs else None)
        return shown

    def _add_legs(self, parent: VenueOrder, form: OrderForm, now: Nanos) -> list[VenueOrder]:
        side = form.side if form.order_class == "oco" else form.side.opposite
        legs: list[VenueOrder] = []
        prices: list[tuple[OrderType, Decimal | None, Decimal | None]] = []
        if form.take_profit is not None and form.order_class != "oco":
            prices.append((OrderType.LIMIT, form.take_profit, None))
        if form.stop_loss is not None:
            stop, limit = form.stop_loss
            prices.append((OrderType.STOP if limit is None else OrderType.STOP_LIMIT, limit, stop))
        for kind, limit_price, stop_price in prices:
            leg = VenueOrder(
                id=self.ledger.new_id(),
                client_order_id=self.ledger.new_id(),
                asset_id=parent.asset_id,
                asset_class=parent.asset_class,
                symbol=parent.symbol,
                side=side,
                type=kind,
                time_in_force=parent.time_in_force,
                qty=parent.qty,
                arrived_at=now,
                limit_price=limit_price,
                stop_price=stop_price,
                status="held",
                order_class=parent.order_class,
                updated_at=now,
                parent=parent.id,
            )
            self.ledger.add(leg)
            parent.legs.append(leg.id)
            legs.append(leg)
        return legs

    def _check_auction(self, form: OrderForm, now: Nanos) -> None:
        session = self.hours.at(now)
        if form.time_in_force is TimeInForce.AT_OPEN and not takes_open_orders(session, self.hours, now):
            raise Refusal(422, UNPROCESSABLE, "opg orders can only be submitted after 7:00pm and before 9:28am")
        if form.time_in_force is TimeInForce.AT_CLOSE and not takes_close_orders(session, self.hours, now):
            raise Refusal(422, UNPROCESSABLE, "cls orders can only be submitted after 7:00pm and before 3:50pm")

    def _qty_of(self, form: OrderForm, asset: AssetRow) -> Decimal:
        price = form.limit_price or self.price_to_pay(asset.symbol, form.side)
        if price is None or form.notional is None:
            raise Refusal(422, UNPROCESSABLE, f'no price of asset "{asset.symbol}" is known')
        return max((form.notional / price).quantize(_STEP, ROUND_DOWN), _STEP)

    # Taking back

    def cancel(self, order_id: str, now: Nanos) -> None:
        """``DELETE /v2/orders/{order_id}``.  Raises `Refusal`."""
        order = self.find(order_id)
        if order.is_ended or order_id in self.cancelling:
            state = order.status if order.is_ended else "pending_cancel"
            raise Refusal(422, UNPROCESSABLE, f'order is already in "{state}" state')
        if order.replaces is not None and order.status == "pending_new":
            # A replacement that has not arrived yet: what it is to replace goes with it.
            self.end(order, "canceled", now)
            order = self.ledger.orders[order.replaces]
            if order.is_ended:
                return
        if not self.cancel_takes:
            self.end(order, "canceled", now)
            return
        self.cancelling.add(order.id)
        self.tell_under_way("pending_cancel", order, now)

        def done(at: Nanos) -> None:
            self.cancelling.discard(order.id)
            if order.is_ended:
                self.tell("order_cancel_rejected", order, at)
            else:
                self.end(order, "canceled", at)

        self.later(Nanos(now + self.cancel_takes), done)

    def cancel_all(self, now: Nanos) -> list[dict[str, Any]]:
        """``DELETE /v2/orders``: one status per order."""
        answers: list[dict[str, Any]] = []
        for order in self.ledger.open_orders():
            # What hangs on another order goes with it, or with the first of its kind.
            if order.is_ended or (order.parent is not None and not self.ledger.orders[order.parent].is_ended):
                continue
            try:
                self.cancel(order.id, now)
            except Refusal as error:
                answers.append({"id": order.id, "status": error.status, "body": _body(error)})
            else:
                answers.append({"id": order.id, "status": 200})
        return answers

    # Closing positions

    def close(self, symbol_or_id: str, qty: str | None, percentage: str | None, now: Nanos) -> dict[str, Any]:
        """``DELETE /v2/positions/{symbol_or_asset_id}``: the closing order.  Raises `Refusal`."""
        asset = self.asset(symbol_or_id)
        held = self.ledger.held(asset.symbol).qty
        if not held:
            raise Refusal(404, NOT_FOUND, "position does not exist")
        if qty is not None and percentage is not None:
            raise Refusal(422, BAD_FIELD, "only one of qty or percentage is accepted")
        amount = abs(held)
        if qty is not None:
            amount = number_in({"qty": qty}, "qty") or amount
        elif percentage is not None:
            share = number_in({"percentage": percentage}, "percentage") or Decimal(100)
            if share > 100:
                raise Refusal(422, BAD_FIELD, "percentage must be between 0 and 100")
            amount = (abs(held) * share / 100).quantize(_STEP, ROUND_DOWN)
        body = {
            "symbol": asset.symbol,
            "qty": plain(amount),
            "side": "sell" if held > 0 else "buy",
            "type": "market",
            "time_in_force": "gtc" if asset.asset_class == "crypto" else "day",
        }
        return self.place(as_json(body), now)

    def close_all(self, cancel_orders: bool, now: Nanos) -> list[dict[str, Any]]:
        """``DELETE /v2/positions``: one status per position."""
        if cancel_orders:
            self.cancel_all(now)
        answers: list[dict[str, Any]] = []
        for symbol, _ in self.held():
            try:
                answers.append({"symbol": symbol, "status": 200, "body": self.close(symbol, None, None, now)})
            except Refusal as error:
                answers.append({"symbol": symbol, "status": error.status, "body": _body(error)})
        return answers


def _body(error: Refusal) -> dict[str, Any]:
    return {**error.more, "code": error.code, "message": error.message}
