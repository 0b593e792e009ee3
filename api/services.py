"""Everything a request may use: the stores, the doorkeeper, the way to sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from fastapi import Depends
from starlette.requests import HTTPConnection

from api.feed_rows import FeedRows
from api.glance import Answers, Glance
from api.idempotency import Keys
from api.link import Link
from api.market import Market
from api.plain_text import all_cleaned, cleaned
from api.problems import unknown_reference
from api.security import Caller, Doorkeeper, forbidden
from api.stream import Hub
from api.traffic import Traffic
from api.views import Views
from cluster.code_version import CodeVersion
from cluster.history import History
from cluster.session_days import SessionDays
from cluster.settings import DeckSettings
from cluster.submissions import Submissions
from storage.alerts import Alerts
from storage.algo_events import AlgoEvents
from storage.algo_log import AlgoLog
from storage.algos import AlgoCommands
from storage.api_keys import ApiKeys
from storage.bars import Bars
from storage.bus import Bus
from storage.database import Database
from storage.days import Days
from storage.desired import Desired
from storage.equity import Equity
from storage.feed_quality import FeedGaps, FeedTunings
from storage.feed_seconds import FeedSeconds
from storage.grants import Grants
from storage.hot import Hot
from storage.idempotency import Idempotency
from storage.instruments import Instruments
from storage.join_tokens import JoinTokens
from storage.journal import Journal
from storage.kills import Kills
from storage.login_attempts import LoginAttempts
from storage.node_history import NodeHistory
from storage.panel_sessions import PanelSessions
from storage.passwords import Passwords
from storage.records import AccountRecord, FeedRecord
from storage.second_factors import SecondFactors
from storage.secrets import Secrets, load_key, secret_name
from storage.strategies import Strategies
from storage.surveillance_terms import SurveillanceTerms
from storage.tasks import end_tasks
from storage.wishes import Wishes
from trading.bars import Bar
from trading.errors import NeedsOperator, NotReady, TradeError, UnknownThing
from trading.ids import AccountId, FeedId, Nanos, UserId
from trading.instruments import Instrument
from trading.ticks import decode

log = logging.getLogger("quarterdeck")

T = TypeVar("T")
#: The Supervisor's view must be younger than this for the deck to count as ready.
VIEW_S = 10.0
#: Counting all orders reads the whole table, so the figure is kept for so many seconds.
ORDERS_EVERY_S = 15.0
#: The head's own code is looked at as often as machines look at theirs.
CODE_EVERY_S = 30.0
#: How often it is looked for refused logins to sum up.
SWEEP_S = 60.0
#: A task that has not failed for so long is well.
_CALM_S = 60.0


class Session(Protocol):
    """A user's session, by its methods."""

    async def call(self, method: str, *args: Any, timeout: float = 5.0) -> Any:
        """Call ``method``; raises what it raises, `NotReady` or `Unreachable`."""


class Services:
    """What routes work with.  The constructor does no IO."""

    def __init__(self, deck: DeckSettings, *, connect: bool, sessions: Callable[[UserId], Session] | None) -> None:
        self.deck = deck
        self.database = Database(deck.database_url, size=8, name="api")
        self.desired = Desired(self.database)
        self.strategies = Strategies(self.database)
        self.submissions = Submissions(deck.home, self.database)
        self.journal = Journal(self.database)
        self.alerts = Alerts(self.database)
        self.wishes = Wishes(self.database)
        self.instruments = Instruments(self.database)
        self.keys = ApiKeys(self.database)
        self.algo_log = AlgoLog(self.database)
        self.algo_commands = AlgoCommands(self.database)
        self.algo_events = AlgoEvents(self.database)
        self.days = Days(self.database)
        self.kills = Kills(self.database)
        self.equity = Equity(self.database)
        self.feed_tunings = FeedTunings(self.database)
        self.feed_rows = FeedRows()
        self.feed_gaps = FeedGaps(self.database)
        self.surveillance_terms = SurveillanceTerms(self.database)
        self.join_tokens = JoinTokens(self.database)
        self.node_history = NodeHistory(self.database)
        self.feed_seconds = FeedSeconds(self.database)
        self.history = History(Bars(self.database), self._fetch_bars, SessionDays().within)
        # A pool of its own: a stop waits for nobody to take its key.
        self.key_database = Database(deck.database_url, size=4, name="api keys")
        self.request_keys = Keys(Idempotency(self.key_database, lambda: load_key(deck.home)))
        self.hot = Hot(deck.redis_url)
        self.bus = Bus(deck.redis_url)
        self.passwords = Passwords(self.database)
        self.second_factors = SecondFactors(self.database)
        self.login_attempts = LoginAttempts(self.database)
        self.panel_sessions = PanelSessions(self.database)
        self.grants = Grants(self.database)
        self.doorkeeper = Doorkeeper(
            self.keys, self.desired, grants=self.grants, sessions=self.panel_sessions, alerts=self.alerts
        )
        self.hub = Hub(self.bus)
        self.market = Market(self.bus, self.hot)
        self.glance = Glance(self)
        self.deck_answers = Answers()
        self.views = Views()
        self.traffic = Traffic()
        self.link = Link(deck) if connect else None
        self._sessions = sessions
        self._by_user: dict[UserId, Session] = {}
        self.database_trouble = "it was not tried yet"
        self._tasks: list[asyncio.Task[None]] = []
        #: When each task failed last, and in words.
        self._failed: dict[str, tuple[float, str]] = {}
        self._secrets: Secrets | None = None
        self._counts: tuple[float, dict[str, int]] | None = None
        self._code = CodeVersion()
        self._code_seen = (float("-inf"), "")

    @property
    def secrets(self) -> Secrets:
        """The store of credentials.  Raises `NeedsOperator` where its key cannot be read."""
        if self._secrets is None:
            self._secrets = Secrets(self.database, load_key(self.deck.home))
        return self._secrets

    def session(self, user: UserId) -> Session:
        """The way to a user's session."""
        found = self._by_user.get(user)
        if found is None:
            if self._sessions is not None:
                found = self._sessions(user)
            elif self.link is not None:
                found = self.link.session(user)
            else:
                raise NotReady("this API is not connected to a cluster", 5.0)
            self._by_user[user] = found
        return found

    # Life

    async def start(self) -> None:
        """Begin to connect; what is away is tried again for ever and shown by /readyz."""
        self.run(self._open, "the way to the database")
        self.run(self._sweep_logins, "sweeping old sign-ins")
        self.run(self.request_keys.run, "keeping the keys of requests")
        self.run(self.hub.run, "reading changes")
        self.run(self.market.run, "reading market data")
        self.run(lambda: self.hub.watch(self.desired), "watching what is wanted")
        self.run(lambda: self.hub.watch_alerts(self.alerts), "watching alerts")
        if self.link is not None:
            self.run(self.link.run, "the way to the cluster")

    def run(self, work: Callable[[], Coroutine[Any, Any, None]], title: str) -> None:
        """Run a task until `stop`; one that fails for a reason that nobody thought of is begun again, and /readyz says
        so for a while."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep_on(work, title), name=title))

    async def _keep_on(self, work: Callable[[], Coroutine[Any, Any, None]], title: str) -> None:
        pause = 1.0
        while True:
            began = time.monotonic()
            try:
                return await work()
            except Exception as error:
                log.exception("%s failed; it is begun again", title)
                # Whatever it was that did not come through.
                self.hub.add([None])
                self._failed[title] = (time.monotonic(), f"{title} failed ({type(error).__name__}): the log says more")
            if time.monotonic() - began > _CALM_S:
                pause = 1.0
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def stop(self) -> None:
        """End the tasks, close the stores."""
        await end_tasks(self._tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self.doorkeeper.logins.sweep(at_the_end=True)
        await self.views.close()
        await self.glance.close()
        await self.bus.close()
        await self.hot.close()
        await self.key_database.close()
        await self.database.close()

    async def _open(self) -> None:
        from cluster import catalog

        delay = 0.2
        while True:
            try:
                await self.database.open()
                await self.key_database.open()
                for strategy in await asyncio.to_thread(catalog.builtin_strategies):
                    await self.strategies.put_builtin(strategy, by="api")
            except TradeError as error:
                if self.database_trouble != str(error):
                    log.warning("the database is not ready: %s", error)
                self.database_trouble = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 1.7, 3.0)
            else:
                self.database_trouble = ""
                log.info("the database is open")
                return

    async def _sweep_logins(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.doorkeeper.logins.sweep()
            try:
                await self.login_attempts.sweep()
                await self.panel_sessions.sweep()
            except TradeError as error:
                log.info("old sessions are swept later: %s", error)

    async def missing(self) -> list[str]:
        """What is not ready, in words; [] when all is."""
        found = []
        try:
            await self.desired.version()
            if self.database_trouble:
                found.append(f"PostgreSQL: {self.database_trouble}")
        except (NotReady, NeedsOperator) as error:
            found.append(f"PostgreSQL: {self.database_trouble or error}")
        if self.link is not None and self.link.trouble:
            found.append(f"Ray: {self.link.trouble}")
        try:
            view = await self.hot.get("cluster", dict[str, Any])
        except (NotReady, NeedsOperator) as error:
            found.append(f"Redis: {error}")
        else:
            age = (time.time_ns() - view["at"]) / 1e9 if view else None
            if age is None:
                found.append("Supervisor: it has not shown the cluster yet")
            elif age > VIEW_S:
                found.append(f"Supervisor: its last view of the cluster is {age:.0f} s old")
        now = time.monotonic()
        found += [words for at, words in self._failed.values() if now - at < _CALM_S]
        return found

    # What many routes do

    async def code(self) -> str:
        """Which code the head's processes run, some seconds old at most (`cluster.code_version`)."""
        if time.monotonic() - self._code_seen[0] > CODE_EVERY_S:
            self._code_seen = (time.monotonic(), await asyncio.to_thread(self._code.now))
        return self._code_seen[1]

    async def order_counts(self) -> dict[str, int]:
        """Orders by state, some seconds old at most."""
        if self._counts is None or time.monotonic() - self._counts[0] > ORDERS_EVERY_S:
            self._counts = (time.monotonic(), await self.journal.order_counts())
        return self._counts[1]

    async def account_of(self, caller: Caller, account: str) -> AccountRecord:
        """An account that the caller may see; `UnknownThing` otherwise."""
        return caller.own_account(await self.desired.account(AccountId(account)))

    async def accounts_of(self, caller: Caller) -> list[AccountRecord]:
        """All accounts that the caller may see."""
        return [account for account in await self.desired.accounts() if caller.sees_account(account)]

    async def traded_account_of(self, caller: Caller, account: str) -> AccountRecord:
        """An account that the caller may act in; the 403 problem for one that was granted to look at only."""
        return caller.traded_account(await self.account_of(caller, account))

    async def reached(self, caller: Caller) -> tuple[AccountId, ...] | None:
        """The accounts that lists are limited to; None: to none, not even to those that there still are."""
        return None if caller.is_operator else tuple(account.id for account in await self.accounts_of(caller))

    async def credentials_for(self, caller: Caller, settings: Mapping[str, Any]) -> dict[str, str]:
        """What a provider logs in with: the credentials of the account that its settings name, if the caller may.

        They are used and never shown.  {} where no account is named, or none has been given credentials.
        """
        account = settings.get("account")
        if not account:
            return {}
        record = await referenced("settings.account", self.account_of(caller, str(account)))
        if not caller.owns_account(record):
            raise forbidden(f"account {record.id} is {record.user}'s: its log-in is theirs to lend", "settings.account")
        if not await self.secrets.has(secret_name(record.id)):
            return {}
        return await self.secrets.log_in(record.id)

    async def _fetch_bars(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        """Bars of the provider, reached as a feed that carries the instrument reaches it.

        The feed's key is used for everybody: what a feed brings is shown to everybody too.
        """
        from cluster import catalog

        feed = _feed_for(instrument, await self.desired.feeds())
        if feed is None:
            return await catalog.history(instrument.provider, {}, {}, instrument, interval, start, end)
        account = feed.settings.get("account")
        credentials = await self.secrets.log_in(str(account)) if account else {}
        return await catalog.history(feed.provider, feed.settings, credentials, instrument, interval, start, end)

    async def look(self, key: str) -> tuple[dict[str, Any] | None, str]:
        """A hot value, or None and why: what is shown beside a record must not hide the record."""
        try:
            found = await self.hot.get(key, dict[str, Any])
        except (NotReady, NeedsOperator) as error:
            return None, str(error)
        return found, "" if found is not None else "nothing has been heard of it lately"

    async def look_all(self, prefix: str) -> tuple[dict[str, dict[str, Any]], str]:
        """As `look`, for every key that starts with ``prefix``."""
        try:
            return await self.hot.scan(prefix, dict[str, Any]), ""
        except (NotReady, NeedsOperator) as error:
            return {}, str(error)

    async def forget(self, key: str) -> None:
        """Remove a hot value; where Redis is away it goes by itself, later."""
        with contextlib.suppress(NotReady, NeedsOperator):
            await self.hot.delete(key)

    async def last_values(self, feed: FeedId) -> list[Any]:
        """Rows of the last values of a feed's instruments, of all its workers; none where they cannot be had."""
        try:
            kept = await self.hot.scan(f"last:{feed}:", bytes)
        except (NotReady, NeedsOperator):
            return []
        return [row for raw in kept.values() for row in decode(raw)]

    async def note(self, caller: Caller, action: str, subject: str, after: Any) -> None:
        """Audit an act that was done, or refused; never fails, for the answer must tell what was done.

        Without the database it is only logged: an exit must not wait for it, and an order's own events name the caller
        too.
        """
        subject = cleaned(subject)
        try:
            told = all_cleaned(msgspec.to_builtins(after))
            await self.desired.audit(caller.user, action, subject, None, told)
        except NotReady as error:
            log.warning("%s of %s by %s is not in the audit: %s", action, subject, caller.user, error)
        except Exception:
            log.exception("%s of %s by %s is not in the audit", action, subject, caller.user)


def _feed_for(instrument: Instrument, feeds: Sequence[FeedRecord]) -> FeedRecord | None:
    """A feed of the instrument's provider: one that carries it if there is one, the first by name otherwise."""
    own = sorted((feed for feed in feeds if feed.provider == instrument.provider), key=lambda feed: feed.id)
    return next((feed for feed in own if instrument.id in feed.instruments), own[0] if own else None)


async def referenced(field: str, found: Coroutine[Any, Any, T]) -> T:
    """What ``found`` gives; where that is unknown, 422 naming the field of the body that refers to it."""
    try:
        return await found
    except UnknownThing as error:
        raise unknown_reference(field, error) from error


def _services(connection: HTTPConnection) -> Services:
    services: Services = connection.app.state.services
    return services


Deck = Annotated[Services, Depends(_services)]
