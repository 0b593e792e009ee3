"""The WebSocket client against a server of the `websockets` library: what feeds rely on."""

from __future__ import annotations

import asyncio
import http
import pickle

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from connectors import transport
from tests.connectors.support import until
from trading.errors import BadInput, NotReady, Unreachable

LARGE = bytes(range(256)) * 3_000


async def test_whole_text_and_binary_messages_come_in_order_whatever_their_size() -> None:
    messages: list[str | bytes] = ["{}", b"\x00", "x" * 200, b"\x01" * 126, LARGE, b"", "y" * 70_000, b"end"]
    got: list[bytes] = []
    seen: list[str | None] = []

    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("X-Kite-Version"))
        for message in messages:
            await connection.send(message)
        # In pieces: the library's own way of fragmenting.
        await connection.send([b"pie", b"ces"])
        await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        socket = await transport.connect(
            f"ws://127.0.0.1:{port}/", got.extend, lambda reason: None, headers={"X-Kite-Version": "3"}
        )
        await until(lambda: len(got) == len(messages) + 1, what="all messages")
        await socket.close()
    assert got == [m.encode() if isinstance(m, str) else m for m in messages] + [b"pieces"]
    assert seen == ["3"]


@pytest.mark.parametrize("status", [403, 404, 429, 500])
async def test_a_refused_handshake_tells_its_status_and_not_the_address(status: int) -> None:
    async def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(http.HTTPStatus(status), "no\n")

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(transport.HandshakeRefused) as caught:
            await transport.connect(f"ws://127.0.0.1:{port}/?token=SECRET", lambda got: None, lambda reason: None)
    error = caught.value
    assert (error.status, error.target) == (status, "127.0.0.1")
    assert isinstance(error, Unreachable)
    assert "SECRET" not in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), twin.args, vars(twin)) == (type(error), str(error), error.args, vars(error))


async def test_a_refusal_with_a_time_is_not_ready_until_then() -> None:
    async def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "later\n")
        response.headers["Retry-After"] = "7"
        return response

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotReady) as caught:
            await transport.connect(f"ws://127.0.0.1:{port}/", lambda got: None, lambda reason: None)
    assert caught.value.retry_after == 7.0


async def test_an_address_that_is_none_is_refused_without_its_secrets() -> None:
    with pytest.raises(BadInput) as caught:
        await transport.connect("http://x/?token=SECRET", lambda got: None, lambda reason: None)
    assert "SECRET" not in str(caught.value)


async def test_nobody_listening_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        await asyncio.wait_for(transport.connect("ws://127.0.0.1:1/", lambda got: None, lambda reason: None), 5)
