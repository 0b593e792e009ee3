"""The terms of `trading.freshness`: how a subscription goes, when its market is open, how patient to be."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos


class State(StrEnum):
    """How a subscription goes."""

    PENDING = "pending"
    LIVE = "live"
    STALE = "stale"
    FAILED = "failed"


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """A market as of now; ``since`` is when it opened or closed (0: around the clock)."""

    is_open: bool
    since: Nanos = Nanos(0)


class FreshnessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient to be, in seconds.  Checked by `check`."""

    #: Silence is too long beyond so many usual gaps, but never below the least nor above the most.
    gaps: float = 4.0
    least_s: float = 5.0
    most_s: float = 1800.0
    #: Before an instrument has a habit.
    first_s: float = 60.0
    #: A first tick must come within this, where others tick.
    pending_s: float = 10.0
    #: What each step of healing is given before the next.
    step_s: float = 5.0
    #: After the last step the first is taken again so often; a stream that stays silent is given up so often, and then
    #: ever more seldom.  The second provider goes once the first has been good for so long.
    again_s: float = 60.0
    #: So many times a silent subscription is asked for before it has failed, where no poll can tell.
    attempts: int = 3

    def check(self) -> FreshnessSettings:
        """Return itself; `BadInput` where a value makes no sense."""
        for field in msgspec.structs.fields(self):
            if not 0 < getattr(self, field.name) < 1e6:
                raise BadInput(field.name, f"{getattr(self, field.name)} is out of range: use a number above 0")
        if self.least_s > self.most_s:
            raise BadInput("least_s", f"{self.least_s} is above most_s, which is {self.most_s}")
        return self


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How one subscription goes."""

    id: InstrumentId
    state: State
    reason: str
    #: When it came into this state.
    since: Nanos
    #: Seconds since its last tick from the stream; None before the first.
    age_s: float | None
    #: Silence that is still usual, in seconds.
    patience_s: float
    ticks: int
    polled: bool
    second: bool
