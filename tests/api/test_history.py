from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest

from api import csv_text
from api.formats import parse_time, time_text
from api.routes.history import BarShown
from cluster import catalog
from tests.api.playing import Stage
from trading.errors import Unreachable

MINUTE = 60_000_000_000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The spans that providers are asked for."""
    spans: list[tuple[int, int]] = []
    real = catalog.history

    async def counted(*arguments: Any) -> Any:
        spans.append(arguments[-2:])
        return await real(*arguments)

    monkeypatch.setattr(catalog, "history", counted)
    return spans


async def listed(stage: Stage, venue: str) -> str:
    """A feed of the simulated venue; returns the id of its instrument."""
    body = {"provider": "binance-spot", "settings": {"base_url": venue}}
    answer = await stage.ask("POST", "/v1/instruments/import", body)
    assert answer.status_code == 200, answer.text
    (first, *_) = (await stage.get("/v1/instruments?limit=1"))["items"]
    await stage.make("/v1/feeds", {"id": "crypto", **body, "instruments": [first["id"]]})
    return str(first["id"])


def hours_ago(hours: float) -> int:
    at = time.time_ns() - int(hours * 60) * MINUTE
    return at - at % (60 * MINUTE)


async def test_history_is_fetched_once_and_served_from_the_store(
    stage: Stage, venue: str, asked: list[tuple[int, int]]
) -> None:
    instrument = await listed(stage, venue)
    start, end = hours_ago(9), hours_ago(5)
    path = f"/v1/history?instrument={instrument}&start={time_text(start)}&end={time_text(end)}".replace("+", "%2B")
    first = await stage.get(path)
    assert asked == [(start, end)]
    assert (first["next"], first["gaps"], parse_time(first["until"])) == (None, [], end)
    times = [parse_time(each["opened_at"]) for each in first["items"]]
    assert times == list(range(start, end, MINUTE))
    assert all(each["low"] <= each["open"] <= each["high"] and each["volume"] > 0 for each in first["items"])
    assert await stage.get(path) == first
    # Wider ones are made of what is there; a longer question costs only what it adds.
    hours = (await stage.get(f"{path}&interval=1h"))["items"]
    assert [parse_time(each["opened_at"]) for each in hours] == times[::60]
    for each, row in zip(hours, range(0, 240, 60), strict=True):
        part = first["items"][row : row + 60]
        assert (each["open"], each["close"]) == (part[0]["open"], part[-1]["close"])
        assert (each["high"], each["low"]) == (max(b["high"] for b in part), min(b["low"] for b in part))
        assert each["trades"] == sum(b["trades"] for b in part)
    assert asked == [(start, end)]
    later = end + 60 * MINUTE
    await stage.get(path.replace(time_text(end).replace("+", "%2B"), time_text(later).replace("+", "%2B")))
    assert asked == [(start, end), (end, later)]


async def test_pages_and_the_file_have_every_bar_once(stage: Stage, venue: str) -> None:
    instrument = await listed(stage, venue)
    start, end = hours_ago(6), hours_ago(5)
    query = f"instrument={instrument}&start={time_text(start)}&end={time_text(end)}".replace("+", "%2B")
    whole = (await stage.get(f"/v1/history?{query}"))["items"]
    assert len(whole) == 60
    parts: list[Any] = []
    cursor = ""
    while True:
        page = await stage.get(f"/v1/history?{query}&limit=7{cursor}")
        parts += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert parts == whole
    answer = await stage.ask("GET", f"/v1/history.csv?{query}")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["opened_at"] for row in rows] == [each["opened_at"] for each in whole]
    for row, each in zip(rows, whole, strict=True):
        assert all(float(row[name]) == each[name] for name in ("open", "high", "low", "close", "volume"))
    assert [column.name for column in csv_text.BAR] == list(BarShown.model_fields)


async def test_without_an_end_it_runs_up_to_the_bar_under_way(stage: Stage, venue: str) -> None:
    instrument = await listed(stage, venue)
    before = time.time_ns()
    page = await stage.get(f"/v1/history?instrument={instrument}&start={time_text(hours_ago(3))}".replace("+", "%2B"))
    until = parse_time(page["until"])
    assert until % MINUTE == 0
    assert until <= time.time_ns()
    assert until + MINUTE > before
    assert parse_time(page["items"][-1]["opened_at"]) < until
    (gap,) = page["gaps"]
    assert parse_time(gap["end"]) == until
    assert "not final" in gap["reason"]


async def test_a_provider_that_is_away_is_told_and_no_empty_answer_given(
    stage: Stage, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument = await listed(stage, venue)
    query = f"instrument={instrument}&start={time_text(hours_ago(2))}&end={time_text(hours_ago(1))}".replace("+", "%2B")

    async def away(*_: Any) -> Any:
        raise Unreachable("klines", "no answer")

    monkeypatch.setattr(catalog, "history", away)
    said = await stage.refused(503, "not_ready", "GET", f"/v1/history?{query}")
    assert "did not give its history" in said["detail"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("interval=1w", "interval"),
        ("limit=0", "limit"),
        ("start=yesterday", "start"),
        ("end=2001-01-01T00:00:00Z", "end"),
        ("cursor=abc", "cursor"),
        ("cursor=AAAAAAAAAAEAAAAAAAAAAA", "cursor"),
    ],
)
async def test_a_senseless_question_is_a_problem(stage: Stage, venue: str, change: str, field: str) -> None:
    instrument = await listed(stage, venue)
    query = {"instrument": instrument, "start": "2026-01-01T00:00:00Z"}
    name, _, value = change.partition("=")
    query[name] = value
    text = "&".join(f"{key}={value}" for key, value in query.items())
    said = await stage.refused(422, "bad_input", "GET", f"/v1/history?{text}")
    assert said["field"] == field


async def test_history_takes_a_key_and_an_instrument(stage: Stage) -> None:
    query = "start=2026-01-01T00:00:00Z"
    await stage.refused(404, "unknown_instrument", "GET", f"/v1/history?instrument=X:Y&{query}")
    await stage.refused(401, "unauthorized", "GET", f"/v1/history?instrument=X:Y&{query}", key="")
