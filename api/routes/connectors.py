"""``/v1/connectors``: brokers and providers of market data, and what each must be told."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict

from api.formats import Shown
from api.security import Viewer
from cluster import catalog

router = APIRouter(prefix="/v1", tags=["connectors"])


class ConnectorShown(Shown):
    """A connector; ``credentials`` are the names of what an account there logs in with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "alpaca",
                    "trades": True,
                    "market_data": True,
                    "credentials": ["key", "secret"],
                    "account_settings": {"type": "object", "properties": {"timeout_s": {"type": "number"}}},
                    "feed_settings": {"type": "object", "properties": {"feed": {"enum": ["iex", "sip"]}}},
                }
            ]
        }
    )

    name: str
    trades: bool
    market_data: bool
    credentials: list[str]
    #: JSON schemas of ``settings`` of accounts and of feeds; null where it has none.
    account_settings: dict[str, Any] | None
    feed_settings: dict[str, Any] | None


@router.get("/connectors", response_model=list[ConnectorShown])
async def list_connectors(_: Viewer) -> list[catalog.Connector]:
    """Everything that accounts and feeds can be at."""
    return await asyncio.to_thread(catalog.connectors)
