"""`PaperVenue` as a `connectors.base.Broker`: latency, live ticks in, and nothing told before it is saved."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from connectors.base import Clock, PaperAccount, paper_capabilities
from connectors.paper.ledger import PaperLedger
from connectors.paper.venue import PaperVenue
from trading.broker import (
    AmendTicket,
    Answer,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    OrderTicket,
    Verdict,
)
from trading.errors import BadInput, Fenced, NotReady, TradeError, Unreachable
from trading.ids import AccountId, Epoch, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import BACKFILLED, BUYER_MAKER, QUOTE, SNAPSHOT, TICK, TRADE, TickArray

log = logging.getLogger(__name__)

_Ticket = TypeVar("_Ticket", OrderTicket, AmendTicket, CancelTicket)
_DAY_NS: Final = 86_400_000_000_000
_SAVE_WITHIN_S: Final = 5.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 2.0


class PaperBroker:
    """One paper account.  Its owner gives it every batch of ticks by `on_ticks`."""

    def __init__(
        self,
        account: AccountId,
        settings: PaperAccount,
        instruments: Mapping[InstrumentId, Instrument],
        ledger: PaperLedger,
        epoch: Epoch,
        clock: Clock,
    ) -> None:
        self.capabilities = paper_capabilities(settings)
        self._account = account
        self._settings = settings
        self._instruments = instruments
        self._ledger = ledger
        self._epoch = epoch
        self._clock = clock
        self._venue: PaperVenue | None = None
        #: Last quote per instrument number.
        self._quotes = np.zeros(64, dtype=TICK)
        self._active: dict[int, InstrumentId] = {}
        self._active_numbers = np.empty(0, dtype=np.int32)
        self._day = 0
        self._told: deque[BrokerUpdate] = deque()
        self._news = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None
        self._next_save: asyncio.Future[None] | None = None
        self._fenced: Fenced | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "fenced" if self._fenced else "open" if self._venue else "new"
        return f"<PaperBroker {self._account}/{self._epoch} {state} {self._venue}>"

    # connectors.base.Broker

    async def connect(self) -> None:
        """Load the account's book, or open it with the cash of the settings.

        Raises `BadInput` (settings that cannot be), `NotReady` or `Unreachable` (the ledger is away) and
        `Fenced`.
        """
        check_settings(self._settings)
        venue = PaperVenue(self._account, self._settings, self._instruments, self._epoch)
        report = await _within("loading", self._ledger.load(self._account))
        if report is None:
            saved = self._ledger.save(self._account, self._epoch, (), (), (), venue.money.cash, self._settings.currency)
            await _within("opening", saved)
        else:
            venue.restore(report)
        self._venue = venue
        self._day = self._clock() // _DAY_NS
        self._watch()
        if venue.has_news:
            await self._saved()

    async def close(self) -> None:
        """Stop; what was decided is saved first, resting orders stay."""
        if self._venue is not None and self._fenced is None and not self._closed:
            try:
                await self._saved()
            except TradeError as error:
                log.warning("%s: closed with decisions unsaved, so they never happened: %s", self._account, error)
        self._closed = True
        if self._saving is not None:
            # Until it has ended: a library may lose a cancellation (`storage.tasks`).
            while not self._saving.done():
                self._saving.cancel()
                await asyncio.wait([self._saving], timeout=0.5)
        self._news.set()

    async def place(self, tickets: Sequence[OrderTicket]) -> list[Answer]:
        """Take orders in, in order; one answer each.  Raises `Fenced` only."""

        def one(venue: PaperVenue, ticket: OrderTicket, at: Nanos) -> Answer:
            self._show_quote(venue, ticket.instrument, at)
            for instrument in venue.money.positions:
                self._value(venue, instrument)
            return venue.place(ticket, at)

        return await self._do(tickets, one)

    async def modify(self, tickets: Sequence[AmendTicket]) -> list[Answer]:
        """Change orders; one answer each.  Raises `Fenced` only."""
        return await self._do(tickets, lambda venue, ticket, at: venue.amend(ticket, at))

    async def cancel(self, tickets: Sequence[CancelTicket]) -> list[Answer]:
        """Take orders back; one answer each.  Raises `Fenced` only."""
        return await self._do(tickets, lambda venue, ticket, at: venue.cancel(ticket, at))

    async def report(self, since: Nanos | None = None) -> BrokerReport:
        """The account as the ledger has it, everything decided until now included."""
        self._open_venue()
        requested_at = self._clock()
        await self._saved()
        report = await _within("reading", self._ledger.load(self._account, since))
        if report is None:
            raise NotReady(f"the book of {self._account} is gone from the ledger")
        return msgspec.structs.replace(report, requested_at=requested_at, received_at=self._clock())

    async def updates(self) -> AsyncIterator[BrokerUpdate]:
        """What happened to orders, each once, after it was saved; ends with `close`."""
        while True:
            while self._told:
                yield self._told.popleft()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def expect(self, tags: Iterable[str]) -> None:
        """Nothing to note: the ledger has every order."""

    def drain(self) -> list[BrokerUpdate]:
        """The updates that wait, without waiting."""
        taken = list(self._told)
        self._told.clear()
        return taken

    # The market

    def on_ticks(self, ticks: TickArray) -> None:
        """Meet the market: cheap unless an instrument in the batch has open orders."""
        venue = self._venue
        if venue is None or not len(ticks) or self._closed:
            return
        live = ticks[(ticks["flags"] & BACKFILLED) == 0]
        if not len(live):
            return
        numbers = live["instrument"]
        highest = int(numbers.max())
        if highest >= len(self._quotes):
            grown = np.zeros(max(highest + 1, 2 * len(self._quotes)), dtype=TICK)
            grown[: len(self._quotes)] = self._quotes
            self._quotes = grown
        is_quote = (live["flags"] & QUOTE) != 0
        # Of several quotes of one instrument the last assignment stays.
        self._quotes[numbers[is_quote]] = live[is_quote]
        day = int(live["received_at"][-1]) // _DAY_NS
        if day > self._day:
            self._end_day(venue, day)
        if not self._active:
            return
        mine = live[np.isin(numbers, self._active_numbers)]
        if len(mine):
            for row in mine.tolist():
                self._meet(venue, row)
            self._after(venue)

    def _meet(self, venue: PaperVenue, row: tuple[Any, ...]) -> None:
        number, flags, price, size, bid, bid_size, ask, ask_size, _, received_at, _ = row
        instrument = self._active.get(number)
        if instrument is None:
            return
        at = Nanos(received_at) if received_at else self._clock()
        # What was last traded before a subscription is nothing that an order could meet.
        if flags & TRADE and not flags & SNAPSHOT:
            venue.trade(instrument, _decimal(price), _decimal(size), bool(flags & BUYER_MAKER), at)
        if flags & QUOTE:
            venue.quote(instrument, _decimal(bid), _decimal(bid_size), _decimal(ask), _decimal(ask_size), at)

    def _show_quote(self, venue: PaperVenue, instrument: InstrumentId, at: Nanos) -> None:
        """Bring the venue's view of an instrument that it does not follow up to date."""
        last = self._last_quote(instrument)
        if last is None:
            return
        venue.quote(
            instrument,
            _decimal(float(last["bid"])),
            _decimal(float(last["bid_size"])),
            _decimal(float(last["ask"])),
            _decimal(float(last["ask_size"])),
            at,
        )

    def _value(self, venue: PaperVenue, instrument: InstrumentId) -> None:
        last = self._last_quote(instrument)
        if last is not None:
            venue.money.see_quote(instrument, _decimal(float(last["bid"])), _decimal(float(last["ask"])))

    def _last_quote(self, instrument: InstrumentId) -> np.void | None:
        listed = self._instruments.get(instrument)
        if listed is None or not 0 < listed.number < len(self._quotes):
            return None
        last: np.void = self._quotes[listed.number]
        return last if int(last["instrument"]) == listed.number else None

    def _end_day(self, venue: PaperVenue, day: int) -> None:
        # Markets that never close have days all the same: they end at midnight UTC.
        self._day = day
        around_the_clock = [i for i in venue.active() if self._instruments[i].calendar == "24x7"]
        venue.expire_day(around_the_clock, Nanos(day * _DAY_NS))
        self._after(venue)

    # Saving

    async def _do(
        self, tickets: Sequence[_Ticket], one: Callable[[PaperVenue, _Ticket, Nanos], Answer]
    ) -> list[Answer]:
        venue = self._open_venue()
        if self._settings.latency_ms > 0:
            await asyncio.sleep(self._settings.latency_ms / 1000.0)
        if self._fenced is not None:
            raise self._fenced
        at = self._clock()
        answers = [one(venue, ticket, at) for ticket in tickets]
        self._watch()
        try:
            await self._saved()
        except Fenced:
            raise
        except TradeError as error:
            # Decided but not saved: it may yet be saved, or vanish with this process.
            return [Answer(tag=ticket.tag, verdict=Verdict.UNKNOWN, reason=str(error)) for ticket in tickets]
        return answers

    def _open_venue(self) -> PaperVenue:
        if self._fenced is not None:
            raise self._fenced
        if self._venue is None or self._closed:
            raise NotReady(f"the paper broker of {self._account} is not connected")
        return self._venue

    def _watch(self) -> None:
        """Follow the instruments that have open orders."""
        assert self._venue is not None
        self._active = {self._instruments[i].number: i for i in self._venue.active()}
        self._active_numbers = np.fromiter(self._active, dtype=np.int32, count=len(self._active))

    def _after(self, venue: PaperVenue) -> None:
        if venue.has_news:
            self._watch()
            self._ask_for_save()

    def _ask_for_save(self) -> asyncio.Future[None]:
        """A future that is done when everything decided until now is saved."""
        if self._next_save is None:
            self._next_save = asyncio.get_running_loop().create_future()
            # Not everybody who asks waits; an error unseen here is logged below.
            self._next_save.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save())
        return self._next_save

    async def _saved(self) -> None:
        if self._fenced is not None:
            raise self._fenced
        try:
            async with asyncio.timeout(_SAVE_WITHIN_S):
                await asyncio.shield(self._ask_for_save())
        except TimeoutError as error:
            raise Unreachable("ledger", f"nothing could be saved within {_SAVE_WITHIN_S:g} s") from error

    async def _save(self) -> None:
        """Save until nothing waits: one save at a time, whatever has gathered goes with the next."""
        venue = self._venue
        assert venue is not None
        retry = _FIRST_RETRY_S
        failing = False
        while self._next_save is not None:
            waiting, self._next_save = self._next_save, None
            changes, updates = venue.take_changes(), venue.take_updates()
            while True:
                try:
                    if not changes.is_empty:
                        await self._ledger.save(
                            self._account,
                            self._epoch,
                            list(changes.orders.values()),
                            changes.fills,
                            list(changes.positions.values()),
                            changes.cash,
                            self._settings.currency,
                        )
                    break
                except Fenced as error:
                    self._fenced = error
                    log.error("%s: %s", self._account, error)
                    waiting.set_exception(error)
                    if self._next_save is not None:
                        self._next_save.set_exception(error)
                        self._next_save = None
                    return
                except Exception as error:  # noqa: BLE001 - whatever the ledger raises, nothing may be told yet
                    if not failing:
                        log.warning("%s: saving fails, trying on: %s", self._account, error)
                    failing = True
                    await asyncio.sleep(retry)
                    retry = min(2 * retry, _LONGEST_RETRY_S)
            if failing:
                log.warning("%s: saving works again", self._account)
                failing, retry = False, _FIRST_RETRY_S
            if updates:
                self._told.extend(updates)
                self._news.set()
            if not waiting.done():
                waiting.set_result(None)


def check_settings(settings: PaperAccount) -> None:
    """Raise `BadInput` naming the field of a paper account's settings that cannot be."""
    if not settings.cash.is_finite() or settings.cash < 0:
        raise BadInput("cash", f"{settings.cash}: use a number from 0")
    if not settings.currency:
        raise BadInput("currency", "it is empty: use one such as USDT")
    if not 0 <= settings.latency_ms <= 60_000:
        raise BadInput("latency_ms", f"{settings.latency_ms:g}: use 0 to 60000")
    if not settings.fee_bps.is_finite() or not 0 <= settings.fee_bps <= 10_000:
        raise BadInput("fee_bps", f"{settings.fee_bps}: use 0 to 10000")
    if settings.slippage_ticks < 0:
        raise BadInput("slippage_ticks", f"{settings.slippage_ticks}: use 0 or more")
    if not settings.fill_ratio.is_finite() or not 0 < settings.fill_ratio <= 1:
        raise BadInput("fill_ratio", f"{settings.fill_ratio}: use more than 0, up to 1")
    if not 0 <= settings.reject_ratio <= 1:
        raise BadInput("reject_ratio", f"{settings.reject_ratio:g}: use 0 to 1")


_T = TypeVar("_T")


async def _within(what: str, answer: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(_SAVE_WITHIN_S):
            return await answer
    except TradeError:
        raise
    except TimeoutError as error:
        raise Unreachable("ledger", f"{what}: no answer within {_SAVE_WITHIN_S:g} s") from error
    except Exception as error:
        # The ledger's own errors are not known here; to the caller they all mean the same.
        raise Unreachable("ledger", f"{what}: {error}") from error


def _decimal(number: float) -> Decimal:
    # The shortest text that gives this float is the one the venue sent.
    return Decimal(repr(number))
