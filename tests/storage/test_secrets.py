"""The key that credentials and second factors are encrypted with, and what is encrypted with it."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from storage.database import Database
from storage.secrets import VARIABLE, Secrets, load_key
from trading.errors import NeedsOperator, UnknownThing

KEY, OTHER = bytes(32), bytes([1] * 32)


def text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert load_key(tmp_path) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_file_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    load_key(tmp_path)
    (tmp_path / "secret.key").chmod(mode)
    with pytest.raises(NeedsOperator, match=f"mode {mode:o}") as refused:
        load_key(tmp_path)
    assert "chmod 600" in refused.value.action


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    load_key(tmp_path)
    os.chown(tmp_path / "secret.key", 12345, -1)
    with pytest.raises(NeedsOperator, match="owner 12345"):
        load_key(tmp_path)


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text(KEY))
    assert load_key(tmp_path) == KEY
    assert not (tmp_path / "secret.key").exists()


@pytest.mark.parametrize("wrong", ["short", text(KEY)[:-4], text(KEY) + "AAAA", "é" * 44])
def test_a_key_of_the_wrong_form_is_refused_without_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(VARIABLE, wrong)
    with pytest.raises(NeedsOperator) as refused:
        load_key(tmp_path)
    assert wrong not in str(refused.value)
    assert VARIABLE in str(refused.value)


async def test_only_the_key_opens_a_secret_and_only_under_its_name(db: Database) -> None:
    store = Secrets(db, KEY)
    await store.put("account/a", {"key": "PK-planted"})
    assert await store.get("account/a") == {"key": "PK-planted"}
    async with db.connection() as connection:
        rows = await (await connection.execute("SELECT sealed FROM secrets")).fetchall()
        await connection.execute("INSERT INTO secrets SELECT 'account/b', sealed, updated_at FROM secrets")
    assert b"PK-planted" not in bytes(rows[0][0])
    for name, reader in (("account/b", store), ("account/a", Secrets(db, OTHER))):
        with pytest.raises(NeedsOperator):
            await reader.get(name)
    await store.delete("account/a")
    with pytest.raises(UnknownThing):
        await store.get("account/a")
