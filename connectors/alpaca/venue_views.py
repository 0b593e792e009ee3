"""What the simulated Alpaca shows: orders, positions, account, activities, assets, clock and calendar.  Pure.

Lists can lag: they show what was `Views.list_lag` ago, as a read replica does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.alpaca.venue_checks import BAD_FIELD, NOT_FOUND, Refusal
from connectors.alpaca.venue_desk import Desk
from connectors.alpaca.venue_hours import DAY
from connectors.alpaca.venue_ledger import Held, VenueFill
from connectors.alpaca.wire import ENDED, AssetRow, Request, nanos, plain, rfc3339
from trading.ids import Nanos
from trading.orders import ZERO

NEW_YORK: Final = ZoneInfo("America/New_York")
_SECOND: Final = 1_000_000_000
_LARGEST_ORDERS: Final = 500
_LARGEST_ACTIVITIES: Final = 100


class Views:
    """Reads the ledger; changes nothing."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ledger = desk.ledger
        self.list_lag = 0
        self.lookup_lag = 0

    # Orders

    def orders(self, request: Request, now: Nanos) -> list[dict[str, Any]]:
        """``GET /v2/orders`` with its filters."""
        status = request.value("status") or "open"
        if status not in ("open", "closed", "all"):
            raise Refusal(422, BAD_FIELD, f"invalid status: {status}")
        limit = _whole(request, "limit", 50, _LARGEST_ORDERS)
        after, until = _instant(request, "after"), _instant(request, "until")
        newest_first = _direction(request) == "desc"
        nested = request.flag("nested")
        symbols = {s for s in (request.value("symbols") or "").split(",") if s}
        side = request.value("side")
        seen_at = Nanos(now - self.list_lag)
        found: list[dict[str, Any]] = []
        ids = reversed(self.ledger.orders) if newest_first else iter(self.ledger.orders)
        for order_id in ids:
            order = self.ledger.orders[order_id]
            if nested and order.parent is not None:
                continue
            if not ((after is None or order.arrived_at > after) and (until is None or order.arrived_at < until)):
                continue
            if (symbols and order.symbol not in symbols) or (side and order.side != side):
                continue
            row = self._shown(order_id, seen_at, nested)
            if row is None or (status != "all" and (row["status"] in ENDED) != (status == "closed")):
                continue
            found.append(row)
            if len(found) >= limit:
                break
        return found

    def order(self, order_id: str, request: Request, now: Nanos) -> dict[str, Any]:
        """``GET /v2/orders/{order_id}``."""
        known = order_id in self.ledger.orders
        row = self._shown(order_id, Nanos(now - self.lookup_lag), request.flag("nested")) if known else None
        if row is None:
            raise Refusal(404, NOT_FOUND, f"order not found for {order_id}")
        return row

    def order_by_client_id(self, client_order_id: str, request: Request, now: Nanos) -> dict[str, Any]:
        """``GET /v2/orders:by_client_order_id``."""
        order_id = self.ledger.by_client_id.get(client_order_id)
        if order_id is None:
            raise Refusal(404, NOT_FOUND, f"order not found for {client_order_id}")
        return self.order(order_id, request, now)

    def _shown(self, order_id: str, at: Nanos, nested: bool) -> dict[str, Any] | None:
        row = self.ledger.row_at(order_id, at)
        legs = self.ledger.orders[order_id].legs
        if row is None or not (nested and legs):
            return row
        shown = [self.ledger.row_at(leg, at) for leg in legs]
        return {**row, "legs": [leg for leg in shown if leg is not None]}

    # Positions and money

    def positions(self, now: Nanos) -> list[dict[str, Any]]:
        """``GET /v2/positions``."""
        held = self.ledger.positions_at(Nanos(now - self.list_lag))
        return [self._position(symbol, position) for symbol, position in sorted(held.items()) if position.qty]

    def position(self, symbol_or_id: str, now: Nanos) -> dict[str, Any]:
        """``GET /v2/positions/{symbol_or_asset_id}``."""
        asset = self.desk.asset(symbol_or_id)
        held = self.ledger.positions_at(Nanos(now - self.list_lag)).get(asset.symbol)
        if held is None or not held.qty:
            raise Refusal(404, NOT_FOUND, "position does not exist")
        return self._position(asset.symbol, held)

    def _position(self, symbol: str, held: Held) -> dict[str, Any]:
        asset = self.desk.asset(symbol)
        price = self.desk.mark(symbol) or held.average_price
        value, cost = held.qty * price, held.qty * held.average_price
        profit = value - cost
        part = profit / abs(cost) if cost else ZERO
        return {
            "asset_id": asset.id,
            "symbol": symbol,
            "exchange": asset.exchange,
            "asset_class": asset.asset_class,
            "asset_marginable": asset.marginable,
            "qty": plain(held.qty),
            "qty_available": plain(self.desk.available(symbol)),
            "avg_entry_price": plain(round(held.average_price, 9)),
            "side": "long" if held.qty > 0 else "short",
            "market_value": plain(value),
            "cost_basis": plain(round(cost, 9)),
            "unrealized_pl": plain(round(profit, 9)),
            "unrealized_plpc": plain(round(part, 9)),
            "unrealized_intraday_pl": plain(round(profit, 9)),
            "unrealized_intraday_plpc": plain(round(part, 9)),
            "current_price": plain(price),
            "lastday_price": plain(price),
            "change_today": "0",
        }

    def account(self, now: Nanos) -> dict[str, Any]:
        """``GET /v2/account``."""
        desk = self.desk
        longs = sum((p.qty * (desk.mark(s) or p.average_price) for s, p in desk.held() if p.qty > 0), ZERO)
        shorts = sum((p.qty * (desk.mark(s) or p.average_price) for s, p in desk.held() if p.qty < 0), ZERO)
        equity = self.ledger.cash + longs + shorts
        power = plain(desk.buying_power())
        margin = (longs - shorts) / desk.multiplier
        return {
            "id": desk.account_id,
            "account_number": self.ledger.account,
            "status": "ACTIVE",
            "crypto_status": "ACTIVE",
            "currency": "USD",
            "buying_power": power,
            "regt_buying_power": power,
            "daytrading_buying_power": "0",
            "non_marginable_buying_power": plain(max(self.ledger.cash, ZERO)),
            "options_buying_power": "0",
            "effective_buying_power": power,
            "cash": plain(self.ledger.cash),
            "accrued_fees": "0",
            "portfolio_value": plain(equity),
            "equity": plain(equity),
            "last_equity": plain(self.ledger.opening_cash),
            "long_market_value": plain(longs),
            "short_market_value": plain(shorts),
            "position_market_value": plain(longs - shorts),
            "initial_margin": plain(margin),
            "maintenance_margin": plain(margin),
            "last_maintenance_margin": "0",
            "sma": "0",
            "multiplier": plain(desk.multiplier),
            "daytrade_count": 0,
            "pattern_day_trader": False,
            "trading_blocked": False,
            "transfers_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": False,
            "shorting_enabled": desk.multiplier > 1,
            "created_at": rfc3339(now // DAY * DAY),
            "balance_asof": _new_york(now).strftime("%Y-%m-%d"),
        }

    def configurations(self) -> dict[str, Any]:
        """``GET /v2/account/configurations``: fixed."""
        return {
            "dtbp_check": "entry",
            "fractional_trading": True,
            "max_margin_multiplier": plain(self.desk.multiplier),
            "max_options_trading_level": None,
            "no_shorting": self.desk.multiplier <= 1,
            "pdt_check": "entry",
            "ptp_no_exception_entry": False,
            "suspend_trade": False,
            "trade_confirm_email": "none",
        }

    # Activities

    def activities(self, kinds: Sequence[str], request: Request, now: Nanos) -> list[dict[str, Any]]:
        """``GET /v2/account/activities[/{type}]``: this account only ever has fills."""
        asked = list(kinds) or [k for k in (request.value("activity_types") or "").split(",") if k]
        for kind in asked:
            if not (kind.isupper() and len(kind) <= 8):
                raise Refusal(422, BAD_FIELD, f"invalid activity type: {kind}")
        size = _whole(request, "page_size", _LARGEST_ACTIVITIES, _LARGEST_ACTIVITIES)
        after, until = _instant(request, "after"), _instant(request, "until")
        if day := request.value("date"):
            first = datetime.fromisoformat(day[:10]).replace(tzinfo=NEW_YORK)
            after, until = _stamp(first) - 1, _stamp(first + timedelta(days=1))
        fills = [
            fill
            for fill in self.ledger.executions
            if fill.at <= now - self.list_lag
            and (after is None or fill.at > after)
            and (until is None or fill.at < until)
        ]
        if asked and "FILL" not in asked:
            fills = []
        if _direction(request) == "desc":
            fills.reverse()
        if token := request.value("page_token"):
            at = next((n for n, fill in enumerate(fills) if fill.activity_id == token), None)
            if at is None:
                raise Refusal(422, BAD_FIELD, "invalid page_token")
            fills = fills[at + 1 :]
        return [self._activity(fill) for fill in fills[:size]]

    def _activity(self, fill: VenueFill) -> dict[str, Any]:
        done = fill.leaves_qty <= 0
        return {
            "id": fill.activity_id,
            "activity_type": "FILL",
            "transaction_time": rfc3339(fill.at),
            "type": "fill" if done else "partial_fill",
            "price": plain(fill.price),
            "qty": plain(fill.qty),
            "side": str(fill.side),
            "symbol": fill.symbol,
            "leaves_qty": plain(fill.leaves_qty),
            "order_id": fill.order_id,
            "cum_qty": plain(fill.cum_qty),
            "order_status": "filled" if done else "partially_filled",
        }

    # Assets, clock, calendar

    def assets(self, request: Request) -> list[dict[str, Any]]:
        """``GET /v2/assets``."""
        status, kind, exchange = (request.value(name) for name in ("status", "asset_class", "exchange"))
        return [
            asset_row(asset)
            for asset in self.desk.assets.values()
            if (status in (None, "all", asset.status))
            and kind in (None, asset.asset_class)
            and exchange in (None, asset.exchange)
        ]

    def asset(self, symbol_or_id: str) -> dict[str, Any]:
        """``GET /v2/assets/{symbol_or_asset_id}``."""
        return asset_row(self.desk.asset(symbol_or_id))

    def clock(self, now: Nanos) -> dict[str, Any]:
        """``GET /v2/clock``."""
        session = self.desk.hours.at(now)
        is_open = session.opens <= now
        following = self.desk.hours.at(session.closes) if is_open else session
        return {
            "timestamp": _new_york(now).isoformat(),
            "is_open": is_open,
            "next_open": _new_york(following.opens).isoformat(),
            "next_close": _new_york(session.closes).isoformat(),
        }

    def calendar(self, request: Request, now: Nanos) -> list[dict[str, Any]]:
        """``GET /v2/calendar``."""
        start = _day(request, "start", now)
        end = _day(request, "end", Nanos(now + 30 * DAY))
        return [
            {
                "date": _new_york(session.opens).strftime("%Y-%m-%d"),
                "open": _new_york(session.opens).strftime("%H:%M"),
                "close": _new_york(session.closes).strftime("%H:%M"),
                "session_open": "0400",
                "session_close": "2000",
                "settlement_date": _new_york(Nanos(session.opens + DAY)).strftime("%Y-%m-%d"),
            }
            for session in self.desk.hours.between(start, Nanos(end + DAY))
        ]


def asset_row(asset: AssetRow) -> dict[str, Any]:
    """An asset as its JSON object."""
    row: dict[str, Any] = {
        "id": asset.id,
        "class": asset.asset_class,
        "exchange": asset.exchange,
        "symbol": asset.symbol,
        "name": asset.name or asset.symbol,
        "status": asset.status,
        "tradable": asset.tradable,
        "marginable": asset.marginable,
        "maintenance_margin_requirement": 30,
        "shortable": asset.shortable,
        "easy_to_borrow": asset.easy_to_borrow,
        "fractionable": asset.fractionable,
        "attributes": [],
    }
    steps = (asset.min_order_size, asset.min_trade_increment, asset.price_increment)
    for name, step in zip(("min_order_size", "min_trade_increment", "price_increment"), steps, strict=True):
        if step is not None:
            row[name] = plain(step)
    return row


def _instant(request: Request, field: str) -> int | None:
    text = request.value(field)
    if not text:
        return None
    try:
        return nanos(text) if "T" in text or " " in text else nanos(f"{text}T00:00:00Z")
    except ValueError as error:
        raise Refusal(422, BAD_FIELD, f"invalid {field}: {text}") from error


def _day(request: Request, field: str, otherwise: Nanos) -> Nanos:
    found = _instant(request, field)
    return Nanos((otherwise if found is None else found) // DAY * DAY)


def _direction(request: Request) -> str:
    direction = request.value("direction") or "desc"
    if direction not in ("asc", "desc"):
        raise Refusal(422, BAD_FIELD, f"invalid direction: {direction}")
    return direction


def _whole(request: Request, field: str, otherwise: int, most: int) -> int:
    text = request.value(field)
    if not text:
        return otherwise
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise Refusal(422, BAD_FIELD, f"{field} must be between 1 and {most}")
    return int(text)


def _new_york(at: Nanos) -> datetime:
    return datetime.fromtimestamp(at // _SECOND, UTC).astimezone(NEW_YORK)


def _stamp(moment: datetime) -> int:
    return int(moment.timestamp()) * _SECOND
