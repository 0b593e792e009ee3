from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from connectors import registry
from connectors.base import Broker
from tests.connectors.paper.support import ACCOUNT, INSTRUMENTS, MemoryLedger
from trading.errors import BadInput, UnknownThing
from trading.ids import Epoch, Nanos


def now() -> Nanos:
    return Nanos(time.time_ns())


def open_broker(name: str, settings: dict[str, Any]) -> Broker:
    return registry.broker(name, ACCOUNT, settings, INSTRUMENTS, MemoryLedger(), Epoch(1), now)


def test_every_provider_and_broker_can_be_made() -> None:
    assert set(registry.providers()) == {"binance-spot", "binance-usdm", "alpaca", "kite"}
    assert set(registry.brokers()) == {"paper", "alpaca"}
    for name in registry.providers():
        market = registry.market_data(name, {})
        assert market.name == name
        assert market.limits.instruments_per_worker >= 30
    for name in registry.brokers():
        made = open_broker(name, {})
        assert made.capabilities == registry.capabilities(name, {}), "sessions are told what the connection does"


def test_unknown_names_are_answered_with_the_choices() -> None:
    with pytest.raises(UnknownThing, match="binance-usdm"):
        registry.market_data("binance", {})
    with pytest.raises(UnknownThing, match="paper"):
        open_broker("papre", {})


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"csah": 5}, "csah"), ({"cash": "many"}, "cash"), ({"cash": "1_0"}, "cash"), ({"fill_ratio": "0"}, "fill_ratio")],
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
        "heavy = ('connectors.binance', 'connectors.alpaca', 'connectors.kite', 'httpx', 'websockets');"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_session_learns_what_a_broker_can_do_without_loading_its_sockets() -> None:
    code = (
        "import sys; from connectors.registry import capabilities; capabilities('alpaca', {});"
        "print([m for m in sys.modules if m.startswith(('connectors.alpaca.orders', 'httpx', 'websockets'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_log_in_of_a_broker_is_known_by_name() -> None:
    assert registry.secrets_of("alpaca") == ("key", "secret")
    assert registry.secrets_of("kite") == ("api_key", "api_secret", "access_token")
    assert registry.secrets_of("paper") == ()


def test_an_account_that_cannot_trade_is_known() -> None:
    assert registry.is_data_only("kite")
    assert not any(registry.is_data_only(name) for name in registry.brokers())
    assert not registry.is_data_only("nobody")
