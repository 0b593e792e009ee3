"""The ``trade_updates`` stream: frames in, updates out.  Pure.

Frames are JSON in text or binary messages (paper sends binary ones).  There is no replay: what was sent while nobody
listened is only in REST.  Source: "Websocket Streaming" and the AsyncAPI document of Alpaca.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from connectors.alpaca.chains import Chains
from connectors.alpaca.symbols import instrument_of
from connectors.alpaca.wire import OrderRow, TradeUpdate, nanos, plain
from trading.broker import BrokerUpdate, UpdateKind
from trading.errors import BadInput
from trading.ids import ExecutionId, Nanos
from trading.orders import Fill

#: Events that tell of a change that the session follows.
_KINDS: Final = {
    "new": UpdateKind.ACCEPTED,
    "accepted": UpdateKind.ACCEPTED,
    "pending_new": UpdateKind.ACCEPTED,
    "fill": UpdateKind.FILLED,
    "partial_fill": UpdateKind.FILLED,
    "canceled": UpdateKind.CANCELLED,
    "expired": UpdateKind.EXPIRED,
    "rejected": UpdateKind.REJECTED,
    "replaced": UpdateKind.MODIFIED,
    "order_cancel_rejected": UpdateKind.CANCEL_REJECTED,
    "order_replace_rejected": UpdateKind.MODIFY_REJECTED,
}
#: Documented events that change nothing for us: requests under way, and ends of a day that the order survives.
_PASSING: Final = frozenset(
    {
        "done_for_day",
        "stopped",
        "pending_cancel",
        "pending_replace",
        "calculated",
        "suspended",
        "restated",
        "held",
        "accepted_for_bidding",
    }
)
_KEPT: Final = 2_000


class _Frame(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    #: Errors come as ``action`` in place of ``stream``.
    action: str = ""


class Control(msgspec.Struct, frozen=True):
    """A message about the stream itself: ``authorization``, ``listening`` or ``error``."""

    stream: str
    data: dict[str, Any]


_frame = msgspec.json.Decoder(_Frame)
_update = msgspec.json.Decoder(TradeUpdate)
_data = msgspec.json.Decoder(dict[str, Any])


class UpdateReader:
    """Turns frames into updates; learns chains on the way."""

    def __init__(self, chains: Chains) -> None:
        self.chains = chains
        #: Events that the documentation does not name, and how often they came.
        self.unknown_events: Counter[str] = Counter()
        #: Frames that could not be read.
        self.garbage = 0

    def read(self, frame: bytes | str) -> list[BrokerUpdate] | Control:
        """What one frame says.  Raises `BadInput` for one that cannot be read; the stream may go on after it."""
        raw = frame.encode() if isinstance(frame, str) else frame
        try:
            outer = _frame.decode(raw)
            if outer.stream != "trade_updates":
                return Control(outer.stream or outer.action, _data.decode(outer.data))
            update = _update.decode(outer.data)
            return self._told(update, raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            self.garbage += 1
            raise BadInput("frame", f"it cannot be read ({error}): {raw[:200]!r}") from error

    def learned(self, row: OrderRow) -> list[BrokerUpdate]:
        """An order was fetched that chains lead to: what it says of a replacement that was announced without it."""
        self.chains.learn(row)
        if row.replaces is None or not self.chains.was_replaced(row.replaces):
            return []
        return self._modified(row, TradeUpdate(event="replaced", order=row), b"")

    def _told(self, update: TradeUpdate, raw: bytes) -> list[BrokerUpdate]:
        row = update.order
        self.chains.learn(row)
        kind = _KINDS.get(update.event)
        if kind is None:
            if update.event not in _PASSING:
                self.unknown_events[update.event] += 1
            return []
        if kind is UpdateKind.MODIFIED:
            after = self.chains.successor(row.id)
            replacement = None if after is None else self.chains.row(after)
            return [] if replacement is None else self._modified(replacement, update, raw)
        if kind is UpdateKind.ACCEPTED and row.replaces:
            before = self.chains.row(row.replaces)
            confirmed = update.event == "new" or (before is not None and before.status == "replaced")
            return self._modified(row, update, raw) if confirmed else []
        if kind is UpdateKind.MODIFY_REJECTED and (after := self.chains.successor(row.id)) is not None:
            # The replacement's own rejection will follow, and is the same news.
            self.chains.announce(after)
        if kind is UpdateKind.REJECTED and row.replaces and not self.chains.was_replaced(row.replaces):
            if not self.chains.announce(row.id):
                return []
            kind = UpdateKind.MODIFY_REJECTED
        if kind in (UpdateKind.CANCELLED, UpdateKind.EXPIRED) and self.chains.was_replaced(row.id):
            return []
        return [self._one(kind, row, update, raw)]

    def _modified(self, row: OrderRow, update: TradeUpdate, raw: bytes) -> list[BrokerUpdate]:
        if not self.chains.announce(row.id):
            return []
        return [self._one(UpdateKind.MODIFIED, row, update, raw)]

    def _one(self, kind: UpdateKind, row: OrderRow, update: TradeUpdate, raw: bytes) -> BrokerUpdate:
        at = nanos(update.timestamp) if update.timestamp else row.changed_at
        modified = kind is UpdateKind.MODIFIED
        return BrokerUpdate(
            kind=kind,
            tag=self.chains.tag_of(row.id),
            instrument=instrument_of(row.symbol),
            at=at,
            broker_order_id=self.chains.root_of(row.id),
            fill=_fill(update, at) if kind is UpdateKind.FILLED else None,
            quantity=row.qty if modified else None,
            limit_price=row.limit_price if modified else None,
            stop_price=row.stop_price if modified and row.type != "trailing_stop" else None,
            trail_price=row.trail_price if modified else None,
            trail_percent=row.trail_percent if modified else None,
            filled_quantity=row.filled_qty,
            reason=_reason(kind, update),
            raw=raw[:_KEPT].decode("utf-8", "replace"),
            message_id=ExecutionId(update.execution_id) if update.execution_id else None,
        )


def _fill(update: TradeUpdate, at: Nanos) -> Fill:
    if update.execution_id is None or update.qty is None or update.price is None:
        raise ValueError(f"a {update.event} without execution_id, qty or price")
    if update.qty <= 0 or update.price <= 0:
        raise ValueError(f"a {update.event} of {plain(update.qty)} at {plain(update.price)}")
    return Fill(execution_id=ExecutionId(update.execution_id), quantity=update.qty, price=update.price, at=at)


def _reason(kind: UpdateKind, update: TradeUpdate) -> str:
    if kind in (UpdateKind.REJECTED, UpdateKind.MODIFY_REJECTED, UpdateKind.CANCEL_REJECTED):
        return f"Alpaca sent {update.event}"
    return ""
