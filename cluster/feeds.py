"""A feed's capacity and all that is wanted of it, as the API checks it and its coordinator steers by it."""

from __future__ import annotations

from typing import Final

from connectors.base import FeedLimits
from storage.records import FeedRecord
from storage.wishes import WishesByClient
from trading import seconds
from trading.subscriptions import Capacity, Subscriptions

#: The client that a feed's own list counts as.
OWN_LIST: Final = "feed"


def capacity_of(provider: str, limits: FeedLimits) -> Capacity:
    """What a provider's limits leave to one feed."""
    return Capacity(
        provider=provider,
        instruments_per_worker=limits.instruments_per_worker,
        max_workers=limits.max_workers,
        channels=limits.channels,
    )


def subscriptions_of(record: FeedRecord, wishes: WishesByClient, limits: FeedLimits) -> Subscriptions:
    """Everybody's wishes, the feed's own list among them.

    Raises `BadInput` for channels that the provider does not have (any more); feeds that this one stands by for do
    without them.
    """
    own = dict.fromkeys(record.instruments, record.channels)
    capacity = capacity_of(record.provider, limits)
    wanted: WishesByClient = {}
    for client, wish in wishes.items():
        if not seconds.is_second_client(client):
            wanted[client] = wish
            continue
        had = {each: tuple(c for c in channels if c in capacity.channels) for each, channels in wish.items()}
        wanted[client] = {each: channels for each, channels in had.items() if channels}
    return Subscriptions(capacity, {**wanted, OWN_LIST: own})


def fence_key(worker: str) -> str:
    """Hot key with the epoch up to which a worker may not publish any more."""
    return f"fence:{worker}"
