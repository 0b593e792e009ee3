"""A simulated session: the session's core, carried out as the real shell does, one instruction at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.connection import MS, SECOND
from tests.simulation.scheduler import Process
from tests.support.three_books import Outcome, Told
from tests.trading.fake_journal import FencedOff, KeysExist, frozen
from trading.broker import Answer, Verdict
from trading.connection import UpdatePage
from trading.errors import TradeError
from trading.ids import AccountId, Epoch, UserId
from trading.instructions import Append, AskBudget, AskReport, Checked, Instruction, Reply, Send, Settled, Tell, Wake
from trading.journal import JournalBatch
from trading.orders import Order, PlaceOrder
from trading.session import SessionCore

if TYPE_CHECKING:
    from tests.simulation.world import World

SEND_TIMEOUT_NS = 10 * SECOND
#: An order may show in the broker's lists so long after its request was given up: what a request may be held up
#: on the wire, and what lists lag.
LATE_NS = 4 * SECOND


class SimSession(Process):
    """One copy of a user's session."""

    def __init__(self, world: World, user: UserId) -> None:
        self.world = world
        self.user = user
        self.owner = f"session/{user}"
        self.epoch = world.journal.lease(self.owner)
        super().__init__(f"{self.owner}#{self.epoch}")
        self.core = SessionCore(user, self.epoch)
        self.core.instruments.update({i.id: i for i in world.instruments})
        self._asked: dict[int, Sequence[PlaceOrder]] = {}
        self._token = 0
        self._read: dict[AccountId, tuple[Epoch, int, bool]] = {}

    def begin(self) -> None:
        """Load the journal; what follows happens as it does."""
        world = self.world
        for account in world.accounts_of[self.user]:
            history = world.journal.load(account, world.now)
            self.do(self.core.add_account(history, LATE_NS, world.now, world.capabilities))
            self._read[account] = (Epoch(0), 0, False)
            self._poll(account)
        self.do(self.core.set_marks(dict(world.prices), world.now))
        self._clock()
        world.after(2 * SECOND, "renew", self._renew, self)

    def _renew(self) -> None:
        if not self.world.journal_away and self.world.journal.epoch_of(self.owner) != self.epoch:
            self.world.crash(self)
            return
        self.world.after(2 * SECOND, "renew", self._renew, self)

    def _clock(self) -> None:
        self.do(self.core.clock(self.world.now))
        self.world.after(200 * MS, "clock", self._clock, self)

    # Commands

    def next_token(self) -> int:
        """A number for one more command."""
        self._token += 1
        return self._token

    def command(self, act: Callable[[int], Sequence[Instruction]], intents: Sequence[PlaceOrder] = ()) -> None:
        """Somebody asks for something; what they are told of intents is kept."""
        self._asked[self.next_token()] = intents
        for intent in intents:
            self.world.ask(intent)
        self.do(act(self._token))

    def unanswered(self) -> None:
        """It is gone: whoever still waits for an answer gets none."""
        for intents in self._asked.values():
            for intent in intents:
                self.world.told.append(
                    Told(account=intent.account, client_order_id=intent.client_order_id, outcome=Outcome.UNKNOWN)
                )
        self._asked.clear()

    def _reply(self, reply: Reply) -> None:
        for intent, result in zip(self._asked.pop(reply.token), reply.results, strict=False):
            self.world.told.append(_told(intent, result))

    # Carrying out

    def do(self, instructions: Sequence[Instruction]) -> None:
        """Carry out instructions; any of them may be the last."""
        world = self.world
        for instruction in instructions:
            if not self.alive:
                return
            if world.dies_here():
                world.note(f"{self.name} before {type(instruction).__name__}")
                world.crash(self)
                return
            match instruction:
                case Append(number, batch):
                    self._append(number, frozen(batch))
                case Wake(at):
                    world.count("acknowledgement waited")
                    world.after(max(0, at - world.now), "wake", lambda: self.do(self.core.wake(world.now)), self)
                case Send():
                    self._send(instruction)
                case AskReport():
                    self._report(instruction)
                case AskBudget():
                    world.desk_call(self, instruction.report)
                case Reply():
                    self._reply(instruction)
                case Settled() | Checked():
                    world.count(type(instruction).__name__.lower())
                case Tell(notes):
                    for told in notes:
                        if told.event not in world.journal.events[-400:] and told.event not in world.journal.events:
                            world.wrong.append(f"{self.name} told {told.event} before it was durable")

    def _append(self, number: int, batch: JournalBatch) -> None:
        world = self.world

        def write() -> None:
            if world.journal_away:
                world.after(world.latency(), "journal is away", away, self)
                return
            try:
                world.append(self, number, batch)
            except KeysExist as exist:
                known = exist.known
                world.after(
                    world.latency(),
                    "refused",
                    lambda: self.do(self.core.append_refused(number, known, world.now)),
                    self,
                )
            except FencedOff:
                world.count("stale append refused")
                world.after(world.latency(), "fenced", lambda: world.crash(self), self)
            else:
                if world.chance(0.03):
                    world.count("commit answer lost")
                    world.after(world.latency(), "journal is away", away, self)
                else:
                    world.after(world.latency(), "appended", done, self)

        def away() -> None:
            self.core.journal_is_away = True
            world.after(300 * MS, "append again", again, self)

        def again() -> None:
            world.after(world.latency(), "append", write)

        def done() -> None:
            self.core.journal_is_away = False
            self.do(self.core.appended(number, world.now))

        world.after(world.latency(), "append", write)

    def _send(self, send: Send) -> None:
        world = self.world
        done = False

        def finish(answers: Sequence[Answer], lost: bool = False) -> None:
            nonlocal done
            if not done:
                done = True
                self.do(self.core.answered(send.account, send.lane, send.number, answers, world.now, lost=lost))

        def unknown() -> None:
            finish([Answer(tag=t.tag, verdict=Verdict.UNKNOWN, reason="no answer") for t in send.tickets], lost=True)

        connection = world.connections[send.account]
        if not connection.alive:
            world.after(world.latency(), "nobody there", unknown, self)
            return
        world.note(f"{self.name} sends {send.lane} {[t.tag[:5] for t in send.tickets]} to {connection.name}")

        def reply(answers: Sequence[Answer]) -> None:
            world.after(world.latency(), "answers", lambda: finish(answers), self)

        def serve() -> None:
            connection.send(self.epoch, send, reply, lambda: self._fenced())

        world.after(world.latency(), "send", serve, connection)
        world.after(SEND_TIMEOUT_NS, "no answer", unknown, self)
        world.on_death(connection, self, unknown)

    def _fenced(self) -> None:
        self.world.count("stale session refused")
        self.world.after(self.world.latency(), "fenced", lambda: self.world.crash(self), self)

    def _report(self, ask: AskReport) -> None:
        world = self.world
        done = False

        def finish(report: object) -> None:
            nonlocal done
            if not done:
                done = True
                self.do(self.core.reported(ask.account, report, world.now))  # type: ignore[arg-type]

        connection = world.connections[ask.account]

        def serve() -> None:
            connection.report(
                self.epoch,
                ask.since,
                lambda report: world.after(world.latency(), "reported", lambda: finish(report), self),
                lambda: self._fenced(),
            )

        if connection.alive:
            world.after(world.latency(), "report", serve, connection)
            world.on_death(connection, self, lambda: finish(None))
            world.after(30 * SECOND, "no report", lambda: finish(None), self)
        else:
            world.after(world.latency(), "no report", lambda: finish(None), self)

    # Reading the connection

    def _poll(self, account: AccountId) -> None:
        world = self.world
        connection = world.connections[account]
        epoch, cursor, _ = self._read[account]
        done = False

        def lost() -> None:
            nonlocal done
            if done:
                return
            done = True
            epoch, cursor, up = self._read[account]
            if up:
                self._read[account] = (epoch, cursor, False)
                self.do(self.core.connection(account, False, world.now))
            world.after(250 * MS, "poll again", lambda: self._poll(account), self)

        def got(page: UpdatePage) -> None:
            nonlocal done
            if not done:
                done = True
                self._take(account, page)

        def reply(page: UpdatePage) -> None:
            world.after(world.latency(), "page", lambda: got(page), self)

        if not connection.alive:
            world.after(world.latency(), "nobody there", lost, self)
            return
        world.after(
            world.latency(),
            "updates",
            lambda: connection.updates(self.epoch, epoch, cursor, reply, lambda: self._fenced()),
            connection,
        )
        world.after(15 * SECOND, "no page", lost, self)
        world.on_death(connection, self, lost)

    def _take(self, account: AccountId, page: UpdatePage) -> None:
        world = self.world
        up = self._read[account][2]
        if page.gap or not page.connected:
            up = False
            self.do(self.core.connection(account, False, world.now))
        if page.updates and self.alive:
            self.do(self.core.updated(account, page.updates, world.now))
        if page.connected and not up and self.alive:
            up = True
            self.do(self.core.connection(account, True, world.now))
        self._read[account] = (page.epoch, page.cursor, up)
        if self.alive:
            wait = 0 if page.connected else 100 * MS
            world.after(wait, "poll", lambda: self._poll(account), self)


def _told(intent: PlaceOrder, result: Order | TradeError) -> Told:
    if isinstance(result, TradeError):
        return Told(account=intent.account, client_order_id=intent.client_order_id, outcome=Outcome.REFUSED)
    return Told(
        account=result.account,
        client_order_id=result.client_order_id,
        outcome=Outcome.ACKNOWLEDGED,
        instrument=result.instrument,
        sign=result.side.sign,
        quantity=result.quantity,
        tag=result.tag,
        state=str(result.state),
    )
