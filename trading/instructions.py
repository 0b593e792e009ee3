"""What a session's core tells its shell to do.  The shell does it and brings the result back as an event."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from trading.account_check import AccountCheck
from trading.broker import AmendTicket, CancelTicket, OrderTicket
from trading.budgets import BudgetReport
from trading.errors import TradeError
from trading.ids import AccountId, Nanos
from trading.journal import Break, JournalBatch
from trading.orders import Order, OrderEvent


class Lane(StrEnum):
    """Requests to a broker travel in lanes: exits never queue behind entries."""

    PLACE = "place"
    MODIFY = "modify"
    CANCEL = "cancel"


class Append(msgspec.Struct, frozen=True):
    """Write one transaction; answer with `SessionCore.appended`.  Encode it before anything else happens."""

    number: int
    batch: JournalBatch


class Send(msgspec.Struct, frozen=True):
    """Hand tickets to the broker connection; answer with `SessionCore.answered`."""

    account: AccountId
    lane: Lane
    number: int
    tickets: tuple[OrderTicket, ...] | tuple[AmendTicket, ...] | tuple[CancelTicket, ...]
    #: Entries that have not gone to the broker by then are not sent any more, by whichever copy holds them.
    until: Nanos


class Wake(msgspec.Struct, frozen=True):
    """Call `SessionCore.wake` at this time: what waits for company is to be written by then."""

    at: Nanos


class AskReport(msgspec.Struct, frozen=True):
    """Fetch the broker's whole view; answer with `SessionCore.reported`."""

    account: AccountId
    why: str
    #: Ended orders and executions before this are of no interest.
    since: Nanos


class AskBudget(msgspec.Struct, frozen=True):
    """Report to central risk; answer with `SessionCore.granted` or `SessionCore.budget_failed`."""

    report: BudgetReport


class Reply(msgspec.Struct, frozen=True):
    """Answer a command: one order or error per intent, in order."""

    token: int
    results: tuple[Order | TradeError, ...]


class Note(msgspec.Struct, frozen=True):
    """A change of an order that is safely in the journal, with the order as it then was."""

    order: Order
    event: OrderEvent


class Tell(msgspec.Struct, frozen=True):
    """Tell algos and the panel."""

    notes: tuple[Note, ...]


class Settled(msgspec.Struct, frozen=True):
    """Answer to `SessionCore.settle_break`: the break as it is in the journal now."""

    token: int
    result: Break | TradeError


class Checked(msgspec.Struct, frozen=True):
    """Answer to `SessionCore.reconcile`."""

    token: int
    result: AccountCheck | TradeError


Instruction = Append | Wake | Send | AskReport | AskBudget | Reply | Tell | Settled | Checked
