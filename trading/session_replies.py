"""A session's answers: one for each command, when all its results are in and in the journal."""

from __future__ import annotations

from copy import copy
from functools import partial

from trading.account_book import AccountBook
from trading.errors import Conflict, Refused, TradeError, UnknownThing
from trading.ids import AccountId, ClientOrderId, Nanos
from trading.instructions import Reply
from trading.orders import Order
from trading.session_intake import Intake


class Answers:
    """Collects the results of one command until all are there."""

    __slots__ = ("gate", "left", "results", "token")

    def __init__(self, token: int, count: int) -> None:
        self.token = token
        self.results: list[Order | TradeError | None] = [None] * count
        self.left = count
        self.gate = 0


class Replies(Intake):
    """Gathers results and answers."""

    def _book(self, account: AccountId) -> AccountBook:
        book = self.accounts.get(account)
        if book is None:
            raise UnknownThing("account", account, f"user {self.user} has {', '.join(sorted(self.accounts)) or 'none'}")
        return book

    def _resolve(self, slots: list[tuple[Answers, int]], result: Order | TradeError, *, ungated: bool = False) -> None:
        """Fill in results; the reply leaves when all are in and what they speak of has been committed."""
        for answer, index in slots:
            answer.results[index] = result
            answer.left -= 1
            if isinstance(result, Order) and not ungated:
                answer.gate = max(answer.gate, self._gate_of(result))
            if answer.left == 0:
                self._gate(partial(self._reply, answer), answer.gate)

    def _reply(self, answer: Answers, _now: Nanos) -> None:
        self._out.append(Reply(answer.token, tuple(self._as_result(r) for r in answer.results if r is not None)))

    def _as_result(self, result: Order | TradeError) -> Order | TradeError:
        if not isinstance(result, Order):
            return result
        older = self._reused.get(result.key)
        if older is None or older is result:
            return copy(result)
        same = (older.instrument, older.side, older.type, older.quantity, older.limit_price, older.stop_price)
        if same == (
            result.instrument,
            result.side,
            result.type,
            result.quantity,
            result.limit_price,
            result.stop_price,
        ):
            return older
        return reused(result.client_order_id, f"is a {older.side} of {older.quantity} {older.instrument}")


def reused(key: ClientOrderId, what: str) -> Refused:
    return Conflict("client_order_id_reused", f"client_order_id {key!r} {what}; use a new one for a new intent")
