"""Trade surveillance: watches every account's orders for what is unusual there, and samples the curves of profit.

It stands beside the order path and holds up nothing.  What it has taken of the journal, what it has learnt and what it
has told are written together; after a restart it goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.shell import Shell, patiently
from cluster import names
from cluster.equity import Sampler
from cluster.process import now
from storage.alerts import NewAlert
from storage.days import Days
from storage.desired import Desired
from storage.equity import Equity
from storage.instruments import Instruments
from storage.leases import Leases
from storage.surveillance import Place, Surveillance
from storage.surveillance_terms import SetTerms, SurveillanceTerms
from trading.errors import BadInput, NeedsOperator, NotReady
from trading.ids import AccountId, Epoch, InstrumentId, UserId
from trading.instruments import Instrument
from trading.monitoring import Account, Alarm, Means, Watched, observe
from trading.portfolio import Portfolio, equity_of
from trading.surveillance_terms import Terms, settled

log = logging.getLogger("quarterdeck")

LEASE_S: Final = 10.0
WATCH_EVERY_S: Final = 1.0
#: Accounts that are asked for at once, and events that are taken at once, of all of them and of one.
ACCOUNTS_AT_ONCE: Final = 100
AT_ONCE: Final = 2_000
OF_ONE: Final = 500
#: Events between which other tasks get their turn.
_IN_A_ROW: Final = 100
SAMPLE_EVERY_S: Final = 10.0
FADE_EVERY_S: Final = 60.0


class TradeSurveillance(Shell):
    """The one who watches."""

    def __init__(self, _id: str = "main") -> None:
        super().__init__(names.surveillance())
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.instruments = Instruments(self.database)
        self.store = Surveillance(self.database)
        self.equity = Equity(self.database)
        self.sampler = Sampler(Days(self.database), self.hot)
        self.set_terms = SurveillanceTerms(self.database)
        #: What was set of the terms, and all that is in force by that; by account, None is the deck.
        self._set: dict[AccountId | None, SetTerms] = {}
        self._terms: dict[AccountId | None, Terms] = {None: Terms()}
        #: None: to be read.
        self._places: dict[AccountId, Place] | None = None
        self._known: dict[InstrumentId, Instrument] = {}
        self._events = 0
        self._alerts = 0
        self._began = False

    async def start(self) -> None:
        """Take an epoch and begin to watch from where the last incarnation stood."""
        await self.database.open()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        self._places = None
        self.sampler.restore(await self.equity.last())
        if not self._began:
            self._began = True
            self.spawn(patiently("lease", self._renew, every=LEASE_S / 5), "lease")
            self.spawn(patiently("orders", self.watch, every=WATCH_EVERY_S), "orders")
            self.spawn(patiently("equity", self._sample, every=SAMPLE_EVERY_S), "equity")
            self.spawn(patiently("old equity", self._fade, every=FADE_EVERY_S), "old equity")

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def watch(self) -> None:
        """Take what is new in the journal of every account."""
        owners = {account.id: account.user for account in await self.desired.accounts()}
        self._take_up(await self.set_terms.all())
        for first in range(0, len(owners), ACCOUNTS_AT_ONCE):
            some = dict(list(owners.items())[first : first + ACCOUNTS_AT_ONCE])
            more = True
            while more:
                more = await self._round(some)

    def _take_up(self, found: dict[AccountId | None, SetTerms]) -> None:
        """From the next event on these terms hold; what cannot be used (another release took it) is left out, told."""
        if found == self._set:
            return
        self._set = found
        deck = found[None].terms if None in found else {}
        try:
            self._terms = {None: settled(deck)}
        except BadInput as error:
            log.error("the terms of surveillance of the deck cannot be used: %s", error)
            deck, self._terms = {}, {None: Terms()}
        for account, each in found.items():
            try:
                if account is not None:
                    self._terms[account] = settled(deck, each.terms)
            except BadInput as error:
                log.error("the terms of surveillance of account %s cannot be used: %s", account, error)

    async def _round(self, owners: Mapping[AccountId, UserId]) -> bool:
        """One batch of these accounts; whether there may be more."""
        if self._places is None:
            self._places = await self.store.load()
        before = self._places
        # From when on accounts are watched at all: the first orders of a new one count, however late it is first seen.
        since = min((place.since for place in before.values()), default=now())
        fresh = Place(account=AccountId(""), number=0, since=since, state=Account())
        places = {
            account: before.get(account) or msgspec.structs.replace(fresh, account=account, state=Account())
            for account in owners
        }
        events = await self.store.new_events(places, AT_ONCE, OF_ONE)
        new = [account for account in owners if account not in before]
        if not events and not new:
            return False
        await self._learn_instruments(events)
        equities = await self._equities()
        after, alarms = await self._judge(places, events, equities)
        after |= {account: places[account] for account in new if account not in after}
        alerts = alerts_of(alarms, owners)
        try:
            await self.store.save(self.name, self.epoch, before, list(after.values()), alerts)
        except NotReady:
            # It may have been written all the same: where it stands now is read again.
            self._places = None
            raise
        before.update(after)
        self._events += len(events)
        self._alerts += len(alarms)
        for alert in alerts:
            log.info("%s in account %s, %d times: %s", alert.kind, alert.account, alert.times, alert.text)
        return len(events) == AT_ONCE or any(count >= OF_ONE for count in Counter(e.account for e in events).values())

    async def _judge(
        self,
        places: Mapping[AccountId, Place],
        events: Sequence[Watched],
        equities: Mapping[AccountId, tuple[Any, str]],
    ) -> tuple[dict[AccountId, Place], list[Alarm]]:
        """What is known after these events, and what is to be told of them."""
        after: dict[AccountId, Place] = {}
        alarms: list[Alarm] = []
        for n, event in enumerate(events):
            if n % _IN_A_ROW == _IN_A_ROW - 1:
                await asyncio.sleep(0)
            place = after.get(event.account)
            if place is None:
                place = places[event.account]
                # A copy: what could not be written must not have been learnt.
                place = msgspec.structs.replace(
                    place, state=msgspec.json.decode(msgspec.json.encode(place.state), type=Account)
                )
            try:
                found = observe(place.state, event, self._means(event, equities), self._terms_of(event.account))
            except Exception:
                # One that makes no sense must not keep all others from being watched: it is told, and passed over.
                log.exception("event %d of account %s cannot be judged", event.number, event.account)
                found = [
                    Alarm(
                        kind="surveillance",
                        severity="warning",
                        account=event.account,
                        algo=event.algo,
                        subject=str(event.number),
                        text=f"order {event.client_order_id} could not be judged: see the log of surveillance",
                        at=event.at,
                        persons=(event.person,) if event.person else (),
                    )
                ]
            if event.at >= place.since:
                alarms += found
            after[event.account] = msgspec.structs.replace(place, number=event.number)
        return after, alarms

    def _terms_of(self, account: AccountId) -> Terms:
        return self._terms.get(account) or self._terms[None]

    def _means(self, event: Watched, equities: Mapping[AccountId, tuple[Any, str]]) -> Means:
        instrument = self._known.get(event.instrument)
        equity, currency = equities.get(event.account, (None, ""))
        if instrument is None:
            return Means(equity_currency=currency)
        return Means(
            multiplier=instrument.multiplier, currency=instrument.currency, equity=equity, equity_currency=currency
        )

    async def _learn_instruments(self, events: Sequence[Watched]) -> None:
        missing = sorted({event.instrument for event in events} - self._known.keys())
        if missing:
            self._known.update({each.id: each for each in await self.instruments.get(missing)})

    async def _equities(self) -> dict[AccountId, tuple[Any, str]]:
        """Equity and currency of accounts, as their sessions told; without Redis none, and sizes are judged alone."""
        try:
            views = await self.hot.scan("portfolio:", Portfolio)
        except (NotReady, NeedsOperator):
            return {}
        return {
            account.account: (equity_of(view, account.account), account.currency)
            for view in views.values()
            for account in view.accounts
        }

    async def _sample(self) -> None:
        samples = await self.sampler.samples(now())
        await self.equity.save(self.name, self.epoch, samples)
        self.sampler.saved(samples)

    async def _fade(self) -> None:
        await self.equity.fade(now())

    def facts(self) -> dict[str, Any]:
        places = self._places
        return {"accounts": len(places or ()), "events": self._events, "alerts": self._alerts}


def alerts_of(alarms: Iterable[Alarm], owners: Mapping[AccountId, UserId]) -> list[NewAlert]:
    """Alarms about the same thing as one alert: how often, the gravest severity, the last text."""
    found: dict[tuple[str, AccountId, str | None, str], NewAlert] = {}
    for alarm in alarms:
        key = (alarm.kind, alarm.account, alarm.algo, alarm.subject)
        before = found.get(key)
        found[key] = NewAlert(
            kind=alarm.kind,
            severity=alarm.severity if before is None or before.severity != "critical" else "critical",
            user=owners[alarm.account],
            account=alarm.account,
            algo=alarm.algo,
            subject=alarm.subject,
            text=alarm.text,
            at=alarm.at if before is None else before.at,
            times=1 if before is None else before.times + 1,
            last_at=alarm.at,
            persons=tuple(sorted({*alarm.persons, *(() if before is None else before.persons)})),
        )
    return list(found.values())
