"""The newest ticks of a batch: what somebody who has fallen behind still wants to see."""

from __future__ import annotations

import numpy as np

from trading.ticks import BACKFILLED, QUOTE, TRADE, TickArray


def newest(ticks: TickArray) -> TickArray:
    """The last trade and the last quote of each instrument, in order of arrival.

    What was filled in from history is older than anything live, whenever it came.
    """
    if len(ticks) < 2:
        return ticks
    flags = ticks["flags"]
    # Stable, so that within both kinds the order is that of arrival.
    order = np.argsort((flags & np.uint32(BACKFILLED)) == 0, kind="stable")
    keep = np.zeros(len(ticks), dtype=np.bool_)
    for kind in (TRADE, QUOTE):
        rows = order[(flags[order] & np.uint32(kind)) != 0][::-1]
        if len(rows):
            keep[rows[np.unique(ticks["instrument"][rows], return_index=True)[1]]] = True
    return ticks[keep]
