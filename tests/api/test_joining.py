"""What the head tells a machine that wants to join, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from typer.testing import CliRunner

from api.formats import parse_time
from cluster import tls
from cluster.code_version import version
from cluster.commands import app
from cluster.joining import Address, Check, Given, Head, HeadFacts, checks, forget, keep, kept, tls_checks
from cluster.launched import Launched, revoke_pool_token
from cluster.membership import Membership, command_line, only_one, unit_of
from cluster.settings import DeckSettings
from storage.join_tokens import JoinTokens
from storage.secrets import load_key
from tests.api.playing import Stage
from tests.support.patience import PATIENCE
from trading.errors import BadInput, NeedsOperator, Refused


async def token(stage: Stage, **wish: Any) -> str:
    made = await stage.make("/v1/nodes/tokens", wish)
    assert made["command"] == f"quarterdeck join http://deck --token {made['token']}"
    return str(made["token"])


@pytest.fixture(autouse=True)
def ray_token(stage: Stage) -> None:
    """What the deck makes when it starts Ray."""
    settings = stage.services.deck
    (settings.home / "ray-token").write_text("abc\n")
    settings.ray_address = "10.1.2.3:6380"


async def test_a_machine_looks_and_joins_once(stage: Stage) -> None:
    text = await token(stage, node="edge", labels={"region": "eu", "accounts": "p-1"})
    facts = (await stage.ask("POST", "/v1/nodes/join/look", key=text)).json()
    assert abs(parse_time(facts["at"]) - time.time_ns()) < 5e9
    assert (facts["node"], facts["ray"], facts["quarterdeck"]) == ("edge", version("ray"), version())
    assert facts["addresses"][0] == {"what": "Ray's head", "host": "10.1.2.3", "port": 6380}
    assert all(each["host"] and each["port"] for each in facts["addresses"])
    for body, field in (
        ({"node": "other"}, "node"),
        ({"node": "edge", "labels": {"owner": "me"}}, "labels"),
        ({"node": "edge", "labels": {"carries": "risk"}}, "labels"),
        ({"node": "edge", "labels": {"egress": "203.0.113.1"}}, "labels"),
        ({"node": "edge", "labels": {"quarterdeck-node": "head"}}, "labels"),
        ({"node": "edge", "labels": {"region": "us"}}, "labels"),
        ({"node": "edge", "labels": {"a b": "x"}}, "labels"),
    ):
        assert (await stage.refused(422, "bad_input", "POST", "/v1/nodes/join", body, key=text))["field"] == field
    joined = await stage.make("/v1/nodes/join", {"node": "edge", "labels": {"os": "Linux"}}, key=text)
    settings = stage.services.deck
    assert joined["database_url"] == settings.database_url
    assert (joined["ray_token"], joined["ray_address"], joined["secret_key"]) == ("abc", "10.1.2.3:6380", None)
    (node,) = (await stage.get("/v1/nodes"))["items"]
    assert node["labels"] == joined["labels"]
    assert {"region": "eu", "accounts": "p-1", "os": "Linux"}.items() <= node["labels"].items()
    again = await stage.refused(409, "join_token_used", "POST", "/v1/nodes/join", {"node": "edge"}, key=text)
    assert "edge" in again["detail"]
    # A used token still opens the look, until its machine is forgotten.
    assert (await stage.ask("POST", "/v1/nodes/join/look", key=text)).status_code == 200
    assert (await stage.ask("DELETE", "/v1/nodes/edge")).status_code == 204
    await stage.refused(410, "node_removed", "POST", "/v1/nodes/join/look", key=text)
    actions = [entry.action for entry in await stage.services.desired.audit_of("edge")]
    assert actions == ["delete_node", "join_node"]


async def test_the_key_of_secrets_is_given_with_a_token_that_says_so_only(stage: Stage) -> None:
    from storage.secrets import key_text

    text = await token(stage, node="trusted", with_secrets=True)
    joined = await stage.make("/v1/nodes/join", {"node": "trusted"}, key=text)
    assert joined["secret_key"] == key_text(stage.services.deck.home)
    assert len(load_key(stage.services.deck.home)) == 32


async def test_any_number_of_machines_joins_a_pool_and_leaves_when_its_token_is_revoked(stage: Stage) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/nodes/tokens", {"node": "a", "pool": True})
    assert said["field"] == "pool"
    text = await token(stage, labels={"region": "eu"}, pool=True)
    joined = [
        await stage.make("/v1/nodes/join", {"node": node, "labels": {"cloud": "aws"}}, key=text)
        for node in ("i-1", "i-2")
    ]
    own = [each["token"] for each in joined]
    assert len({text, *own}) == 3
    assert joined[1]["labels"].items() >= {"region": "eu", "cloud": "aws"}.items()
    # A machine's own token is for no other, and names are taken once.
    await stage.refused(409, "join_token_used", "POST", "/v1/nodes/join", {"node": "i-3"}, key=own[0])
    await stage.refused(409, "node_exists", "POST", "/v1/nodes/join", {"node": "i-1"}, key=text)
    listed = {each["id"]: each for each in (await stage.get("/v1/nodes/tokens"))["items"]}
    (pool,) = (each for each in listed.values() if each["pool"] == each["id"])
    assert [pool["used_at"], pool["node"]] == [None, ""]
    assert {each["node"] for each in listed.values() if each["pool"] == pool["id"]} == {"", "i-1", "i-2"}
    by_hand = await token(stage, node="laptop")
    await stage.make("/v1/nodes/join", {"node": "laptop"}, key=by_hand)

    assert (await stage.ask("DELETE", "/v1/nodes/i-2")).status_code == 204
    await stage.refused(410, "node_removed", "POST", "/v1/nodes/join/look", key=own[1])
    assert (await stage.ask("DELETE", f"/v1/nodes/tokens/{pool['id']}")).status_code == 204
    for left in (text, *own):
        await stage.refused(401, "join_token_revoked", "POST", "/v1/nodes/join/look", key=left)
    assert (await stage.ask("POST", "/v1/nodes/join/look", key=by_hand)).status_code == 200

    # Launched again: its machines come back under their names, with the labels they had; nobody else's name is taken.
    await stage.ask("PATCH", "/v1/nodes/i-1", {"labels": {"region": "us"}})
    again = await token(stage, pool=True)
    await stage.make("/v1/nodes/join", {"node": "i-1"}, key=again)
    assert {n["name"]: n["labels"] for n in (await stage.get("/v1/nodes"))["items"]}["i-1"] == {"region": "us"}
    await stage.refused(409, "node_exists", "POST", "/v1/nodes/join", {"node": "i-1"}, key=again)
    await stage.refused(409, "node_exists", "POST", "/v1/nodes/join", {"node": "laptop"}, key=again)
    one = await token(stage, node="i-1")
    await stage.refused(409, "node_exists", "POST", "/v1/nodes/join", {"node": "i-1"}, key=one)


async def test_forged_expired_and_revoked_tokens_open_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for forged in ("qdj_" + "x" * 43, stage.operator_key):
        await stage.refused(401, "join_token_unknown", "POST", "/v1/nodes/join", {"node": "a"}, key=forged)
    late = await token(stage, valid_s=60)
    real = time.time_ns
    monkeypatch.setattr("storage.join_tokens.time.time_ns", lambda: real() + 61 * 10**9)
    for path in ("join", "join/look", "join/reach"):
        await stage.refused(401, "join_token_expired", "POST", f"/v1/nodes/{path}", {"node": "a"}, key=late)
    monkeypatch.undo()
    text = await token(stage)
    listed = (await stage.get("/v1/nodes/tokens"))["items"]
    assert len(listed) == 2
    assert not any(text in str(each) for each in listed)
    newest = max(listed, key=lambda each: each["created_at"])
    assert (await stage.ask("DELETE", f"/v1/nodes/tokens/{newest['id']}")).status_code == 204
    await stage.refused(401, "join_token_revoked", "POST", "/v1/nodes/join/look", key=text)
    await stage.refused(404, "unknown_join_token", "DELETE", f"/v1/nodes/tokens/{newest['id']}")
    assert (await stage.get("/v1/nodes"))["items"] == []


async def test_a_name_is_taken_once_however_many_come_at_once(stage: Stage) -> None:
    texts = [await token(stage) for _ in range(4)]
    answers = await asyncio.gather(
        *(stage.ask("POST", "/v1/nodes/join", {"node": "edge"}, key=text) for text in (*texts, texts[0]))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    tokens = await JoinTokens(stage.services.database).list()
    assert sum(each.used_at > 0 for each in tokens) == 1


async def test_the_head_tries_to_reach_the_machine(stage: Stage) -> None:
    text = await token(stage)
    nonce = "0123456789abcdef"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(nonce.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    body = {"host": "127.0.0.1", "port": port, "nonce": nonce}
    async with server:
        assert (await stage.ask("POST", "/v1/nodes/join/reach", body, key=text)).json()["reached"]
        other = {**body, "nonce": "fedcba9876543210"}
        said = (await stage.ask("POST", "/v1/nodes/join/reach", other, key=text)).json()
        assert said == {"reached": False, "detail": "something else answers there"}
    said = (await stage.ask("POST", "/v1/nodes/join/reach", body, key=text)).json()
    assert not said["reached"]
    assert "refused" in said["detail"].lower()
    wrong = {**body, "host": "edge.example"}
    assert (await stage.refused(422, "bad_input", "POST", "/v1/nodes/join/reach", wrong, key=text))["field"] == "host"
    # What only the head reaches is nobody else's business.
    for own in ("127.0.0.2", "169.254.169.254", "::1"):
        said = await stage.refused(422, "bad_input", "POST", "/v1/nodes/join/reach", {**body, "host": own}, key=text)
        assert said["field"] == "host"


async def test_a_machine_checks_itself_and_each_failure_has_its_remedy(
    stage: Stage, served: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.services.deck.ray_address = redis_url.rpartition("@")[2].removeprefix("redis://").partition("/")[0]
    head = Head(f"http://{served}", await token(stage))

    async def failing(facts: HeadFacts, address: str = "127.0.0.1") -> dict[str, Check]:
        found = await asyncio.to_thread(lambda: list(checks(head, facts, address)))
        assert len(found) == 10
        assert all(check.remedy for check in found if not check.ok)
        return {check.title: check for check in found if not check.ok}

    facts = await asyncio.to_thread(head.look)
    assert await failing(facts) == {}
    other = msgspec.structs.replace(facts, python="3.9", ray="1.0", quarterdeck="9", code="9+x")
    assert (await failing(other)).keys() == {"Python", "Ray", "Quarterdeck", "code"}
    closed = msgspec.structs.replace(facts, addresses=[Address("Redis", "127.0.0.1", 1), *facts.addresses[1:]])
    assert "does not answer" in (await failing(closed))["Redis"].detail
    assert "has no address 192.0.2.1" in (await failing(facts, "192.0.2.1"))["the way back"].detail
    real = time.time
    monkeypatch.setattr("cluster.joining.time.time", lambda: real() + 1.5)
    assert (await failing(facts))["clock"].detail.startswith("+1")
    monkeypatch.undo()
    # From another machine the head's own loopback leads nowhere.
    monkeypatch.setattr(head, "host", "192.0.2.7")
    (remedy,) = {check.remedy.partition(" (")[0] for check in (await failing(facts)).values()}
    assert remedy == "start the head with --host <its address in this network>"
    head.close()


@pytest.mark.parametrize("url", ["http://8.8.8.8:8470", "http://[2001:4860:4860::8888]:8470"])
def test_nothing_is_said_to_a_public_address_in_the_clear(url: str) -> None:
    with pytest.raises(NeedsOperator, match="in the clear") as caught:
        Head(url, "qdj_x")
    assert "https://" in caught.value.action
    Head(url.replace("http:", "https:"), "qdj_x").close()
    Head("http://100.64.0.1:8470", "qdj_x").close()


def test_a_launched_deck_keeps_its_pools_token_in_a_file_and_makes_another_once_it_is_revoked(
    stage: Stage, tmp_path: Path
) -> None:
    url, path = stage.services.deck.database_url, tmp_path / "pool-token"
    config = tmp_path / "ray_bootstrap_config.yaml"
    launched = Launched(autoscaling_config=config, pool_token=path)
    with pytest.raises(NeedsOperator, match="ray up"):
        launched.prepare(url)
    config.touch()
    launched.prepare(url)
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_text()
    launched.prepare(url)
    assert path.read_text() == first
    assert revoke_pool_token(url, path)
    assert not path.exists()
    assert not revoke_pool_token(url, path)
    path.write_text(first)
    launched.prepare(url)
    assert path.read_text() != first
    # One that was made elsewhere (a Secret of Kubernetes, say) is taken as it is, if it can be no guess.
    path.write_text("qdj_" + "k" * 43)
    launched.prepare(url)
    assert path.read_text() == "qdj_" + "k" * 43
    assert revoke_pool_token(url, path)
    path.write_text("qdj_secret")
    with pytest.raises(BadInput):
        launched.prepare(url)
    assert launched.ray_options() == [f"--autoscaling-config={config}"]
    assert Launched().ray_options() == Launched().command_options() == []
    path.unlink()
    path.mkdir()
    with pytest.raises(NeedsOperator, match="--pool-token"):
        launched.prepare(url)


async def test_a_machine_follows_a_head_that_has_another_address(
    stage: Stage, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    script = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(sys.argv[2]); time.sleep(60)"
    monkeypatch.setattr("cluster.membership.ray_start", lambda node: [sys.executable, "-c", script, str(started)])
    text = await token(stage, node="edge")
    head = Head(f"http://{served}", text)
    given = await asyncio.to_thread(head.join, "edge", {}, "127.0.0.1")
    head.close()
    old = msgspec.structs.replace(
        given,
        api_url=f"http://{served}",
        node_ip="127.0.0.1",
        ray_address="10.9.9.9:1",
        database_url="postgresql://me:pass@10.9.9.9:1/x?a=b",
        redis_url="redis://:p@10.9.9.9/0",
    )
    keep(tmp_path, old)
    member = Membership(tmp_path, old)
    try:
        assert "moved to 10.1.2.3:6380" in await asyncio.to_thread(member.watch)
        now = kept(tmp_path)
        assert now == member.given
        assert now is not None
        assert now.ray_address == "10.1.2.3:6380"
        settings = stage.services.deck
        here = [urlsplit(url).netloc.rpartition("@")[2] for url in (settings.database_url, settings.redis_url)]
        assert now.database_url == f"postgresql://me:pass@{here[0]}/x?a=b"
        assert now.redis_url == f"redis://:p@{here[1]}/0"
        for _ in range(100 * PATIENCE):
            if started.exists() and started.read_text():
                break
            await asyncio.sleep(0.1)
        assert started.read_text() == "--address=10.1.2.3:6380"
        monkeypatch.setattr(member, "_looked_at", 0.0)
        assert await asyncio.to_thread(member.watch) == ""
    finally:
        await asyncio.to_thread(member.stop)


def test_what_was_given_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    given = Given(cluster="main", node="edge", labels={}, ray_address="10.0.0.1:6380", ray_token="abc",
                  database_url="postgresql://x", redis_url="redis://y", api_url="http://z", token="qdj_1")  # fmt: skip
    keep(tmp_path, given)
    assert kept(tmp_path) == given
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "node.json": 0o600, "ray-token": 0o600,
    }  # fmt: skip
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(NeedsOperator, match="cannot be read"):
        kept(tmp_path)
    forget(tmp_path)
    assert kept(tmp_path) is None
    unit = unit_of(["/venv/bin/python", "-m", "cluster", "join", "--data-dir", "/var/lib/q d"], tmp_path, "deck")
    assert 'ExecStart=/venv/bin/python -m cluster join --data-dir "/var/lib/q d"\n' in unit
    assert "Restart=always" in unit


async def test_a_name_runs_once(stage: Stage) -> None:
    text = await token(stage)
    look = "/v1/nodes/join/look"
    # Who has not joined has no run to speak of.
    assert (await stage.ask("POST", look, {"run": "first"}, key=text)).status_code == 200
    await stage.make("/v1/nodes/join", {"node": "edge"}, key=text)
    for _ in range(2):
        assert (await stage.ask("POST", look, {"run": "first"}, key=text)).status_code == 200
    said = await stage.refused(409, "node_runs_elsewhere", "POST", look, {"run": "second"}, key=text)
    assert "edge runs already" in said["detail"]
    # Not the other's to end.
    await stage.refused(409, "node_runs_elsewhere", "POST", look, {"run": "second", "leaves": True}, key=text)
    # What only looks is not refused.
    assert (await stage.ask("POST", look, key=text)).status_code == 200
    assert (await stage.ask("POST", look, {"run": "first", "leaves": True}, key=text)).status_code == 200
    assert (await stage.ask("POST", look, {"run": "second"}, key=text)).status_code == 200


async def test_a_machine_gets_its_certificate_when_it_joins(stage: Stage, tmp_path: Path) -> None:
    deck = stage.services.deck
    deck.tls = True
    tls.make_for_head(deck.made_tls_files, "main", "head", ["10.1.2.3"])
    text = await token(stage)
    assert (await stage.ask("POST", "/v1/nodes/join/look", key=text)).json()["tls"] == "deck"
    mine = DeckSettings(data_dir=tmp_path / "edge")
    body = {"node": "edge", "address": "10.0.0.7", "certificate_request": tls.make_request(mine.made_tls_files, "edge")}
    for wrong, field in (
        ({**body, "address": "edge.example"}, "address"),
        ({**body, "address": "10.1.2.9", "certificate_request": "?"}, "certificate_request"),
    ):
        said = await stage.refused(422, "bad_input", "POST", "/v1/nodes/join", wrong, key=text)
        assert said["field"] == field
    deck.host = "10.1.2.3"
    wrong = {**body, "address": "10.1.2.3"}
    said = await stage.refused(422, "bad_input", "POST", "/v1/nodes/join", wrong, key=text)
    assert "head's own" in said["detail"]
    # Nothing of that has used the token up.
    made = await stage.make("/v1/nodes/join", body, key=text)
    keep(mine.home, msgspec.convert(made, Given))
    tls.check(mine.made_tls_files)
    assert kept(mine.home) is not None
    forget(mine.home)
    assert not mine.made_tls_files.key.exists()


async def test_with_an_authority_of_the_operators_a_machine_brings_its_certificate(
    stage: Stage, tmp_path: Path
) -> None:
    deck = stage.services.deck
    theirs = DeckSettings(data_dir=tmp_path / "theirs").made_tls_files
    tls.make_for_head(theirs, "theirs", "head", ["10.1.2.3"])
    deck.tls_cert, deck.tls_key, deck.tls_ca = str(theirs.cert), str(theirs.key), str(theirs.ca)
    text = await token(stage)
    facts = msgspec.convert((await stage.ask("POST", "/v1/nodes/join/look", key=text)).json(), HeadFacts)
    assert facts.tls == "own"
    made = await stage.make("/v1/nodes/join", {"node": "edge"}, key=text)
    assert (made["tls_ca"], made["tls_cert"]) == (theirs.ca.read_text(), "")

    def failing(**settings: str) -> list[str]:
        return [each.detail for each in tls_checks(facts, DeckSettings(**settings)) if not each.ok]

    assert failing() == ["QUARTERDECK_TLS_CERT and QUARTERDECK_TLS_KEY are not set"]
    assert failing(tls_cert=str(theirs.cert), tls_key="/nowhere") == ["there is no /nowhere"]
    assert failing(tls_cert=str(theirs.cert), tls_key=str(theirs.key)) == []
    assert list(tls_checks(msgspec.structs.replace(facts, tls=""), DeckSettings())) == []


async def test_a_member_waits_for_its_name_and_goes_on_while_the_head_is_away(
    stage: Stage, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.membership.FORGOTTEN_S", 0.5)
    monkeypatch.setattr("cluster.membership.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("cluster.membership.Child", Sleeper)
    text = await token(stage)
    made = await stage.make("/v1/nodes/join", {"node": "edge"}, key=text)
    given = msgspec.structs.replace(msgspec.convert(made, Given), api_url=f"http://{served}", token=text)
    away = msgspec.structs.replace(given, api_url="http://127.0.0.1:9")

    def play() -> None:
        first, second = Membership(tmp_path, given), Membership(tmp_path, given)
        first.start()
        with pytest.raises(NeedsOperator, match="node edge runs already"):
            second.start()
        # One that runs goes on whoever else comes, and says so once.
        first.run = "another"
        assert "runs already" in first.watch()
        assert first.watch() == ""
        assert Sleeper.started == 1
        # A head that is away is no reason not to begin.
        lonely = Membership(tmp_path, away, "127.0.0.1")
        lonely.start()
        assert lonely.watch() == ""
        assert Sleeper.started == 2
        # What has ended is begun again, ever later.
        Sleeper.alive_now = False
        assert "started again" in lonely.watch()
        assert lonely.watch() == ""
        for each in (first, second, lonely):
            each.stop()

    await asyncio.to_thread(play)
    assert (await stage.ask("DELETE", "/v1/nodes/edge")).status_code == 204

    def gone() -> None:
        removed = Membership(tmp_path, given)
        with pytest.raises(Refused, match="was removed"):
            removed.start()

    await asyncio.to_thread(gone)


class Sleeper:
    """Stands for Ray: what is tested is when it is started."""

    started = 0
    alive_now = True

    def __init__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        Sleeper.started += 1

    def alive(self) -> bool:
        return Sleeper.alive_now

    def stop(self) -> None:
        pass


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    home = tmp_path / "node's home"
    home.mkdir()
    path = tmp_path / "quarterdeck-node.service"
    path.write_text(unit_of(command_line(home), home, "root"))
    said = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    ours = [line for line in said.stderr.splitlines() if "quarterdeck" in line]
    assert ours == []
    # It would have told of a line that it does not understand.
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMode=gently"))
    said = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert "gently" in said.stderr


def test_leaving_forgets_what_was_given_but_not_under_a_machine_that_runs(tmp_path: Path) -> None:
    given = Given(cluster="main", node="edge", labels={}, token="qdj_x", ray_address="h:1", ray_token="abc",
                  tls_ca="ca", tls_cert="cert", database_url="postgresql://x", redis_url="redis://y")  # fmt: skip
    keep(tmp_path, given)

    def leave() -> tuple[int, str]:
        said = CliRunner().invoke(app, ["leave", "--data-dir", str(tmp_path)])
        return said.exit_code, said.output

    with only_one(tmp_path):
        code, _ = leave()
        assert code == 4
        assert kept(tmp_path) == given
    code, said = leave()
    assert (code, "quarterdeck nodes remove edge" in said) == (0, True)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["node.lock"]
    assert leave()[0] == 4
