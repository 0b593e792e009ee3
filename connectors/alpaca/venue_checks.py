"""What the simulated Alpaca refuses, in Alpaca's codes and words.  Pure.

Sources: the error table of "Options Trading" and the orders reference of Alpaca's documentation, "How to fix common
trading API errors" (alpaca.markets/learn), and recorded bodies; where only the code is known the words are ours.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from connectors.alpaca.wire import LONGEST_CLIENT_ID, AssetRow, Response, as_json, plain
from trading.orders import OrderType, Side, TimeInForce

MALFORMED: Final = 40010000
BAD_FIELD: Final = 40010001
UNPROCESSABLE: Final = 42210000
FORBIDDEN: Final = 40310000
NOT_FOUND: Final = 40410000
UNAUTHORIZED: Final = 40110000
_JSON: Final = {"content-type": "application/json; charset=UTF-8"}
_CLASSES: Final = ("", "simple", "bracket", "oco", "oto")
_LIMITED: Final = (OrderType.LIMIT, OrderType.STOP_LIMIT)
#: Numbers from 10^13 up are mistakes.
_LARGEST: Final = 12
_STOPPED: Final = (OrderType.STOP, OrderType.STOP_LIMIT)


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: int, message: str, **more: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more

    @property
    def response(self) -> Response:
        """The error as it goes over the wire."""
        return answer(self.status, {**self.more, "code": self.code, "message": self.message})


def answer(status: int, body: Any = None) -> Response:
    """A response with a JSON body, or an empty one."""
    return Response(status, _JSON, b"" if body is None else as_json(body))


class OrderForm(msgspec.Struct, kw_only=True):
    """The checked body of ``POST /v2/orders``."""

    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    client_order_id: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail_price: Decimal | None
    trail_percent: Decimal | None
    order_class: str
    extended_hours: bool
    #: (limit_price) of the take-profit leg, (stop_price, limit_price) of the stop-loss leg.
    take_profit: Decimal | None
    stop_loss: tuple[Decimal, Decimal | None] | None


def form_of(body: bytes) -> OrderForm:
    """Read and check an order as far as it can be without knowing the account.  Raises `Refusal`."""
    given = object_in(body)
    symbol = given.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise Refusal(422, BAD_FIELD, "symbol is required")
    if given.get("order_class") == "mleg":
        raise Refusal(422, UNPROCESSABLE, "mleg orders are not supported")
    order_class = given.get("order_class") or ""
    if order_class not in _CLASSES:
        raise Refusal(422, BAD_FIELD, f"invalid order_class: {order_class}")
    side = _one_of(Side, given.get("side"), "side")
    kind = _one_of(OrderType, given.get("type") or ("limit" if order_class == "oco" else None), "order type")
    tif = _one_of(TimeInForce, given.get("time_in_force"), "time_in_force")
    client_id = given.get("client_order_id") or ""
    if not isinstance(client_id, str) or len(client_id) > LONGEST_CLIENT_ID:
        raise Refusal(422, BAD_FIELD, f"client_order_id must be no more than {LONGEST_CLIENT_ID} characters")
    form = OrderForm(
        symbol=symbol,
        side=side,
        type=kind,
        time_in_force=tif,
        client_order_id=client_id,
        qty=number_in(given, "qty"),
        notional=number_in(given, "notional"),
        limit_price=number_in(given, "limit_price"),
        stop_price=number_in(given, "stop_price"),
        trail_price=number_in(given, "trail_price"),
        trail_percent=number_in(given, "trail_percent"),
        order_class="" if order_class == "simple" else order_class,
        extended_hours=bool(given.get("extended_hours") or False),
        take_profit=_take_profit(given),
        stop_loss=_stop_loss(given),
    )
    _check_amount(form)
    if form.order_class != "oco":
        _check_prices(form)
    _check_class(form)
    return form


def object_in(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.  Raises `Refusal`."""
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, MALFORMED, "request body format is invalid") from error
    return given


def number_in(given: dict[str, Any], field: str) -> Decimal | None:
    """A positive number of a body, given as string or number.  Raises `Refusal`."""
    value = given.get(field)
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise Refusal(422, BAD_FIELD, f"{field} must be a number") from error
    if not number.is_finite() or number <= 0:
        raise Refusal(422, BAD_FIELD, f"{field} must be > 0")
    return number


def check_price(price: Decimal | None, field: str, asset: AssetRow) -> None:
    """Shares trade in cents from 1 USD up, in hundredths of a cent below.  Raises `Refusal`."""
    if price is None:
        return
    if price.adjusted() > _LARGEST:
        raise Refusal(422, UNPROCESSABLE, f"{field} is too large")
    if asset.asset_class == "crypto":
        if price != round(price, 9):
            raise Refusal(422, UNPROCESSABLE, f"{field} has more than 9 decimals")
        return
    step = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    if price % step:
        said = f"invalid {field} {plain(price)}. sub-penny increment does not fulfill minimum pricing criteria"
        raise Refusal(422, UNPROCESSABLE, said)


def check_qty(qty: Decimal | None, field: str = "qty") -> None:
    """Nine decimals, and not beyond reason.  Raises `Refusal`."""
    if qty is not None and qty.adjusted() > _LARGEST:
        raise Refusal(422, UNPROCESSABLE, f"{field} is too large")
    if qty is not None and qty != round(qty, 9):
        raise Refusal(422, BAD_FIELD, f"{field} increment must be >= 1e-9")


def check_trail(trail_price: Decimal | None, trail_percent: Decimal | None, asset: AssetRow) -> None:
    """Is it a distance that a price can keep?  Raises `Refusal`."""
    check_price(trail_price, "trail_price", asset)
    if trail_percent is not None and trail_percent >= 100:
        raise Refusal(422, UNPROCESSABLE, "trail_percent must be < 100")


def check_asset(form: OrderForm, asset: AssetRow) -> None:
    """Does the asset trade this way?  Raises `Refusal`."""
    if not asset.tradable or asset.status != "active":
        raise Refusal(422, UNPROCESSABLE, f'asset "{asset.symbol}" is not active')
    is_crypto = asset.asset_class == "crypto"
    fractional = form.notional is not None or (form.qty is not None and form.qty % 1 != 0)
    if is_crypto:
        if form.time_in_force not in (TimeInForce.GTC, TimeInForce.IOC):
            raise Refusal(422, UNPROCESSABLE, "invalid crypto time_in_force")
        if form.type not in (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT):
            raise Refusal(422, UNPROCESSABLE, "invalid order type for crypto order")
    elif fractional:
        if not asset.fractionable:
            raise Refusal(403, FORBIDDEN, f'asset "{asset.symbol}" is not fractionable')
        if form.time_in_force is not TimeInForce.DAY:
            raise Refusal(422, UNPROCESSABLE, "fractional orders must be DAY orders")
        if form.type is OrderType.TRAILING_STOP:
            raise Refusal(422, UNPROCESSABLE, "fractional orders cannot be trailing stop orders")
    if fractional and form.order_class:
        raise Refusal(422, UNPROCESSABLE, "fractional orders must be simple orders")
    check_qty(form.qty)
    check_qty(form.notional, "notional")
    check_trail(form.trail_price, form.trail_percent, asset)
    for field, price in (("limit_price", form.limit_price), ("stop_price", form.stop_price)):
        check_price(price, field, asset)
    check_price(form.take_profit, "take_profit.limit_price", asset)
    if form.stop_loss is not None:
        check_price(form.stop_loss[0], "stop_loss.stop_price", asset)
        check_price(form.stop_loss[1], "stop_loss.limit_price", asset)


def _one_of(kind: type[Any], value: Any, field: str) -> Any:
    if not value:
        raise Refusal(422, BAD_FIELD, f"{field} is required")
    try:
        return kind(value)
    except ValueError as error:
        raise Refusal(422, BAD_FIELD, f"invalid {field}: {value}") from error


def _take_profit(given: dict[str, Any]) -> Decimal | None:
    leg = given.get("take_profit")
    return number_in(leg, "limit_price") if isinstance(leg, dict) else None


def _stop_loss(given: dict[str, Any]) -> tuple[Decimal, Decimal | None] | None:
    leg = given.get("stop_loss")
    if not isinstance(leg, dict):
        return None
    stop = number_in(leg, "stop_price")
    if stop is None:
        raise Refusal(422, BAD_FIELD, "stop_loss.stop_price is required")
    return stop, number_in(leg, "limit_price")


def _check_amount(form: OrderForm) -> None:
    if form.qty is None and form.notional is None:
        raise Refusal(422, BAD_FIELD, "qty or notional is required")
    if form.qty is not None and form.notional is not None:
        raise Refusal(422, BAD_FIELD, "only one of qty or notional is accepted")
    if form.notional is not None and form.notional < 1:
        raise Refusal(422, UNPROCESSABLE, "notional amount must be >= 1.00")


def _check_prices(form: OrderForm) -> None:
    if form.type in _LIMITED and form.limit_price is None:
        raise Refusal(422, BAD_FIELD, f"{_spoken(form.type)} orders require limit price")
    if form.type in _STOPPED and form.stop_price is None:
        raise Refusal(422, BAD_FIELD, f"{_spoken(form.type)} orders require stop price")
    if form.type not in _LIMITED and form.limit_price is not None:
        raise Refusal(422, BAD_FIELD, f"{_spoken(form.type)} orders must not have limit price")
    if form.type not in _STOPPED and form.stop_price is not None:
        raise Refusal(422, BAD_FIELD, f"{_spoken(form.type)} orders must not have stop price")
    trails = (form.trail_price is not None) + (form.trail_percent is not None)
    if form.type is OrderType.TRAILING_STOP:
        if trails != 1:
            raise Refusal(422, BAD_FIELD, "trailing stop orders must specify one of trail_price or trail_percent")
        if form.time_in_force not in (TimeInForce.DAY, TimeInForce.GTC):
            raise Refusal(422, UNPROCESSABLE, "trailing stop orders must be DAY or GTC orders")
    elif trails:
        raise Refusal(422, BAD_FIELD, "trail_price and trail_percent are for trailing stop orders only")
    if form.time_in_force in (TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE) and form.type not in (
        OrderType.MARKET,
        OrderType.LIMIT,
    ):
        raise Refusal(422, UNPROCESSABLE, f"{form.time_in_force} orders must be market or limit orders")
    if form.extended_hours and (form.type is not OrderType.LIMIT or form.time_in_force is not TimeInForce.DAY):
        raise Refusal(422, UNPROCESSABLE, "extended hours order must be DAY limit orders")


def _check_class(form: OrderForm) -> None:
    if not form.order_class:
        if form.take_profit is not None or form.stop_loss is not None:
            raise Refusal(422, UNPROCESSABLE, "simple orders must not have take_profit or stop_loss")
        return
    if form.time_in_force not in (TimeInForce.DAY, TimeInForce.GTC):
        raise Refusal(422, UNPROCESSABLE, f"{form.order_class} orders must be DAY or GTC orders")
    if form.order_class in ("bracket", "oco"):
        if form.take_profit is None:
            raise Refusal(422, BAD_FIELD, f"{form.order_class} orders require take_profit.limit_price")
        if form.stop_loss is None:
            raise Refusal(422, BAD_FIELD, f"{form.order_class} orders require stop_loss.stop_price")
    elif (form.take_profit is None) == (form.stop_loss is None):
        raise Refusal(422, BAD_FIELD, "oto orders require one of take_profit or stop_loss")
    if form.order_class == "oco" and form.type is not OrderType.LIMIT:
        raise Refusal(422, UNPROCESSABLE, "oco orders must be limit orders")
    if form.take_profit is not None and form.stop_loss is not None:
        # The legs close what the entry opens; an OCO's own side is the closing one already.
        closing = form.side.sign if form.order_class == "oco" else -form.side.sign
        if (form.take_profit - form.stop_loss[0]) * closing >= 0:
            word = ">" if closing < 0 else "<"
            said = f"take_profit.limit_price must be {word} stop_loss.stop_price"
            raise Refusal(422, UNPROCESSABLE, said)


def _spoken(kind: OrderType) -> str:
    return str(kind).replace("_", " ")
