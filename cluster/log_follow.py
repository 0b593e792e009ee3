"""An algo's log as it is written, over the API's WebSocket; what was missed while it was away comes first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from cluster.client import ApiClient
from trading.errors import NeedsOperator, Unreachable

#: An API that is away is tried again for so long.
PATIENCE_S: Final = 60.0
#: Codes with which the API refuses for good (api/routes/stream.py).
_REFUSED: Final = (4401, 4422)


def follow(api: ApiClient, algo: str, after: int) -> Iterator[dict[str, Any]]:
    """Lines after the one numbered ``after``, for ever.

    Raises `NeedsOperator` where it is refused, `Unreachable` where the API stays away.
    """
    parts = urlsplit(api.url)
    url = urlunsplit(("wss" if parts.scheme == "https" else "ws", parts.netloc, "/v1/stream", "", ""))
    topic = f"algo-log:{algo}"
    last_seen = time.monotonic()
    while True:
        try:
            with connect(url, open_timeout=5, max_size=None) as socket:
                socket.send(json.dumps({"key": api.key, "topics": [topic], "places": {topic: after}}))
                for raw in socket:
                    last_seen = time.monotonic()
                    message = json.loads(raw)
                    if message.get("topic") == topic:
                        line: dict[str, Any] = message["body"]
                        after = line["number"]
                        yield line
        except ConnectionClosed as error:
            trouble: Exception = error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            trouble = error
        else:
            trouble = ConnectionClosed(socket.protocol.close_rcvd, socket.protocol.close_sent)
        closed = getattr(trouble, "rcvd", None)
        if closed is not None and closed.code in _REFUSED:
            raise NeedsOperator(f"the log of {algo} cannot be followed: {closed.reason}", "give another key or name")
        if time.monotonic() - last_seen > PATIENCE_S:
            raise Unreachable(url, f"{type(trouble).__name__} {trouble}")
        time.sleep(0.5)
