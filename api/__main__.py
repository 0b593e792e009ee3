"""``python -m api``: serve the API."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from api.app import create_app
from cluster.process import set_up_logging
from cluster.settings import settings


def main() -> None:
    """Serve until told to stop."""
    deck = settings()
    set_up_logging("api")
    for name, value in (("DATABASE_URL", deck.database_url), ("REDIS_URL", deck.redis_url)):
        if not value:
            sys.exit(f"{name} is not set: run `quarterdeck up`, which sets it, or point it at a server")
    uvicorn.run(
        create_app(deck),
        host=deck.host,
        port=deck.api_port,
        loop="uvloop",
        # By the handlers of `set_up_logging`, which let no secret through.
        log_config=None,
        log_level=os.environ.get("QUARTERDECK_LOG_LEVEL", "WARNING").lower(),
        access_log=False,
        ws_max_size=64 << 10,
        timeout_graceful_shutdown=5,
        # Deflating every message for every client costs more processor and memory than it saves wire.
        ws_per_message_deflate=False,
        server_header=False,
        # Else anybody on this machine could say to come from elsewhere: it is whom lock-outs and alerts are about.
        proxy_headers=bool(deck.trusted_proxies),
        forwarded_allow_ips=deck.trusted_proxies or None,
    )


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
