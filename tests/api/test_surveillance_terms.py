"""``/v1/surveillance/terms``: set by operators, for the deck and for accounts, checked field by field."""

from __future__ import annotations

from typing import Any

from tests.api.playing import Stage
from trading.surveillance_terms import Terms

PATH = "/v1/surveillance/terms"


async def put(stage: Stage, terms: dict[str, Any], account: str = "") -> Any:
    answer = await stage.ask("PUT", f"{PATH}/{account}" if account else PATH, {"terms": terms})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_account_has_the_decks_terms_but_for_what_it_sets(stage: Stage) -> None:
    await stage.trading()
    (deck,) = await stage.get(PATH)
    assert (deck["account"], deck["set"], deck["changed_at"]) == (None, {}, None)
    assert deck["in_force"]["flips"] == Terms().flips
    assert (await put(stage, {"flips": 9.0, "share": 0.25}))["in_force"]["flips"] == 9
    own = await put(stage, {"cancels": 90}, "paper-1")
    assert (own["set"], own["changed_by"]) == ({"cancels": 90}, "admin")
    assert (own["in_force"]["flips"], own["in_force"]["cancels"]) == (9, 90)
    assert [each["account"] for each in await stage.get(PATH)] == [None, "paper-1"]
    assert (await put(stage, {}, "paper-1"))["in_force"]["cancels"] == Terms().cancels
    assert (await put(stage, {}))["in_force"]["share"] == Terms().share
    assert len(await stage.get(PATH)) == 1
    await put(stage, {"cancels": 90}, "paper-1")
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1")).status_code == 204
    assert len(await stage.get(PATH)) == 1, "a new account of that name begins with the deck's"


async def test_what_makes_no_sense_names_its_field_and_changes_nothing(stage: Stage) -> None:
    await stage.trading()
    await put(stage, {"enough_orders": 100}, "paper-1")
    for terms, field in (
        ({"flip": 3}, "terms.flip"),
        ({"flips": 2.5}, "terms.flips"),
        ({"cancels": 1_000}, "terms.cancels"),
        ({"share": 2}, "terms.share"),
        # Sound for the deck, and not with what the account has set.
        ({"memory": 50}, "terms.enough_orders"),
    ):
        said = await stage.refused(422, "bad_input", "PUT", PATH, {"terms": terms})
        assert said["field"] == field
    assert "paper-1" in said["detail"]
    await stage.refused(404, "unknown_account", "PUT", f"{PATH}/none", {"terms": {}})
    assert (await stage.get(PATH))[0]["set"] == {}


async def test_they_are_set_only_on_those_that_were_seen(stage: Stage) -> None:
    await stage.trading()
    for path in (PATH, f"{PATH}/paper-1"):
        assert (await stage.ask("PUT", path, {"terms": {"flips": 9}, "seen": {}})).status_code == 200
        said = await stage.refused(409, "terms_moved", "PUT", path, {"terms": {"cancels": 90}, "seen": {}})
        assert (said["present"]["set"], said["present"]["in_force"]["flips"]) == ({"flips": 9}, 9)
        # A form tells numbers as JSON does.
        body = {"terms": {"cancels": 90.0}, "seen": {"flips": 9.0}}
        assert (await stage.ask("PUT", path, body)).json()["set"] == {"cancels": 90}


async def test_it_is_the_operators(stage: Stage) -> None:
    key = await stage.trading()
    await stage.refused(403, "forbidden", "GET", PATH, key=key)
    await stage.refused(403, "forbidden", "PUT", PATH, {"terms": {}}, key=key)
