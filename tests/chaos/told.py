"""What callers were told: every intent's answers, for the judge, and what the suite may do with an order next."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from tests.support.three_books import Outcome, Told
from trading.errors import NotReady, Refused, TradeError
from trading.orders import PlaceOrder


@dataclass(slots=True)
class Record:
    """The callers' side of a run, chapter by chapter."""

    told: list[Told] = field(default_factory=list)
    intents: dict[tuple[str, str], PlaceOrder] = field(default_factory=dict)
    #: account -> keys that may still be open.
    maybe_open: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: Of earlier chapters.
    earlier_told: list[Told] = field(default_factory=list)
    earlier_intents: dict[tuple[str, str], PlaceOrder] = field(default_factory=dict)
    _known: set[tuple[str, str]] = field(default_factory=set)

    def turn_page(self) -> None:
        """Put away what has been judged; it is looked at again at the very end."""
        self.earlier_told += self.told
        self.earlier_intents |= self.intents
        self.told, self.intents, self.maybe_open, self._known = [], {}, {}, set()

    def asked(self, intent: PlaceOrder) -> None:
        """An intent is about to be sent."""
        key = (intent.account, intent.client_order_id)
        if key not in self.intents:
            self.intents[key] = intent
            self.maybe_open.setdefault(intent.account, []).append(intent.client_order_id)
            self.counts[f"{intent.type} orders"] += 1

    def acknowledged(self, intent: PlaceOrder, state: str) -> None:
        """An order came back."""
        self._known.add((intent.account, intent.client_order_id))
        self.told.append(
            Told(
                account=intent.account,
                client_order_id=intent.client_order_id,
                outcome=Outcome.ACKNOWLEDGED,
                instrument=intent.instrument,
                sign=intent.side.sign,
                state=state,
            )
        )
        self.counts["denied" if state == "denied" else "acknowledged"] += 1

    def failed(self, intent: PlaceOrder, error: TradeError) -> Outcome:
        """An error came back."""
        # These say that nothing was done; everything else leaves it open.
        outcome = Outcome.REFUSED if isinstance(error, NotReady | Refused) else Outcome.UNKNOWN
        self.told.append(Told(account=intent.account, client_order_id=intent.client_order_id, outcome=outcome))
        self.counts[f"{outcome} ({type(error).__name__})"] += 1
        return outcome

    def left(self, intent: PlaceOrder) -> None:
        """Its caller did not wait for the answer."""
        self.told.append(Told(account=intent.account, client_order_id=intent.client_order_id, outcome=Outcome.UNKNOWN))

    def is_acknowledged(self, intent: PlaceOrder) -> bool:
        """Whether an order of this key is known to be there."""
        return (intent.account, intent.client_order_id) in self._known

    def pick(self, account: str, chance: random.Random) -> PlaceOrder | None:
        """An order that may be open: mostly a young one."""
        keys = self.maybe_open.get(account)
        if not keys:
            return None
        young = keys[-20:]
        return self.intents[(account, chance.choice(young if chance.random() < 0.9 else keys))]

    def any(self, account: str, chance: random.Random) -> PlaceOrder | None:
        """Any order of the last some hundred."""
        keys = self.maybe_open.get(account)
        return self.intents[(account, chance.choice(keys[-300:]))] if keys else None
