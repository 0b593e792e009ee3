"""What connectors there are, and what each must be told."""

from __future__ import annotations

from tests.api.playing import Stage


async def test_every_connector_tells_its_settings_and_credentials(stage: Stage) -> None:
    key = await stage.person("asha", "viewer")
    found = {each["name"]: each for each in await stage.get("/v1/connectors", key=key)}
    assert set(found) == {"paper", "alpaca", "kite", "binance-spot", "binance-usdm"}
    paper = found["paper"]
    assert (paper["trades"], paper["market_data"], paper["feed_settings"]) == (True, False, None)
    # The deck's own settings are among them.
    assert {"cash", "currency", "fee_bps", "feed", "reconcile_every_s"} <= set(paper["account_settings"]["properties"])
    assert found["alpaca"]["credentials"] == ["key", "secret"]
    assert found["alpaca"]["account_settings"]["properties"]["environment"]["enum"] == ["live", "paper"]
    assert found["kite"]["trades"] is False
    assert found["binance-spot"]["account_settings"] is None
    assert "base_url" in found["binance-spot"]["feed_settings"]["properties"]


async def test_what_is_told_is_what_is_taken(stage: Stage) -> None:
    for each in await stage.get("/v1/connectors"):
        if each["name"] != "paper":
            continue
        settings = {
            name: told["default"]
            for name, told in each["account_settings"]["properties"].items()
            if told.get("default") not in (None, "")
        }
        made = await stage.make(
            "/v1/accounts", {"id": "p-1", "user": "admin", "connector": each["name"], "settings": settings}
        )
        assert made["connector"] == "paper"
        return
    raise AssertionError("there is no paper connector")
