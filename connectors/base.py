"""What every connector offers: protocols, capabilities, limits.

A connector is either market data (`MarketData` makes `FeedConnection`s and answers history) or trading
(`Broker`), or both.  Codecs are pure (bytes in, values out); only ``client`` and ``feed`` modules touch a
socket.  Connectors never see the journal; what they must keep, they keep through a protocol given to them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from trading.bars import Bar
from trading.broker import (
    AmendTicket,
    Answer,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    Capabilities,
    OrderTicket,
    StreamChange,
)
from trading.depth import DepthArray
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.orders import OrderType, TimeInForce
from trading.ticks import TickArray, TickBuffer


class FeedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider allows."""

    instruments_per_worker: int
    max_workers: int
    #: Control messages (subscribe …) a connection may send per second.
    messages_per_s: int
    #: Channels this provider streams: ``trade``, ``quote``, ``depth``, ``bar``.
    channels: tuple[str, ...]
    #: Whether channel ``trade`` brings every trade that counts in the provider's own bars, and no other: no samples,
    #: none that its bars leave out by their condition.  Only then do bars built of it stand in for the provider's.
    every_trade: bool = False
    #: Whether the sequences of an instrument's trades are numbers 1 apart: a trade that is missing shows with the next
    #: one (`trading.continuity`).
    consecutive_trades: bool = False
    #: Instruments whose last values are asked for at once when the stream does not bring them.
    instruments_per_poll: int = 20
    #: Interval of what channel ``bar`` brings.
    bar_interval: str = "1m"


class PastTrades(msgspec.Struct, frozen=True, kw_only=True):
    """Trades of the past as ticks marked BACKFILLED, oldest first, with the sequences that the stream gives them."""

    ticks: TickArray
    #: Venue time from which on none is missing.
    since: Nanos


class LastValue(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an instrument as the venue tells it on request; NaN and 0: it does not say."""

    instrument: InstrumentId
    price: float = math.nan
    size: float = math.nan
    bid: float = math.nan
    bid_size: float = math.nan
    ask: float = math.nan
    ask_size: float = math.nan
    #: Venue times of the last trade and of the quote.
    traded_at: Nanos = Nanos(0)
    quoted_at: Nanos = Nanos(0)


class BookDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Changed levels of an order book: (price, new size) pairs, size 0 removes the level.

    ``first_sequence`` … ``last_sequence`` are the venue's update ids that it covers, ``previous_sequence``
    the last id of the message before it where the venue sends that (else None).
    """

    instrument: int
    exchange_at: Nanos
    received_at: Nanos
    first_sequence: int
    last_sequence: int
    previous_sequence: int | None
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]


class FeedSink(Protocol):
    """Where a feed connection puts what it decodes.  All calls come from one event loop."""

    #: Ticks are appended here; `wake` is called after each read from the socket that appended some.
    ticks: TickBuffer

    def wake(self) -> None:
        """Say that new ticks are in the buffer."""

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """Take a bar the venue built itself."""

    def book(self, delta: BookDelta) -> None:
        """Take an order book change."""

    def depth(self, books: DepthArray) -> None:
        """Take whole books of a few levels, many at once (`trading.depth`); later ones replace earlier ones."""

    def opened(self) -> None:
        """The socket is open and everything wanted has been asked for again."""

    def closed(self, reason: str) -> None:
        """The socket is gone; the connection is reconnecting by itself."""

    def garbage(self, raw: bytes, reason: str) -> None:
        """Take note of a frame that could not be decoded; the connection goes on."""

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """The provider refused one instrument."""


class FeedConnection(Protocol):
    """One worker's streaming connection: keeps itself alive, reconnects, resubscribes."""

    async def run(self) -> None:
        """Connect and stream until cancelled; reconnects with backoff and never returns by itself."""

    async def subscribe(self, instruments: Sequence[Instrument], channels: Sequence[str]) -> None:
        """Add instruments (idempotent); waits for the provider's pace, not for its answer."""

    async def unsubscribe(self, instruments: Sequence[Instrument], channels: Sequence[str] | None = None) -> None:
        """Remove instruments (idempotent), or only these channels of them; what has no channel left is removed."""

    async def resubscribe(self, instruments: Sequence[Instrument]) -> None:
        """End the subscription of instruments and begin it again; those that are not there are passed over."""

    def reconnect(self, reason: str) -> None:
        """Give the connection up and open another; nothing where none is open."""

    def wanted(self) -> frozenset[InstrumentId]:
        """What it carries or is asking for."""


class MarketData(Protocol):
    """A market data provider."""

    name: str
    limits: FeedLimits

    async def instruments(self) -> Sequence[Instrument]:
        """Everything the provider lists (numbers unassigned)."""

    def feed(self, sink: FeedSink) -> FeedConnection:
        """A new streaming connection."""

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        """Closed bars with ``start <= opened_at < end``, oldest first; ``interval`` is ``1m``, ``5m``, ``1h``
        …
        """

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        """Trades of ``start <= exchange_at < end``, as far back as the provider tells them.

        ``numbers``: where trades are numbered, those from the first to the last of these are enough, of whatever time.
        None: it tells none, bars must do.
        """

    async def last_values(self, instruments: Sequence[Instrument]) -> Sequence[LastValue]:
        """The state of instruments now, by request, at the provider's pace; those it does not know are left out."""

    async def close(self) -> None:
        """Give back sockets and pools."""


class Broker(Protocol):
    """One authenticated connection of one account."""

    capabilities: Capabilities

    async def connect(self) -> None:
        """Log in and open the order stream.  Raises `NeedsOperator`, `NotReady` or `Unreachable`."""

    async def close(self) -> None:
        """Log out of sockets; open orders stay at the broker."""

    async def place(self, tickets: Sequence[OrderTicket]) -> list[Answer]:
        """Send orders, in order; one answer per ticket.  Never raises for a single ticket."""

    async def modify(self, tickets: Sequence[AmendTicket]) -> list[Answer]:
        """Change orders; one answer per ticket."""

    async def cancel(self, tickets: Sequence[CancelTicket]) -> list[Answer]:
        """Take orders back; one answer per ticket.  Accepted means the request was taken, not that it is
        done.
        """

    async def report(self, since: Nanos | None = None) -> BrokerReport:
        """The whole account as the broker sees it now; ended orders and executions before ``since`` may be left out."""

    def updates(self) -> AsyncIterator[BrokerUpdate | StreamChange]:
        """Unasked messages, for as long as the connection lives; each loss and return of the stream among them."""

    def expect(self, tags: Iterable[str]) -> None:
        """Orders that were open at the broker when last heard of: `report` says what has become of them."""


#: Gives the time in UTC nanoseconds; passed in so that tests own the clock.
Clock = Callable[[], Nanos]


class PaperAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a paper account."""

    cash: Decimal = Decimal(1_000_000)
    currency: str = "USDT"
    latency_ms: float = 0.0
    #: Taker fee in basis points of notional.
    fee_bps: Decimal = Decimal(0)
    #: Adverse slippage of market orders in ticks.
    slippage_ticks: int = 0
    #: Share of what stands at a price that one order may take, 0 < x <= 1.
    fill_ratio: Decimal = Decimal(1)
    #: Probability that an order is rejected, decided by a hash of its tag (so it repeats).
    reject_ratio: float = 0.0
    #: False: as at a broker that cannot change orders; a change is then a cancel and a new order.
    native_modify: bool = True


def paper_capabilities(settings: PaperAccount) -> Capabilities:
    """What a paper account can do."""
    return Capabilities(
        order_types=frozenset(OrderType),
        times_in_force=frozenset(TimeInForce) - {TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE},
        native_modify=settings.native_modify,
        deduplicates=True,
        late_arrival_s=1.0 + settings.latency_ms / 1000.0,
        trade_date_cash=True,
    )
