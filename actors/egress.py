"""The address from which the internet sees this machine: what a broker's list of allowed addresses must have.

Asked of services that the operator names, in turn, seldom, and by nobody who waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from cluster.node_facts import Egress
from cluster.process import now

log = logging.getLogger("quarterdeck")

#: An address is asked for again after so long; after a failure sooner, ever later up to this.
EVERY_S: Final = 900.0
_FIRST_RETRY_S: Final = 30.0
_ANSWER_S: Final = 5.0
_LONGEST_ANSWER: Final = 64


async def ask(url: str) -> Egress:
    """What one service says.  Raises `ValueError` where that is no address, `OSError` where it does not answer."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=_ANSWER_S, follow_redirects=True, trust_env=False) as client:
            answer = await client.get(url)
            answer.raise_for_status()
            text = answer.text.strip()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{type(error).__name__} {error}".strip()) from error
    if len(text) > _LONGEST_ANSWER:
        raise ValueError("its answer is no address")
    return Egress(address=str(ip_address(text)), told_by=urlsplit(url).hostname or url, at=now())


class EgressWatch:
    """Keeps the last address that was told; ``found`` is None until one was."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self.found: Egress | None = None

    async def look(self) -> bool:
        """Ask the services in turn until one tells; whether one did."""
        troubles = []
        for url in self.urls:
            try:
                found = await ask(url)
            except (OSError, ValueError) as error:
                troubles.append(f"{url}: {error}")
                continue
            if self.found is None or self.found.address != found.address:
                log.info("the internet sees this machine as %s (%s)", found.address, found.told_by)
            self.found = found
            return True
        log.debug("no service told the egress address: %s", "; ".join(troubles))
        return False

    async def run(self) -> None:
        """Look again for ever; ends at once where there is nobody to ask."""
        delay = _FIRST_RETRY_S
        while self.urls:
            if await self.look():
                delay = _FIRST_RETRY_S
                wait = EVERY_S
            else:
                wait, delay = delay, min(delay * 2, EVERY_S)
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))
