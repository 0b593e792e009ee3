from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage import postgres_user
from storage.database import Database, check_postgres
from storage.embedded import EmbeddedPostgres, EmbeddedRedis
from storage.hot import Hot, check_redis
from storage.server_process import ServerProcess
from tests.support.patience import PATIENCE
from trading.errors import NeedsOperator, NotReady

KINDS = (EmbeddedPostgres, EmbeddedRedis)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.label)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    made: ServerProcess = request.param(tmp_path / "deck")
    yield made
    made.stop()


async def ask(server: ServerProcess) -> None:
    """Raise unless the server answers at its URL."""
    if isinstance(server, EmbeddedPostgres):
        await check_postgres(server.url)
    else:
        await check_redis(server.url)


async def test_start_is_idempotent_and_answers(server: ServerProcess) -> None:
    assert not server.alive()
    with pytest.raises(NotReady, match="not been started"):
        _ = server.url
    url = server.start()
    pid = server.pid
    assert server.start() == url == server.url
    assert server.pid == pid
    assert server.alive()
    await ask(server)
    server.stop()
    assert not server.alive()
    server.stop()


async def test_the_url_is_the_same_after_a_restart(server: ServerProcess) -> None:
    url = server.start()
    server.stop()
    assert server.start() == url
    await ask(server)


def test_a_running_server_is_adopted_and_can_be_stopped_by_its_finder(server: ServerProcess) -> None:
    url = server.start()
    finder = type(server)(server.data_dir)
    assert finder.alive()
    assert finder.start() == url
    assert finder.pid == server.pid
    finder.stop()
    assert not server.alive()


async def test_a_killed_server_starts_again_beside_its_stale_pid_file(server: ServerProcess) -> None:
    url = server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5 * PATIENCE
    while server.alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server._pid_file().exists()
    assert server.start() == url
    assert server.pid != pid
    await ask(server)


async def test_a_pid_file_that_names_somebody_else_is_stale(server: ServerProcess) -> None:
    url = server.start()
    server.stop()
    # Our own process id: alive, and surely not this server.
    server._pid_file().write_text(f"{os.getpid()}\n{server._work_dir()}\n0\n1\n\n\n")
    assert not server.alive()
    assert server.start() == url
    await ask(server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_in_use_is_named(kind: type[ServerProcess], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = kind(tmp_path, port=port)
        with pytest.raises(NeedsOperator, match=rf"port {port} on 127.0.0.1 is in use"):
            server.start()
        assert not server.alive()
    assert f":{port}/" in server.start()
    server.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_directory_that_cannot_be_written_is_named(kind: type[ServerProcess], tmp_path: Path) -> None:
    # Root may write everywhere, so for root a file stands where the directory should be.
    blocked = tmp_path / "blocked"
    if os.geteuid() == 0:
        blocked.write_text("in the way")
    else:
        blocked.mkdir(mode=0o500)
    with pytest.raises(NeedsOperator, match="blocked") as caught:
        kind(blocked / "deck").start()
    assert "--data-dir" in caught.value.action


def test_passwords_are_readable_by_their_owner_only(server: ServerProcess) -> None:
    server.start()
    mode = stat.S_IMODE((server.root / "password").stat().st_mode)
    assert mode == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


async def test_a_wrong_password_needs_the_operator_and_is_not_shown(server: ServerProcess) -> None:
    url = server.start()
    password = (server.root / "password").read_text().strip()
    wrong = url.replace(password, "wrongpass")
    check = check_postgres if isinstance(server, EmbeddedPostgres) else check_redis
    with pytest.raises(NeedsOperator, match="refuses us") as caught:
        await check(wrong)
    assert "wrongpass" not in str(caught.value)


async def test_an_absent_server_is_not_ready_and_named_without_its_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(NotReady, match=f"PostgreSQL at 127.0.0.1:{port}") as caught:
            await check_postgres(f"postgresql://me:hidden@127.0.0.1:{port}/x")
        assert "hidden" not in str(caught.value)
        with pytest.raises(NotReady, match=f"Redis at 127.0.0.1:{port}") as caught:
            await check_redis(f"redis://:hidden@127.0.0.1:{port}/0")
        assert "hidden" not in str(caught.value)
        with pytest.raises(NotReady, match=f"PostgreSQL at 127.0.0.1:{port}"):
            await Database(f"postgresql://me:hidden@127.0.0.1:{port}/x").open()


async def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    begun = time.monotonic()
    try:
        with pytest.raises(NotReady, match="PostgreSQL"):
            await check_postgres(f"postgresql://me:x@127.0.0.1:{port}/x")
        with pytest.raises(NotReady, match="Redis"):
            await check_redis(f"redis://127.0.0.1:{port}/0")
    finally:
        silent.close()
    assert time.monotonic() - begun < 15 * PATIENCE


async def test_urls_that_are_none_need_the_operator() -> None:
    with pytest.raises(NeedsOperator, match="DATABASE_URL"):
        await check_postgres("nonsense")
    with pytest.raises(NeedsOperator, match="REDIS_URL"):
        await check_redis("nonsense://x")


async def test_a_server_outlives_its_starter_and_its_ctrl_c(server: ServerProcess) -> None:
    script = (
        "import signal, sys, time, pathlib\n"
        # A test that was started in the background ignores it, and so would what it starts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from storage.embedded import EmbeddedPostgres, EmbeddedRedis\n"
        f"print({type(server).__name__}(pathlib.Path({str(server.data_dir)!r})).start(), flush=True)\n"
        "time.sleep(60)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path.cwd(),
    )
    try:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        # What a terminal does on Ctrl-C: the signal goes to the whole process group.
        os.killpg(starter.pid, signal.SIGINT)
        starter.wait(10 * PATIENCE)
    finally:
        starter.kill()
        starter.wait(10)
        starter.stdout.close()
    assert server.alive()
    assert server.start() == url
    await ask(server)


async def test_racing_starts_share_one_server(server: ServerProcess) -> None:
    others = [type(server)(server.data_dir) for _ in range(3)]
    urls = await asyncio.gather(*(asyncio.to_thread(each.start) for each in (server, *others)))
    assert len(set(urls)) == 1
    assert len({each.pid for each in (server, *others)}) == 1


async def test_what_is_committed_survives_kill_9_and_the_pool_recovers(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    db = Database(server.start(), size=2, role="")
    try:
        await db.open()
        async with db.connection() as connection:
            assert await (await connection.execute("SHOW fsync")).fetchone() == ("on",)
            await connection.execute("CREATE TABLE kept (n int)")
        acknowledged = 0

        async def insert() -> None:
            nonlocal acknowledged
            while True:
                async with db.connection() as connection:
                    await connection.execute("INSERT INTO kept VALUES (%s)", (acknowledged + 1,))
                acknowledged += 1

        writer = asyncio.create_task(insert())
        async with asyncio.timeout(20):
            while acknowledged <= 10 and not writer.done():
                await asyncio.sleep(0.01)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        # Its workers may serve what is under way for a moment longer; then each use fails in bounded time.
        with pytest.raises(NotReady, match="PostgreSQL at 127"):
            await asyncio.wait_for(writer, 8 * PATIENCE)
        # Long enough for a pool with growing pauses to fall asleep; meanwhile many calls fail at once.
        begun = time.monotonic()
        quick = 0
        while time.monotonic() - begun < 3 * PATIENCE:
            asked = time.monotonic()
            with pytest.raises(NotReady):
                async with db.connection():
                    pass
            assert time.monotonic() - asked < 3 * PATIENCE
            quick += time.monotonic() - asked < 0.05
            await asyncio.sleep(0.02)
        assert quick >= 10
        await asyncio.to_thread(server.start)
        begun = time.monotonic()
        while True:
            try:
                async with db.connection() as connection:
                    rows = await (await connection.execute("SELECT n FROM kept ORDER BY n")).fetchall()
                break
            except NotReady:
                assert time.monotonic() - begun < 2 * PATIENCE
        # The last insert may stand though its answer was lost; none that was answered may be missing.
        kept = [row[0] for row in rows]
        assert kept in (list(range(1, acknowledged + 1)), list(range(1, acknowledged + 2)))
        assert time.monotonic() - begun < 2 * PATIENCE
    finally:
        await db.close()
        server.stop()


async def test_idle_connections_that_died_with_the_server_are_not_handed_out(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    db = Database(server.start(), size=2, role="")
    try:
        await db.open()
        async with db.connection() as one, db.connection() as two:
            await asyncio.gather(one.execute("SELECT 1"), two.execute("SELECT 1"))
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        async with db.connection() as one, db.connection() as two:
            await asyncio.gather(one.execute("SELECT 1"), two.execute("SELECT 1"))
    finally:
        await db.close()
        server.stop()


async def test_hot_state_recovers_when_redis_was_killed(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    hot = Hot(server.start())
    try:
        await hot.put("a", 1, 60)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(NotReady, match="Redis at 127"):
            await hot.get("a", int)
        await asyncio.to_thread(server.start)
        assert await hot.get("a", int) is None
        await hot.put("a", 2, 60)
        assert await hot.get("a", int) == 2
    finally:
        await hot.close()
        server.stop()


def test_postgres_takes_tcp_only_with_a_password(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    url = server.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            settings = dict(
                connection.execute(
                    "SELECT name, setting FROM pg_settings WHERE name IN "
                    "('fsync', 'synchronous_commit', 'max_connections', 'unix_socket_directories')"
                ).fetchall()
            )
        assert settings == {
            "fsync": "on",
            "synchronous_commit": "on",
            "max_connections": "200",
            "unix_socket_directories": "",
        }
        rules = (tmp_path / "postgres" / "data" / "pg_hba.conf").read_text()
        assert all(line.endswith("scram-sha-256") for line in rules.splitlines())
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")
async def test_root_runs_postgres_from_an_installation_that_is_shut_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = postgres_user._wheel()
    shut = tmp_path / "shut" / "site-packages"
    shut.parent.mkdir(mode=0o700)
    shutil.copytree(wheel / "pginstall18", shut / wheel.name / "pginstall18", symlinks=True)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    shutil.copytree(libraries, shut / libraries.name, symlinks=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        monkeypatch.setattr(postgres_user, "_wheel", lambda: shut / wheel.name)
        monkeypatch.setattr(postgres_user, "SHARED", Path(place) / "cache")
        server = EmbeddedPostgres(tmp_path / "deck")
        try:
            server.start()
            await check_postgres(server.url)
            # One whole copy, and no half one beside it.
            (copy,) = (Path(place) / "cache").iterdir()
            assert copy.name.startswith(f"{wheel.name}-")
        finally:
            server.stop()
    assert shut.parent.stat().st_mode & 0o777 == 0o700
