"""``rediss://`` and ``sslmode``: stores over TLS, the server checked by the authority that the URL names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster import tls
from cluster.settings import DeckSettings, TlsFiles
from storage.bus import Bus
from storage.database import Database
from storage.hot import Hot
from trading.errors import NotReady


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    made = DeckSettings(data_dir=tmp_path_factory.mktemp("tls")).made_tls_files
    tls.make_for_head(made, "main", "server", ["127.0.0.1"])
    return made


#: What a PostgreSQL client sends to ask for TLS (protocol 3.0, SSLRequest).
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


async def terminator(url: str, files: TlsFiles, *, asks_first: bool) -> tuple[asyncio.Server, int]:
    """The real server behind a terminator of TLS, as stunnel is one.  ``asks_first``: as PostgreSQL's clients do."""
    plain = urlsplit(url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asks_first:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                assert await reader.readexactly(8) == SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(context)
        inner_reader, inner_writer = await asyncio.open_connection(plain.hostname, plain.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(through, "127.0.0.1", 0, ssl=None if asks_first else context)
    return server, server.sockets[0].getsockname()[1]


@pytest.fixture
async def secure_url(redis_url: str, files: TlsFiles) -> AsyncIterator[str]:
    """Redis; without the authority's file."""
    server, port = await terminator(redis_url, files, asks_first=False)
    yield f"rediss://:{urlsplit(redis_url).password}@127.0.0.1:{port}/0"
    server.close()


@pytest.fixture
async def secure_database_url(database_url: str, files: TlsFiles) -> AsyncIterator[str]:
    """PostgreSQL; without the authority's file."""
    server, port = await terminator(database_url, files, asks_first=True)
    parts = urlsplit(database_url)
    yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}?sslmode=verify-full"
    server.close()


@pytest.fixture
def stranger(tmp_path: Path) -> TlsFiles:
    """Of another authority."""
    made = DeckSettings(data_dir=tmp_path).made_tls_files
    tls.make_for_head(made, "other", "server", ["127.0.0.1"])
    return made


async def test_the_database_is_reached_over_tls_and_checked(
    secure_database_url: str, files: TlsFiles, stranger: TlsFiles
) -> None:
    database = Database(f"{secure_database_url}&sslrootcert={files.ca}")
    await database.open()
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM nodes")
        assert await cursor.fetchone() == (0,)
        assert connection.pgconn.ssl_in_use
    await database.close()
    with pytest.raises(NotReady, match="certificate"):
        await Database(f"{secure_database_url}&sslrootcert={stranger.ca}").open()


async def test_hot_state_and_bus_go_over_tls(secure_url: str, files: TlsFiles) -> None:
    url = f"{secure_url}?ssl_ca_certs={files.ca}"
    hot, bus = Hot(url), Bus(url)
    try:
        await hot.put("tls", {"a": 1}, 60)
        assert await hot.get("tls", dict[str, int]) == {"a": 1}
        subscription = await bus.subscribe(["secret"])
        assert await bus.publish("secret", b"x" * 200_000) == 1
        async with asyncio.timeout(20):
            assert await anext(aiter(subscription)) == ("secret", b"x" * 200_000)
        await subscription.close()
    finally:
        await bus.close()
        await hot.close()


async def test_a_redis_that_nobody_vouches_for_is_refused(secure_url: str, stranger: TlsFiles) -> None:
    for url in (secure_url, f"{secure_url}?ssl_ca_certs={stranger.ca}", f"{secure_url}?ssl_ca_certs=/nowhere"):
        bus, hot = Bus(url), Hot(url)
        with pytest.raises(NotReady):
            await bus.publish("secret", b"x")
        with pytest.raises(NotReady):
            await hot.put("tls", 1, 60)
        await bus.close()
        await hot.close()
