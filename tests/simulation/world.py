"""The simulated world of the proof suite: sessions, connections, central risk, journal, network and Alpaca's venue.

The cores that trade are the real ones, and so are Alpaca's codec and the simulator's core; time, scheduling, the
network and death are simulated and come from one seed.  `World.play` is one run; `World.violations` judges it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import msgspec

from connectors.alpaca.symbols import instrument_from
from connectors.alpaca.venue import AlpacaVenue, Habit
from connectors.alpaca.wire import AssetRow, Request, Response
from tests.simulation.connection import MS, SECOND, SimConnection
from tests.simulation.scheduler import Act, Process, Scheduler
from tests.simulation.session import SimSession
from tests.support.three_books import Act as Deed
from tests.support.three_books import Told
from tests.trading.fake_journal import FakeJournal
from trading.broker import Capabilities, OrderTicket
from trading.budgets import BudgetGrant, BudgetReport, RiskBook
from trading.errors import Fenced
from trading.ids import AccountId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instruments import Instrument
from trading.journal import JournalBatch
from trading.limits import CLUSTER, POSITION, Limit, LimitTree
from trading.orders import OrderType, PlaceOrder, TimeInForce

D = Decimal
START = Nanos(1_741_622_400 * SECOND)
SYMBOLS = ("AAA", "BBB")
#: Most that may be held of an instrument in all accounts, open orders included.
POSITION_LIMIT = D(24)


def _asset(symbol: str, number: int) -> AssetRow:
    return AssetRow(
        id=f"00000000-0000-4000-8000-{number:012d}",
        symbol=symbol,
        asset_class="us_equity",
        exchange="NASDAQ",
        status="active",
        tradable=True,
        shortable=True,
        marginable=True,
        easy_to_borrow=True,
    )


ASSETS = tuple(_asset(symbol, number) for number, symbol in enumerate(SYMBOLS, 1))


ALL_CAN = Capabilities(
    order_types=frozenset(OrderType),
    times_in_force=frozenset(TimeInForce),
    native_modify=True,
    deduplicates=True,
    late_arrival_s=4.0,
    trade_date_cash=True,
)


class Plan(msgspec.Struct):
    """What the network and the broker do to one request."""

    delay: int
    lost: bool = False
    answer_lost: bool = False
    #: It arrives a second time, so much later.
    again: int = 0
    habit: Habit = Habit()


class SimDesk(Process):
    """One copy of central risk."""

    def __init__(self, world: World) -> None:
        self.epoch = world.journal.lease("risk/main")
        super().__init__(f"risk#{self.epoch}")
        self.book = RiskBook(world.limits, self.epoch)
        for (session, epoch, resource), amount in world.loans.items():
            self.book.restore(session, epoch, resource, amount)


class World(Scheduler):
    """Two users with an account each."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, START)
        self.seed = seed
        self.faulty = True
        self.journal = FakeJournal()
        self.journal_away = False
        #: key -> when its row was committed.
        self.committed: dict[tuple[AccountId, ClientOrderId], int] = {}
        self.instruments: tuple[Instrument, ...] = tuple(i for a in ASSETS if (i := instrument_from(a)) is not None)
        self.prices: dict[InstrumentId, Decimal] = {i.id: D(100) for i in self.instruments}
        self.limits = LimitTree([Limit(scope=CLUSTER, kind=POSITION, instrument="", value=POSITION_LIMIT)], 1)
        #: At some brokers an order cannot be changed: it is taken back and placed anew.
        self.capabilities = msgspec.structs.replace(ALL_CAN, native_modify=seed % 8 != 6)
        self.loans: dict[tuple[str, Epoch, str], Decimal] = {}
        self.told: list[Told] = []
        self.asked: list[PlaceOrder] = []
        self.acts: list[Deed] = []
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.crash_chance = 0.0
        self._deaths: dict[Process, list[tuple[Process, Act]]] = {}
        users = [UserId("u0"), UserId("u1")]
        self.accounts_of = {user: [AccountId(f"acc-{user}")] for user in users}
        self.user_of = {account: user for user, accounts in self.accounts_of.items() for account in accounts}
        self.venues = {
            account: AlpacaVenue(f"PA{n}", assets=ASSETS, cash=D(10_000_000), lenient=True)
            for n, account in enumerate(self.user_of)
        }
        self.sockets: dict[AccountId, dict[SimConnection, int]] = {account: {} for account in self.user_of}
        self.connections: dict[AccountId, SimConnection] = {}
        self.sessions: dict[UserId, SimSession] = {}
        for symbol in SYMBOLS:
            self.quote(symbol, D(100))
        self.desk = SimDesk(self)
        for account in self.user_of:
            self.connections[account] = SimConnection(self, account)
        for user in users:
            self.start_session(user)

    # Chance

    def chance(self, probability: float) -> bool:
        """Whether something happens that does not happen in a healed world."""
        return self.faulty and self.random.random() < probability

    def latency(self) -> int:
        """How long a message takes."""
        if self.chance(0.03):
            return self.random.randint(50, 600) * MS
        return int((0.3 + self.random.random() * 3) * MS)

    def dies_here(self) -> bool:
        """Whether the process that carries out an instruction dies before it."""
        return self.crash_chance > 0 and self.chance(self.crash_chance)

    def count(self, fault: str) -> None:
        """One more fault of a kind."""
        self.counts[fault] += 1

    def plan_of(self, request: Request) -> Plan:
        """What becomes of a request."""
        plan = Plan(delay=self.latency())
        if not self.faulty:
            return plan
        roll = self.random.random()
        acts = request.method != "GET"
        if roll < 0.04:
            plan.lost = True
        elif roll < 0.08:
            plan.answer_lost = True
        elif roll < 0.12:
            self.count("request delayed")
            plan.delay = self.random.randint(500, 3_000) * MS
        elif roll < 0.15:
            self.count("status with or without effect")
            status = self.random.choice((429, 500, 502, 504))
            effect = status != 429 and self.random.random() < 0.5
            plan.habit = Habit(status=status, effect=effect)
        elif roll < 0.17:
            self.count("body cut or garbled")
            plan.habit = Habit(cut=self.random.randint(0, 60)) if self.random.random() < 0.5 else Habit(body=b"\x00{")
        elif roll < 0.20 and acts:
            self.count("only REST shows it")
            plan.habit = Habit(silent=True)
        elif roll < 0.22 and acts:
            self.count("accepted then rejected")
            plan.habit = Habit(rejects=True)
        elif roll < 0.24 and acts:
            plan.again = self.random.randint(1, 800) * MS
        return plan

    # The broker

    def at_broker(self, account: AccountId, request: Request, habit: Habit | None = None) -> Response:
        """A request reaches Alpaca."""
        response = self.venues[account].handle(request, self.now, habit or Habit())
        if request.method != "GET":
            self.note(f"{account} {request.method} {request.path[-12:]} {request.body[:90]!r} -> {response.status}")
        self.pump(account)
        return response

    def pump(self, account: AccountId) -> None:
        """What the venue wants to push goes to every open stream."""
        frames = self.venues[account].take_frames()
        sockets = self.sockets[account]
        for raw in frames:
            for connection, last in list(sockets.items()):
                if self.chance(0.02):
                    self.count("frame cut")
                    shown = raw[: self.random.randint(0, len(raw) - 1)]
                else:
                    shown = raw
                at = max(last + 1, self.now + self.latency())
                if self.chance(0.05):
                    self.count("frame overtaken")
                    at = self.now + self.latency()
                sockets[connection] = max(last, at)
                number = connection.socket_number
                self._deliver(connection, number, shown, at - self.now)
                if self.chance(0.05):
                    self.count("frame doubled")
                    self._deliver(connection, number, shown, at - self.now + self.latency())

    def _deliver(self, connection: SimConnection, number: int, raw: bytes, delay: int) -> None:
        def come() -> None:
            if connection.socket_number == number and connection in self.sockets[connection.account]:
                connection.frame(raw)

        self.after(delay, "frame", come, connection)

    def quote(self, symbol: str, price: Decimal) -> None:
        """The market of a symbol is now around a price, for everybody."""
        silent = self.chance(0.03)
        for account, venue in self.venues.items():
            size = D(self.random.randint(1, 6))
            venue.on_quote(symbol, price - D("0.05"), size, price + D("0.05"), size, self.now, silent=silent)
            self.pump(account)

    def trade(self, symbol: str, price: Decimal) -> None:
        """Somebody else trades."""
        for account, venue in self.venues.items():
            venue.on_trade(
                symbol, price, D(self.random.randint(1, 6)), self.now, buyer_maker=self.random.random() < 0.5
            )
            self.pump(account)

    def tick(self) -> None:
        """Requests that the venue takes its time with get done."""
        for account, venue in self.venues.items():
            venue.tick(self.now)
            self.pump(account)

    # Life and death

    def start_session(self, user: UserId) -> None:
        """A session begins, whatever became of the one before."""
        self.sessions[user] = SimSession(self, user)
        self.note(f"{self.sessions[user].name} begins")
        self.sessions[user].begin()

    def crash(self, process: Process) -> None:
        """The process is gone; somebody starts another one soon, if it was the one that counts."""
        if not process.alive:
            return
        self.kill(process)
        self.count(f"{process.name.split('/')[0].split('#')[0]} died")
        for waiting, act in self._deaths.pop(process, []):
            self.after(self.latency(), "its death is seen", act, waiting)
        if isinstance(process, SimSession):
            process.unanswered()
        if isinstance(process, SimConnection):
            self.sockets[process.account].pop(process, None)
        self.after(self.random.randint(50, 1_200) * MS, "restart", lambda: self.replace(process))

    def replace(self, process: Process) -> None:
        """Start a successor of a process, dead or not, unless there is one."""
        if isinstance(process, SimSession) and self.sessions[process.user] is process:
            self.start_session(process.user)
        elif isinstance(process, SimConnection) and self.connections[process.account] is process:
            self.connections[process.account] = SimConnection(self, process.account)
        elif isinstance(process, SimDesk) and self.desk is process:
            self.desk = SimDesk(self)

    def on_death(self, process: Process, waiting: Process, act: Act) -> None:
        """Let ``waiting`` see the death of ``process``."""
        watchers = self._deaths.setdefault(process, [])
        watchers.append((waiting, act))
        if len(watchers) > 200:
            del watchers[:100]

    # Central risk

    def desk_call(self, session: SimSession, report: BudgetReport) -> None:
        """A session reports to central risk."""
        done = False

        def finish(act: Callable[[], None]) -> None:
            nonlocal done
            if not done:
                done = True
                act()

        def failed() -> None:
            finish(lambda: session.do(session.core.budget_failed(self.now)))

        desk = self.desk

        def serve() -> None:
            try:
                grant, raised = desk.book.report(report)
            except Fenced:
                self.after(self.latency(), "fenced", lambda: self.crash(session), session)
                return
            if raised:
                self.after(self.latency(), "loans", lambda: save(grant))
            else:
                answer(grant)

        def save(grant: BudgetGrant) -> None:
            # The table is fenced: an old desk's loans are refused, and it ends.
            if self.journal.epoch_of("risk/main") != desk.epoch:
                self.count("stale loan refused")
                self.crash(desk)
                return
            self.loans = {
                (name, desk.book.epoch_of(name), resource): amount
                for name, mine in desk.book.lent.items()
                for resource, amount in mine.items()
            }
            answer(grant)

        def answer(grant: BudgetGrant) -> None:
            if self.chance(0.03):
                self.count("grant lost")
                return
            self.after(self.latency(), "granted", granted(grant), session)

        def granted(grant: BudgetGrant) -> Act:
            return lambda: finish(lambda: session.do(session.core.granted(grant, self.now)))

        if desk.alive:
            self.after(self.latency(), "budget", serve, desk)
        self.after(1_500 * MS, "budget fails", failed, session)

    # What is watched

    def append(self, session: SimSession, number: int, batch: JournalBatch) -> None:
        """One transaction of the journal."""
        self.journal.append(session.owner, session.epoch, number, batch)
        for order in batch.orders:
            self.committed.setdefault(order.key, self.now)
        self.acts.append(Deed(where="journal", owner=session.owner, epoch=session.epoch, at=len(self.acts)))

    def check_sent(self, ticket: OrderTicket) -> None:
        """No byte leaves for an order whose row is not committed."""
        if self.journal.order_of_tag(ticket.tag) is None:
            self.wrong.append(f"{ticket.tag} was sent before its row was committed")

    def acted(self, connection: SimConnection, epoch: Epoch, what: str) -> None:
        """A connection writes to the broker's wire for a session."""
        user = self.user_of[connection.account]
        where = f"wire of {connection.account}"
        self.acts.append(Deed(where=where, owner=f"session/{user}", epoch=epoch, at=len(self.acts), what=what))

    def ask(self, intent: PlaceOrder) -> None:
        """A caller hands an intent over."""
        self.asked.append(intent)
