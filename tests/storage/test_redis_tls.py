"""``rediss://``: hot state and bus over TLS, the server checked by the authority that the URL names."""

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
from storage.hot import Hot
from trading.errors import NotReady


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    made = DeckSettings(data_dir=tmp_path_factory.mktemp("tls")).made_tls_files
    tls.make_for_head(made, "main", "redis", ["127.0.0.1"])
    return made


@pytest.fixture
async def secure_url(redis_url: str, files: TlsFiles) -> AsyncIterator[str]:
    """The real Redis behind a terminator of TLS, as stunnel is one; without the authority's file."""
    plain = urlsplit(redis_url)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(plain.hostname, plain.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    server = await asyncio.start_server(through, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield f"rediss://:{plain.password}@127.0.0.1:{port}/0"
    server.close()


async def test_hot_state_and_bus_go_over_tls(secure_url: str, files: TlsFiles) -> None:
    url = f"{secure_url}?ssl_ca_certs={files.ca}"
    hot, bus = Hot(url), Bus(url)
    try:
        await hot.put("tls", {"a": 1}, 60)
        assert await hot.get("tls", dict[str, int]) == {"a": 1}
        subscription = await bus.subscribe(["secret"])
        assert await bus.publish("secret", b"x" * 200_000) == 1
        async with asyncio.timeout(10):
            assert await anext(aiter(subscription)) == ("secret", b"x" * 200_000)
        await subscription.close()
    finally:
        await bus.close()
        await hot.close()


async def test_a_server_that_nobody_vouches_for_is_refused(secure_url: str, tmp_path: Path) -> None:
    other = DeckSettings(data_dir=tmp_path).made_tls_files
    tls.make_for_head(other, "other", "redis", ["127.0.0.1"])
    for url in (secure_url, f"{secure_url}?ssl_ca_certs={other.ca}", f"{secure_url}?ssl_ca_certs=/nowhere"):
        bus, hot = Bus(url), Hot(url)
        with pytest.raises(NotReady):
            await bus.publish("secret", b"x")
        with pytest.raises(NotReady):
            await hot.put("tls", 1, 60)
        await bus.close()
        await hot.close()
