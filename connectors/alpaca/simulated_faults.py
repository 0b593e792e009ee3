"""Misbehaviour that the simulator's controls ask for: of requests, and of the order stream's frames.

Rules are used up in the order in which they came.  What is left to chance comes from a seed that the control gives.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from connectors.alpaca.venue import Habit
from connectors.alpaca.wire import Request
from trading.errors import BadInput


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to do to the next ``times`` requests of a method and path."""

    #: "" is any.
    method: str = ""
    #: The path begins with it.
    path: str = "/v2/orders"
    times: int = 1
    #: Requests that are let through before the rule begins.
    skip: int = 0
    status: int | None = None
    effect: bool = True
    body: str | None = None
    cut: int | None = None
    silent: bool = False
    rejects: bool = False
    #: Carried out (where it has effect), and never answered.
    no_answer: bool = False
    #: The connection is cut where the answer would come.
    reset: bool = False
    #: Seconds before the answer goes out; it has been carried out by then.
    delay_s: float = 0.0

    @property
    def habit(self) -> Habit:
        """The part of it that is the venue's."""
        return Habit(
            status=self.status,
            effect=self.effect,
            body=None if self.body is None else self.body.encode(),
            cut=self.cut,
            silent=self.silent,
            rejects=self.rejects,
        )


class Rules:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        #: How many requests have been misbehaved to.
        self.used = 0

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, wish: dict[str, Any]) -> Rule:
        """Add a rule.  Raises `BadInput`."""
        try:
            rule = msgspec.convert(wish, Rule)
        except msgspec.ValidationError as error:
            known = ", ".join(field.name for field in msgspec.structs.fields(Rule))
            raise BadInput("misbehave", f"{error}; a rule has {known}") from error
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Behave again."""
        self._rules.clear()

    def match(self, request: Request) -> Rule | None:
        """The rule for a request; each counts down."""
        for rule in self._rules:
            if rule.method not in ("", request.method) or not request.path.startswith(rule.path):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            rule.times -= 1
            if rule.times <= 0:
                self._rules.remove(rule)
            self.used += 1
            return rule
        return None


class FrameFaults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to frames of the order stream; shares are probabilities."""

    drop: float = 0.0
    duplicate: float = 0.0
    #: Share that is held back and sent after later ones.
    reorder: float = 0.0
    #: Up to so many seconds, drawn for each frame; 0 sends at once.  Frames keep their order unless reordered.
    delay_s: float = 0.0
    #: Share sent cut in half.
    truncate: float = 0.0
    seed: int = 1


class FrameFaulter:
    """Sends frames through `FrameFaults`."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._random = random.Random(1)
        self._ready_at = 0.0
        self.faults = FrameFaults()
        self.counts: dict[str, int] = {}

    def set(self, wish: dict[str, Any]) -> FrameFaults:
        """Change the faults.  Raises `BadInput`."""
        try:
            self.faults = msgspec.convert(wish, FrameFaults)
        except msgspec.ValidationError as error:
            known = ", ".join(field.name for field in msgspec.structs.fields(FrameFaults))
            raise BadInput("frames", f"{error}; use {known}") from error
        self._random = random.Random(self.faults.seed)
        return self.faults

    def pass_on(self, frame: bytes, send: Callable[[bytes], None], now: float) -> None:
        """Send a frame, or what the faults make of it; ``now`` is the loop's time."""
        faults, chance = self.faults, self._random.random
        if faults.drop and chance() < faults.drop:
            self._count("dropped")
            return
        copies = 1
        if faults.duplicate and chance() < faults.duplicate:
            self._count("duplicated")
            copies = 2
        if faults.truncate and chance() < faults.truncate:
            self._count("truncated")
            frame = frame[: len(frame) // 2]
        late = faults.delay_s * chance() if faults.delay_s else 0.0
        if faults.reorder and chance() < faults.reorder:
            self._count("reordered")
            late += max(faults.delay_s, 0.05)
        elif late:
            # Not before the frames ahead of it.
            self._ready_at = max(self._ready_at, now + late)
            late = self._ready_at - now
        elif self._ready_at > now:
            late = self._ready_at - now
        for _ in range(copies):
            if late > 0:
                self._later(late, lambda: send(frame))
            else:
                send(frame)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
