"""What heals a subscription: the instructions of `trading.freshness` to whoever holds the connection."""

from __future__ import annotations

import msgspec

from trading.ids import InstrumentId, Nanos


class Resubscribe(msgspec.Struct, frozen=True):
    """Ask the provider for instruments once more (end the subscription, then begin it again)."""

    instruments: tuple[InstrumentId, ...]


class Reconnect(msgspec.Struct, frozen=True):
    """Close the connection and open another: nothing at all comes."""

    reason: str


class Poll(msgspec.Struct, frozen=True):
    """Ask for last values by REST, at the provider's pace, until told to stop."""

    instruments: tuple[InstrumentId, ...]


class StopPolling(msgspec.Struct, frozen=True):
    """The stream does it again, or nobody wants it."""

    instruments: tuple[InstrumentId, ...]


class UseSecond(msgspec.Struct, frozen=True):
    """Stream instruments from their second provider too; `trading.arbitration` decides between the two."""

    instruments: tuple[InstrumentId, ...]


class StopSecond(msgspec.Struct, frozen=True):
    """The first provider is good again, or nobody wants it."""

    instruments: tuple[InstrumentId, ...]


class BackFill(msgspec.Struct, frozen=True):
    """Fill a gap from history, its ticks and bars marked BACKFILLED: after ``since``, before ``until``."""

    instrument: InstrumentId
    since: Nanos
    until: Nanos


Healing = Resubscribe | Reconnect | Poll | StopPolling | UseSecond | StopSecond | BackFill
