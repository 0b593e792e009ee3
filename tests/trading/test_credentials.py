"""What a value of a log-in may be: whatever passes can be sent, and what is refused is not told."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trading.credentials import LONGEST, flaw_in, hidden


@given(st.text(max_size=40))
@example("two words")
@example("~!@#$%^&*()_+`-={}|[]:\";'<>?,./")
def test_what_passes_goes_into_a_header_as_it_is(value: str) -> None:
    if flaw_in(value) is not None:
        return
    request = h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Authorization", f"token {value}")])
    sent = h11.Connection(h11.CLIENT).send(request)
    assert sent is not None
    assert f"token {value}\r\n".encode("ascii") in sent


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "empty"),
        ("abc ", "blank"),
        ("\tabc", "blank"),
        ("abc\n", "end of a line"),
        ("abc\u200bdef", "character 4 is U\\+200B"),
        ("abc\u2013def", "U\\+2013"),
        ("abc\r\nX-Evil: 1", "character 4 is U\\+000D"),
        ("abc\x00", "U\\+0000"),
        ("a" * (LONGEST + 1), str(LONGEST)),
    ],
)
def test_what_was_copied_badly_is_refused_with_the_remedy(value: str, words: str) -> None:
    flaw = flaw_in(value)
    assert flaw is not None
    assert re.search(words, flaw)
    assert len(value) < 3 or value.strip() not in flaw


def test_an_address_that_people_are_sent_to_keeps_its_key() -> None:
    given = {"api_key": "3f2a9c1b7d5e8f04", "api_secret": "8f2c1d4b6a", "access_token": "tok-4b1d-9e77-aa01 "}
    assert hidden(given) == ["tok-4b1d-9e77-aa01 "]


@pytest.mark.parametrize(
    "word",
    [
        "insufficient",
        "Not found",
        "denied by risk 12",
        "/v1/accounts/12",
        '","status":404,"code":"',
        "12345678901234",
        "a1",
    ],
)
def test_words_that_somebody_gives_as_a_key_do_not_vanish_from_what_others_read(word: str) -> None:
    assert hidden({"secret": word}) == []
