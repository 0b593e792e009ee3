from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from connectors import registry
from tests.connectors.paper.support import ACCOUNT, INSTRUMENTS, MemoryLedger
from trading.errors import BadInput, UnknownThing
from trading.ids import Epoch, Nanos


def now() -> Nanos:
    return Nanos(time.time_ns())


def open_broker(name: str, settings: dict[str, Any]) -> object:
    return registry.broker(name, ACCOUNT, settings, INSTRUMENTS, MemoryLedger(), Epoch(1), now)


def test_every_provider_and_broker_can_be_made() -> None:
    assert set(registry.providers()) == {"binance-spot", "binance-usdm"}
    for name in registry.providers():
        market = registry.market_data(name, {})
        assert market.name == name
        assert market.limits.instruments_per_worker >= 50
    for name in registry.brokers():
        assert open_broker(name, {})


def test_unknown_names_are_answered_with_the_choices() -> None:
    with pytest.raises(UnknownThing, match="binance-usdm"):
        registry.market_data("binance", {})
    with pytest.raises(UnknownThing, match="paper"):
        open_broker("papre", {})


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"csah": 5}, "csah"), ({"cash": "many"}, "settings"), ({"fill_ratio": "0"}, "fill_ratio")],
)
def test_wrong_paper_settings_name_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_broker("paper", settings)
    assert caught.value.field == field


def test_paper_settings_come_as_json_has_them() -> None:
    assert "alice" in repr(open_broker("paper", {"cash": "5000", "fee_bps": 10, "latency_ms": 5}))


def test_the_registry_loads_no_connector_until_it_is_asked_for() -> None:
    code = (
        "import sys, connectors.registry;"
        "print([m for m in sys.modules if m.startswith(('connectors.binance', 'httpx', 'websockets'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
