"""What a process has read of secrets does not come out of it again."""

from __future__ import annotations

import io
import json
import logging
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import redaction
from storage.redaction import REDACTED, Formatter, cleaned, note


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", {})


SECRET = "pl4nted\"secret'\\ with\tall\u200b of=it&é"


@pytest.mark.parametrize("shown", [str, repr, json.dumps, quote_plus, lambda s: repr(s.encode())])
def test_a_secret_is_taken_out_however_it_is_written(shown: object) -> None:
    assert callable(shown)
    note([SECRET])
    assert cleaned(f"it said {shown(SECRET)}, twice: {shown(SECRET)}").count(REDACTED) == 2
    assert "pl4nted" not in cleaned(f"it said {shown(SECRET)}")


def test_one_that_begins_as_another_is_taken_out_whole() -> None:
    note(["tokens", "tokens-of-today"])
    assert cleaned("tokens-of-today") == REDACTED


def test_short_words_are_left_alone() -> None:
    note(["a", "paper", ""])
    assert cleaned("a paper account") == "a paper account"


@given(st.text(), st.text(min_size=6).filter(lambda s: len(s.strip()) >= 6))
def test_nothing_is_left_and_nothing_else_is_touched(around: str, secret: str) -> None:
    redaction._known.clear()
    assert cleaned(around) == around
    note([secret])
    parts = cleaned(f"{around}|{secret}|{around}").split(REDACTED)
    assert all(secret.strip() not in part for part in parts)


def test_logs_and_their_tracebacks_are_without() -> None:
    note([SECRET])
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Formatter("%(message)s"))
    log = logging.Logger("one")
    log.addHandler(handler)
    try:
        f"token {SECRET}".encode("ascii")
    except UnicodeEncodeError:
        log.exception("the header %s cannot be made", SECRET)
    assert "UnicodeEncodeError" in out.getvalue()
    assert "pl4nted" not in out.getvalue()
