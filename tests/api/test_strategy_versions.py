"""Versions of strategies over the API: submitted as files, compared, deprecated, pinned, upgraded, rolled back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api import traffic
from storage.artefacts import Artefacts
from tests.api.playing import Stage, algo_body
from tests.api.signing_in import clock, signed_in
from tests.support.wheels import index, packed, wheel
from trading.ids import AlgoId

__all__ = ["clock"]

MODULE = """
from pydantic import Field
from strategies import Strategy, StrategyParameters
{more}

class Sized(StrategyParameters):
    {field}: int = Field(1, ge=1, le=9)

class Mine(Strategy[Sized]):
    Parameters = Sized
"""
ONE = MODULE.format(more="", field="size")
TWO = MODULE.format(more="# a second version", field="size")
OTHER = MODULE.format(more="", field="lots")


async def submit(stage: Stage, file: str, data: bytes, status: int = 201, **query: Any) -> Any:
    answer = await stage.upload("mine", file, data, **query)
    assert answer.status_code == status, answer.text
    return answer.json()


async def two(stage: Stage) -> tuple[str, str]:
    """Two versions of a strategy, and what its algos need."""
    await stage.trading()
    await stage.fed()
    first = await submit(stage, "mine.py", ONE.encode())
    second = await submit(stage, "mine.py", TWO.encode())
    return first["version"], second["version"]


async def test_the_same_content_is_the_same_version_however_it_comes(stage: Stage) -> None:
    made = await submit(stage, "mine.zip", packed({"own/__init__.py": "", "own/mine.py": ONE, "own/t.csv": "1,2"}))
    assert (made["kind"], made["entry"]) == ("zip", "own.mine:Mine")
    assert made["files"] == ["own/__init__.py", "own/mine.py", "own/t.csv"]
    assert made["checked"]["smoke"]["ticks"] > 1_000
    packed_otherwise = packed({"own/t.csv": "1,2", "own/mine.py": ONE, "own/__init__.py": ""})
    again = await submit(stage, "renamed.zip", packed_otherwise, 200)
    assert again == made
    other = await submit(stage, "mine.zip", packed_otherwise, entry="own.mine:Mine")
    assert other["version"] != made["version"]
    lone = await submit(stage, "mine.py", ONE.encode())
    source = {"name": "mine", "source": ONE}
    assert (await stage.ask("POST", "/v1/strategies", source)).json()["version"] == lone["version"]
    listed = (await stage.get("/v1/strategies/mine/versions"))["items"]
    assert [each["version"] for each in listed] == [each["version"] for each in (lone, other, made)]
    page = await stage.get("/v1/strategies/mine/versions?limit=2")
    rest = await stage.get(f"/v1/strategies/mine/versions?limit=2&cursor={page['next']}")
    assert page["items"] + rest["items"] == listed


@pytest.mark.parametrize(
    ("file", "data", "query", "field", "says"),
    [
        ("m.zip", packed({"../evil.py": ONE}), {}, "file", "'../evil.py' leads out"),
        ("m.zip", packed({"own/a.py": "import missing_thing"}), {}, "file", "own/a.py line 1: ModuleNotFoundError"),
        ("m.zip", packed({"own/a.py": ONE, "setup.py": "exit()"}), {}, "file", "name the entry"),
        ("m.zip", packed({"redis/a.py": ONE}), {}, "file", "redis: a package of the deck has that name"),
        ("m.zip", packed({"own/a.py": ONE, "own/b.py": ONE}), {}, "entry", "own.a:Mine, own.b:Mine"),
        ("m.zip", packed({"own/a.py": ONE}), {"entry": "own.x:Mine"}, "entry", "no module 'own.x'"),
        ("m.py", b"", {"requirement": ["numpy<2"]}, "requirements", "numpy<2; The user requested (constraint) numpy=="),
        ("m.py", b"", {"requirement": ["own @ file:///x.whl"]}, "requirements", "names an address"),
        ("m.py", b"", {"requirement": ["-r /etc/passwd"]}, "requirements", "is no requirement"),
        ("m.py", b"", {"requirement": ["not-to-be-had"]}, "requirements", "No matching distribution"),
        ("m.py", b"", {"parameters": "[1]"}, "parameters", "write a JSON object"),
        ("../m.py", b"", {}, "file", "String should match"),
    ],
)
async def test_a_wrong_file_is_refused_by_field_and_keeps_nothing(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str,
    data: bytes,
    query: dict[str, Any],
    field: str,
    says: str,
) -> None:
    for name, value in index(tmp_path / "index").items():
        monkeypatch.setenv(name, value)
    said = await submit(stage, file, data, 422, **query)
    assert said["field"] == field
    assert says in said["detail"]
    (noted,) = (await stage.get("/v1/audit?action=strategy_refused"))["items"]
    assert (noted["actor"], noted["subject"], noted["after"]["file"]) == ("admin", "mine", file)
    assert says in noted["after"]["why"]
    await stage.refused(404, "unknown_strategy", "GET", "/v1/strategies/mine/versions")


async def test_an_upload_may_be_large_but_not_without_end(stage: Stage) -> None:
    noise = packed({"own.py": ONE, "noise.bin": bytes(1000)})
    assert (await stage.upload("mine", "mine.zip", noise + bytes(traffic.MOST_UPLOADED))).status_code == 413
    (noted,) = (await stage.get("/v1/audit?action=strategy_refused"))["items"]
    assert f"more than {traffic.MOST_UPLOADED} bytes" in noted["after"]["why"]
    # So does one that is read to its end before it comes to the route: the panel's uploads bear keys.
    data = bytes(traffic.MOST_UPLOADED + 100)
    headers = {"Authorization": f"Bearer {stage.operator_key}", "Idempotency-Key": "k-1"}
    answer = await stage.http.post(
        "/v1/strategies/mine/versions", params={"file": "m.zip"}, content=data, headers=headers
    )
    assert answer.status_code == 413
    again, _ = (await stage.get("/v1/audit?action=strategy_refused"))["items"]
    assert (again["actor"], again["subject"], again["after"]["file"]) == ("admin", "mine", "m.zip")
    assert f"more than {traffic.MOST_UPLOADED} bytes" in again["after"]["why"]
    padded = packed({"own.py": ONE + "#" * (6 << 20)})
    assert len(padded) > traffic.MOST_BYTES
    await submit(stage, "mine.zip", padded)


async def test_a_module_that_is_refused_is_noted_wherever_that_is_found_and_only_of_those_who_may_submit(
    stage: Stage,
) -> None:
    quant, viewer = await stage.person("quinn", "quant"), await stage.person("vera", "viewer")
    large = {"name": "big", "source": "#" * (traffic.MOST_BYTES + 1)}
    for key in ("", "qd_of_nobody", viewer):
        assert (await stage.ask("POST", "/v1/strategies", large, key=key)).status_code == 413
    assert (await stage.upload("mine", "../m.py", b"", key=viewer)).status_code == 403
    assert (await stage.get("/v1/audit?action=strategy_refused"))["items"] == []
    assert (await stage.ask("POST", "/v1/strategies", large, key=quant)).status_code == 413
    for body in ({"name": "mine"}, {"name": "mine", "source": "a\0b"}, {"name": "a\0b", "source": "x"}):
        assert (await stage.ask("POST", "/v1/strategies", body, key=quant)).status_code == 422
    json = {"Authorization": f"Bearer {quant}", "Content-Type": "application/json"}
    assert (await stage.http.post("/v1/strategies", content=b"{", headers=json)).status_code == 400
    noted = (await stage.get("/v1/audit?action=strategy_refused"))["items"][::-1]
    assert {each["actor"] for each in noted} == {"quinn"}
    assert [(each["subject"], each["after"]["file"]) for each in noted] == [
        ("", ""), ("mine", "mine.py"), ("mine", "mine.py"), ("a\ufffdb", "a\ufffdb.py"), ("", ""),
    ]  # fmt: skip
    whys = [each["after"]["why"] for each in noted]
    assert f"more than {traffic.MOST_BYTES} bytes" in whys[0]
    assert [why.partition(":")[0] for why in whys[1:4]] == ["source", "source", "name"]
    browser = await signed_in(stage, "olga", "operator")
    assert (await browser.ask("POST", "/v1/strategies", large)).status_code == 413
    assert (await stage.get("/v1/audit?action=strategy_refused&actor=olga"))["items"]
    forged = await browser.ask("POST", "/v1/strategies", large, origin="https://elsewhere.example")
    assert forged.status_code == 413
    assert len((await stage.get("/v1/audit?action=strategy_refused&actor=olga"))["items"]) == 1


async def test_requirements_are_resolved_once_and_kept_with_their_wheels(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = wheel("tinylib", "1.2", {"tinylib.py": "ANSWER = 42\n"}, ["numpy", "tinier"])
    tinier = wheel("tinier", "0.1", {"tinier/__init__.py": ""})
    bad = wheel("hiding", "1.0", {"trading/__init__.py": ""})
    for name, value in index(tmp_path / "index", tiny, tinier, bad).items():
        monkeypatch.setenv(name, value)
    source = MODULE.format(more="import tinylib\nassert tinylib.ANSWER == 42", field="size").encode()
    without = await submit(stage, "mine.py", source, 422)
    assert "tinylib" in without["detail"]
    hidden = await submit(stage, "mine.py", source, 422, requirement=["hiding"])
    assert "hiding brings trading, which would hide the deck's own" in hidden["detail"]
    made = await submit(stage, "mine.py", source, requirement=["tinylib >= 1"])
    assert made["requirements"] == ["tinylib>=1"]
    assert [(each["name"], each["version"]) for each in made["packages"]] == [("tinier", "0.1"), ("tinylib", "1.2")]
    store = Artefacts(stage.services.database)
    assert await store.get(made["packages"][1]["sha256"]) == tiny[1]
    # A newer one on the index changes nothing of what was submitted.
    index(tmp_path / "index", wheel("tinylib", "1.3", {"tinylib.py": "ANSWER = 43\n"}))
    assert await submit(stage, "mine.py", source, 200, requirement=["tinylib>=1"]) == made
    answer = await stage.upload("other-name", "mine.py", source, requirement=["tinylib>=1"])
    assert (answer.status_code, answer.json()["packages"]) == (201, made["packages"])


async def test_a_wheel_brings_its_own_requirements_and_entry(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in index(tmp_path / "index", wheel("tinier", "0.1", {"tinier.py": "X = 1\n"})).items():
        monkeypatch.setenv(name, value)
    source = "import tinier\n" + ONE + "\nclass Another(Mine):\n    pass\n"
    modules = {"own/__init__.py": "", "own/mine.py": source}
    name, data = wheel("own", "2.0", modules, ["tinier", "quarterdeck"], "own.mine:Another")
    made = await submit(stage, name, data)
    assert (made["kind"], made["entry"]) == ("wheel", "own.mine:Another")
    assert [each["name"] for each in made["packages"]] == ["tinier"]
    name, data = wheel("own", "2.1", modules, ["no-such-thing"])
    assert "no-such-thing" in (await submit(stage, name, data, 422))["detail"]


async def test_the_difference_between_versions_is_shown_to_who_may_read_code(stage: Stage) -> None:
    first, second = await two(stage)
    shown = await stage.get(f"/v1/strategies/mine/diff?from={first[:8]}&to={second}")
    assert (shown["from_version"], shown["to_version"]) == (first, second)
    assert "+# a second version\n" in shown["diff"]
    viewer = await stage.person("vi", "viewer")
    await stage.get(f"/v1/strategies/mine/diff?from={first}&to={second}", key=viewer, status=403)
    assert (await stage.get(f"/v1/strategies/mine/versions/{first}", key=viewer))["files"] is None
    for wrong, status, field in (("short", 422, "from"), ("0" * 64, 404, None)):
        said = await stage.get(f"/v1/strategies/mine/diff?from={wrong}&to={second}", status=status)
        assert said.get("field") == field


async def test_an_algo_keeps_its_version_until_it_is_upgraded_and_can_go_back(stage: Stage) -> None:
    first, second = await two(stage)
    other = (await submit(stage, "mine.py", OTHER.encode()))["version"]
    body = algo_body(strategy="mine", strategy_version=first[:10], parameters={"size": 3}, start=True)
    made = await stage.make("/v1/algos", body)
    assert (made["strategy_version"], made["previous_version"]) == (first, None)
    await stage.refused(409, "nothing_before", "POST", "/v1/algos/momo-1/rollback")
    newest = await stage.make("/v1/algos", algo_body("newest", strategy="mine", parameters={}))
    assert newest["strategy_version"] == other

    async def go(verb: str, body: Any = None, status: int = 200) -> Any:
        answer = await stage.ask("POST", f"/v1/algos/momo-1/{verb}", body)
        assert answer.status_code == status, answer.text
        return answer.json()

    up = await go("upgrade", {"version": second})
    assert (up["strategy_version"], up["previous_version"], up["parameters"]) == (second, first, {"size": 3})
    assert up["generation"] == made["generation"] + 1
    assert (await go("upgrade", {"version": second}))["generation"] == up["generation"]
    wrong = await go("upgrade", {"version": other}, 422)
    assert wrong["field"] == "parameters.size"
    assert (await go("upgrade", {"version": other, "parameters": {"lots": 20}}, 422))["field"] == "parameters.lots"
    assert (await stage.get("/v1/algos/momo-1"))["strategy_version"] == second
    over = await go("upgrade", {"version": other, "parameters": {"lots": 2}})
    assert (over["strategy_version"], over["previous_version"], over["parameters"]) == (other, second, {"lots": 2})
    # Parameters are checked against the version that it runs.
    said = await stage.refused(422, "bad_input", "PATCH", "/v1/algos/momo-1", {"parameters": {"size": 3}})
    assert said["field"] == "parameters.size"
    back = await go("rollback")
    assert (back["strategy_version"], back["previous_version"], back["parameters"]) == (second, other, {"size": 3})
    assert (await go("upgrade", {"version": "0" * 64}, 404))["code"] == "unknown_version"
    await stage.ask("DELETE", "/v1/algos/newest")
    assert (await stage.ask("DELETE", f"/v1/strategies/mine/versions/{other}")).status_code == 204
    assert (await go("rollback", status=409))["code"] == "version_is_gone"
    await stage.make("/v1/algos", algo_body("built-in"))
    said = await stage.refused(422, "bad_input", "POST", "/v1/algos/built-in/upgrade", {"version": second})
    assert "built in" in said["detail"]
    body = algo_body("built-in-2", strategy_version=second)
    said = await stage.refused(422, "bad_input", "POST", "/v1/algos", body)
    assert said["field"] == "strategy_version"


async def test_an_algo_that_has_run_does_not_go_to_another_class(stage: Stage) -> None:
    first, _ = await two(stage)
    renamed = await submit(stage, "mine.py", ONE.replace("Mine", "Renamed").encode())
    await stage.make("/v1/algos", algo_body(strategy="mine", strategy_version=first, parameters={}))
    body = {"version": renamed["version"]}
    assert (await stage.ask("POST", "/v1/algos/momo-1/upgrade", body)).status_code == 200
    await stage.services.desired.new_algo_epoch(AlgoId("momo-1"))
    said = await stage.refused(409, "other_class", "POST", "/v1/algos/momo-1/upgrade", {"version": first})
    assert "Mine there and Renamed here" in said["detail"]


async def test_two_who_upgrade_at_once_one_wins(stage: Stage) -> None:
    first, second = await two(stage)
    await stage.make("/v1/algos", algo_body(strategy="mine", strategy_version=first, parameters={}))
    bodies = [{"version": second}, {"version": second, "parameters": {"size": 2}}]
    answers = await asyncio.gather(*(stage.ask("POST", "/v1/algos/momo-1/upgrade", each) for each in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (lost,) = [answer.json() for answer in answers if answer.status_code == 409]
    assert lost["code"] == "generation_changed"
    entries = await stage.services.desired.audit_of("momo-1")
    assert [entry.action for entry in entries] == ["update_algo", "create_algo"]


async def test_a_deprecated_version_runs_on_and_is_taken_by_nobody_new(stage: Stage) -> None:
    first, second = await two(stage)
    await stage.make("/v1/algos", algo_body(strategy="mine", parameters={}))
    path = f"/v1/strategies/mine/versions/{second[:8]}"
    said = await stage.refused(422, "bad_input", "POST", f"{path}/deprecate", {"because": ""})
    assert said["field"] == "because"
    gone = (await stage.ask("POST", f"{path}/deprecate", {"because": "it loses money"})).json()
    assert (gone["deprecated"]["by"], gone["deprecated"]["because"]) == ("admin", "it loses money")
    assert gone["algos"] == ["momo-1"]
    shown = await stage.get("/v1/algos/momo-1")
    assert (shown["strategy_version"], shown["deprecated"]) == (second, "it loses money")
    assert (await stage.get("/v1/algos"))["items"][0]["deprecated"] == "it loses money"
    assert (await stage.get("/v1/strategies/mine"))["version"] == first
    body = algo_body("next", strategy="mine", strategy_version=second, parameters={})
    said = await stage.refused(409, "version_deprecated", "POST", "/v1/algos", body)
    assert "it loses money" in said["detail"]
    made = await stage.make("/v1/algos", {**body, "strategy_version": ""})
    assert made["strategy_version"] == first
    await stage.refused(409, "version_deprecated", "POST", "/v1/algos/next/upgrade", {"version": second})
    await stage.ask("POST", "/v1/algos/momo-1/upgrade", {"version": first})
    back = (await stage.ask("POST", "/v1/algos/momo-1/rollback")).json()
    assert (back["strategy_version"], back["deprecated"]) == (second, "it loses money")
    await stage.ask("POST", f"/v1/strategies/mine/versions/{first}/deprecate", {"because": "old"})
    none_left = algo_body("last", strategy="mine", parameters={})
    await stage.refused(409, "version_deprecated", "POST", "/v1/algos", none_left)
    assert (await stage.ask("POST", f"{path}/reinstate")).json()["deprecated"] is None
    await stage.refused(409, "version_not_deprecated", "POST", f"{path}/reinstate")
    assert (await stage.make("/v1/algos", none_left))["strategy_version"] == second


async def test_a_version_is_deleted_with_its_file_once_no_algo_pins_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(stage)
    await stage.make("/v1/algos", algo_body(strategy="mine", parameters={}))
    said = await stage.refused(409, "version_in_use", "DELETE", f"/v1/strategies/mine/versions/{second}")
    assert "momo-1" in said["detail"]
    await stage.services.desired.delete_algo(AlgoId("momo-1"), "test")
    monkeypatch.setattr("storage.artefacts.UNWANTED_NS", 0)
    assert (await stage.ask("DELETE", f"/v1/strategies/mine/versions/{second}")).status_code == 204
    await stage.refused(404, "unknown_version", "GET", f"/v1/strategies/mine/versions/{second}")
    assert (await stage.get("/v1/strategies/mine"))["version"] == first
    async with stage.services.database.connection() as connection:
        rows = await (await connection.execute("SELECT sha256 FROM artefacts")).fetchall()
    assert [row[0] for row in rows] == [first]
