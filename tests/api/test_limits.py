"""Limits by REST: nothing is set, or lifted, over what somebody else has set meanwhile."""

from __future__ import annotations

from typing import Any

from tests.api.playing import Stage

URL = "/v1/risk/limits"
WHERE = {"scope": "account:paper-1", "kind": "gross_exposure", "instrument": ""}
QUERY = "scope=account:paper-1&kind=gross_exposure"


async def test_a_limit_is_not_set_over_one_that_was_not_seen(stage: Stage) -> None:
    await stage.trading()

    async def put(value: str, **seen: str | None) -> Any:
        answer = await stage.ask("PUT", URL, {**WHERE, "value": value, **seen})
        assert answer.is_success, answer.text
        return answer.json()

    # None was there; the same amount written otherwise is the same; without `seen` whatever is there goes.
    assert (await put("1000", seen=None))["value"] == "1000"
    assert (await put("400", seen="1000.00"))["version"] == 2
    assert (await put("300"))["version"] == 3
    for seen, value in ((None, "5000"), ("1000", "900"), ("400", "900")):
        said = await stage.refused(409, "limit_moved", "PUT", URL, {**WHERE, "value": value, "seen": seen})
        assert "it is 300, by admin; look at it again" in said["detail"]
    assert [each["value"] for each in (await stage.get(URL))["items"]] == ["300"]

    await stage.refused(409, "limit_moved", "DELETE", f"{URL}?{QUERY}&seen=400")
    assert (await stage.ask("DELETE", f"{URL}?{QUERY}&seen=300.0")).status_code == 204
    said = await stage.refused(409, "limit_moved", "PUT", URL, {**WHERE, "value": "900", "seen": "300"})
    assert "none is in force" in said["detail"]
    assert (await put("900", seen=None))["version"] == 5
    assert (await stage.ask("DELETE", f"{URL}?{QUERY}")).status_code == 204
