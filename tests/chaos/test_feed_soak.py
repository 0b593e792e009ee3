"""Half a minute of a feed under attack: every trade that the venue sent is accounted for, and none comes twice.

The long form is ``python -m bench.soak``; this is the same with few instruments, some hundred ticks a second and short
faults.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from bench.rebalance import numbered_market
from bench.soak import FEED, Pace, Soak, servers_of
from tests.support.deck import DeckUnderTest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.chaos,
    pytest.mark.timeout(180),
    # One of some dozens of runs on a crowded machine still finds ticks that nothing accounts for: that is looked into
    # with `python -m bench.soak`, and must not hold up what has nothing to do with it meanwhile.
    pytest.mark.skipif(
        not os.environ.get("QUARTERDECK_SOAK"), reason="attacks a feed for half a minute; set QUARTERDECK_SOAK=1"
    ),
]

SYMBOLS, GUESTS = 24, 4
#: Of all symbols together: every second tick is a quote.
RATE = 600
BAD_EVERY = 97
PACE = Pace(calm=4.0, between=(0.5, 1.5), longest=1.5, trail=2.0, quiet=1.0)
#: Or until each kind of fault has come once.
SECONDS = 16.0
KINDS = (
    "kill worker",
    "pause worker",
    "cut sockets",
    "drop streams",
    "garbage",
    "resize",
    "guests",
    "kill coordinator",
    "kill redis",
)


@pytest.fixture
def watched(deck: DeckUnderTest) -> Iterator[DeckUnderTest]:
    """The deck starts again what of its servers ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            deck.deck.watch()

    thread = threading.Thread(target=watch)
    thread.start()
    yield deck
    over.set()
    thread.join()


def test_every_tick_of_a_feed_under_attack_is_accounted_for(watched: DeckUnderTest) -> None:
    deck, said = watched, []
    options = (str(SYMBOLS), str(RATE), "--quotes", "--bad-every", str(BAD_EVERY))
    with numbered_market(*options) as market:
        soak = Soak(
            deck.api,
            market,
            deck.deck.settings.redis_url,
            servers_of(deck.deck),
            seed=7,
            bad_every=BAD_EVERY,
            guests=GUESTS,
            workers=2,
            kinds=KINDS,
            pace=PACE,
            say=said.append,
        )
        try:
            soak.prepare()
            result = soak.run(SECONDS)
        finally:
            soak.faults.close()
            deck.api.delete(f"/feeds/{FEED}?force=true")
    told, story = result.account, "; ".join(said)
    assert not result.unsettled, f"{result.unsettled} ({story})"
    names = told.trades
    assert (told.lost, told.doubled) == ([], []), story
    assert result.is_whole, f"{result.told()} ({story})"
    # It was no idle soak: something was lost on the way and came after all, and bad ticks were kept out.
    assert names["sent"] > 5_000
    assert names["filled_in"] > 0
    assert names["quarantined"] > 0
    assert sum(names[name] for name in ACCOUNTED) == names["sent"], names


ACCOUNTED = ("streamed", "filled_in", "quarantined", "good_and_quarantined", "in_named_gaps", "far_and_filled_in")
