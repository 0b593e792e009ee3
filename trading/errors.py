"""The errors of Quarterdeck, each named by its remedy.

Every error carries a stable ``code`` (for programs) and a ``detail`` (for people: what is wrong and what to
do).  All of them survive pickling, for they cross processes: each passes its whole signature to
``Exception.__init__`` and nothing else.

* `TradeError`
    * `Refused` - our rules say no; do not retry
        * `BadInput` - a field is wrong; names the field
        * `UnknownThing` - no such instrument, account, order, node …
        * `Conflict` - the same key with different content, or a state that forbids the act
        * `RiskDenied` - one or more limits forbid it; lists every violation
    * `NotReady` - heals alone; try again after ``retry_after`` seconds
        * `InDoubt` - as that, but it may have been done: repeat only what does no harm twice
    * `NeedsOperator` - a person must act
    * `Unreachable` - the outcome is UNKNOWN; ask by id, never resend
    * `Fenced` - you are the old copy; stop now
    * `Invariant` - a bug; carries the story of the id
"""

from __future__ import annotations

from collections.abc import Sequence


class TradeError(Exception):
    """Base of all errors of this product: a stable ``code`` and a ``detail`` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Refused(TradeError):
    """Our rules say no.  The same request will be refused again."""


class BadInput(Refused):
    """A field of a request is wrong.  ``detail`` names the value and the fix."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__("bad_input", detail)
        self.args = (field, detail)
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class UnknownThing(Refused):
    """Something named in the request does not exist."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(f"unknown_{kind}", f"no {kind} named {name!r}" + (f"; {hint}" if hint else ""))
        self.args = (kind, name, hint)
        self.kind = kind
        self.name = name


class Conflict(Refused):
    """The request contradicts what is already there."""


class RiskDenied(Refused):
    """Limits forbid it.  ``violations`` names each limit with its value, its limit and its level."""

    def __init__(self, violations: Sequence[str]) -> None:
        super().__init__("risk_denied", "; ".join(violations))
        self.args = (tuple(violations),)
        self.violations = tuple(violations)


class NotReady(TradeError):
    """It heals by itself; try again after ``retry_after`` seconds."""

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__("not_ready", detail)
        self.args = (detail, retry_after)
        self.retry_after = retry_after


class InDoubt(NotReady):
    """The connection broke while a change was being made durable: it stands, or nothing of it does.

    Whoever may do it twice does it again, as with any `NotReady`; everybody else must look first.
    """

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail, retry_after)
        self.code = "outcome_unknown"


class NeedsOperator(TradeError):
    """A person must act first; ``action`` says what."""

    def __init__(self, detail: str, action: str) -> None:
        super().__init__("needs_operator", f"{detail}: {action}")
        self.args = (detail, action)
        self.action = action


class Unreachable(TradeError):
    """The other side gave no answer, so the outcome is unknown.  Ask by id; never resend blindly."""

    def __init__(self, target: str, detail: str) -> None:
        super().__init__("unreachable", f"{target}: {detail}")
        self.args = (target, detail)
        self.target = target


class Fenced(TradeError):
    """A newer incarnation owns this; the one who sees this must stop acting at once."""

    def __init__(self, name: str, mine: int, seen: int) -> None:
        super().__init__("fenced", f"{name}: epoch {mine} is over, {seen} holds it now")
        self.args = (name, mine, seen)
        self.name = name
        self.mine = mine
        self.seen = seen


class Invariant(TradeError):
    """Something that cannot happen has happened.  ``story`` is the recent history of the id."""

    def __init__(self, detail: str, story: Sequence[str] = ()) -> None:
        super().__init__("invariant", detail + ("".join(f"\n  {line}" for line in story)))
        self.args = (detail, tuple(story))
        self.story = tuple(story)
