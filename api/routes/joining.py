"""``/v1/nodes/tokens`` and ``/v1/nodes/join``: how a machine becomes part of the cluster.

The machine has no API key: it proves itself with its token.  What it asks before it joins uses nothing up.
"""

from __future__ import annotations

import asyncio
import platform
import time
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, InstantOrNone, Limit, Page, Shown, page_of
from api.problems import ProblemError
from api.security import FreshOperator, Operator, key_of
from api.services import Deck, Services
from api.session_door import unauthorized
from cluster import tls
from cluster.code_version import version
from cluster.joining import RESERVED_LABELS
from cluster.selectors import check_labels
from cluster.settings import DeckSettings
from storage.join_tokens import JoinToken
from storage.records import NodeRecord
from storage.secrets import key_text
from trading.errors import BadInput, Conflict, Refused, UnknownThing
from trading.ids import Nanos, NodeName, name

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])

#: A run of a machine that is not heard of for so long has ended.
RUN_S = 15.0
#: A machine that cannot be reached is given so long.
REACH_S = 5.0


class NewJoinToken(Body):
    """A token to make.  ``node`` "": the machine names itself.

    ``with_secrets`` gives the machine the key of stored secrets: without it, nothing there can log in at a broker.
    ``pool``: any number of machines can join with it, until it is revoked or has expired.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"node": "edge", "labels": {"region": "eu"}}]})

    node: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    with_secrets: bool = False
    pool: bool = False
    valid_s: int = Field(3_600, ge=60, le=7 * 86_400)


class JoinTokenShown(Shown):
    """A join token, without its text."""

    id: str
    node: str
    labels: dict[str, str]
    with_secrets: bool
    created_by: str
    created_at: Instant
    expires_at: Instant
    used_at: InstantOrNone
    revoked_at: InstantOrNone
    #: Id of the pool's token that it belongs to: its own where it is that; "" for no pool.
    pool: str


class JoinTokenMade(JoinTokenShown):
    """A new token: its text is shown this once, and what to run on the new machine."""

    token: str
    command: str


class Address(Shown):
    """Where something of the head listens."""

    what: str
    host: str
    port: int


class HeadFacts(Shown):
    """What a machine must have in common with the head, and where it has to reach."""

    at: Instant
    cluster: str
    python: str
    ray: str
    quarterdeck: str
    #: Release and digest of the code: what Ray would run on the machine must be the same.
    code: str
    #: The name that the token is for; "" where the machine names itself.
    node: str
    addresses: list[Address]
    #: `deck`: Ray encrypts with certificates of the deck's, of which a machine asks for one when it joins.
    #: `own`: with certificates that the operator brings.  Empty: it does not.
    tls: str


class Reach(Shown):
    """Whether the head reached the machine, and if not, why."""

    reached: bool
    detail: str


class Joined(Shown):
    """All that Ray and our actors need on the new machine."""

    cluster: str
    node: str
    labels: dict[str, str]
    #: What the machine proves itself with from now on.
    token: str
    ray_address: str
    ray_token: str
    database_url: str
    redis_url: str
    #: Null unless the token was made `with_secrets`.
    secret_key: str | None
    #: PEM texts of the authority and of the machine's own certificate; empty where there are none.
    tls_ca: str
    tls_cert: str
    #: Services that tell a machine its egress address, by commas.
    egress_urls: str


class ReachAsked(Body):
    """Whether the head reaches the machine: it must find ``nonce`` at this address."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"host": "10.0.0.7", "port": 40123, "nonce": "6f1ed002ab5595859014ebf0951522d9"}]
        }
    )

    host: str = Field(max_length=100)
    port: int = Field(ge=1_024, le=65_535)
    nonce: str = Field(min_length=16, max_length=100)


class JoinAsked(Body):
    """The machine that joins; ``labels`` beside those of its token.

    ``certificate_request`` (PEM) asks for a certificate of its key for ``address``, under which others reach it.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"node": "edge", "labels": {"os": "Linux"}, "address": "10.0.0.7"}]}
    )

    node: str
    labels: dict[str, str] = Field(default_factory=dict)
    address: str = Field("", max_length=100)
    certificate_request: str = Field("", max_length=10_000)


class LookAsked(Body):
    """Who looks: one run of a machine that has joined, or nobody yet.  ``leaves``: this run ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"run": "0f6e2c1a9b7d4e58"}]})

    run: str = Field("", max_length=100)
    leaves: bool = False


_bearer = HTTPBearer(auto_error=False, scheme_name="JoinToken", description="A join token: `qdj_…`")


async def _joiner(
    request: Request, deck: Deck, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> tuple[str, JoinToken]:
    text = key_of(request)
    if not text:
        raise unauthorized("give the join token: 'Authorization: Bearer qdj_…'")
    try:
        token = await deck.join_tokens.find(text)
        if not token.used_at and token.expires_at <= time.time_ns():
            raise Refused("join_token_expired", "this token has expired: make another")
    except Refused as error:
        raise ProblemError(401, error.code, "Unauthorized", error.detail, {"WWW-Authenticate": "Bearer"}) from error
    if token.used_at:
        try:
            await deck.desired.node(token.node)
        except UnknownThing as error:
            raise ProblemError(
                410, "node_removed", "Gone", f"node {token.node} was removed from the cluster"
            ) from error
    return text, token


#: A machine with a join token: its text, and what is known of it.
Joiner = Annotated[tuple[str, JoinToken], Depends(_joiner)]


@router.post("/tokens", response_model=JoinTokenMade, status_code=201)
async def create_join_token(body: NewJoinToken, request: Request, caller: FreshOperator, deck: Deck) -> JoinTokenMade:
    """A token with which a machine joins once (for a pool: any number of machines), and the command to run there."""
    if body.node:
        name(body.node, "node")
    token, text = await deck.join_tokens.create(
        NodeName(body.node),
        check_labels(body.labels),
        body.with_secrets,
        body.valid_s,
        by=caller.user,
        pool=body.pool,
    )
    command = f"quarterdeck join {str(request.base_url).rstrip('/')} --token {text}"
    return JoinTokenMade(token=text, command=command, **msgspec.structs.asdict(token))


@router.get("/tokens", response_model=Page[JoinTokenShown])
async def list_join_tokens(_: Operator, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """All tokens, without their texts."""
    return page_of(await deck.join_tokens.list(), lambda token: token.id, limit, cursor)


@router.delete("/tokens/{id}", status_code=204)
async def revoke_join_token(id: str, caller: FreshOperator, deck: Deck) -> None:
    """Make a token of no use; machines that have joined with it leave."""
    await deck.join_tokens.revoke(id, by=caller.user)


@router.post("/join/look", response_model=HeadFacts)
async def look_before_joining(joiner: Joiner, deck: Deck, request: Request, body: LookAsked | None = None) -> HeadFacts:
    """What a machine compares itself with before it joins, and where it has to reach.

    Also asked by machines that have joined, every few seconds: 410 once theirs is forgotten, 409 while another run of
    the same name is heard of.
    """
    _, token = joiner
    if token.used_at and body is not None and body.run:
        await _only_run(deck, token.node, body, request.client.host if request.client is not None else "")
    settings = deck.deck
    addresses = [
        Address(what="Ray's head", host=_host(settings.ray_address), port=_port(settings.ray_address)),
        *(
            Address(what=what, host=urlsplit(url).hostname or "", port=urlsplit(url).port or default)
            for what, url, default in (
                ("PostgreSQL", settings.database_url, 5432),
                ("Redis", settings.redis_url, 6379),
            )
        ),
    ]
    return HeadFacts(
        at=time.time_ns(),
        cluster=settings.cluster,
        python=".".join(platform.python_version_tuple()[:2]),
        ray=version("ray"),
        quarterdeck=version(),
        code=await deck.code(),
        node=token.node,
        addresses=addresses,
        tls="own" if settings.tls_cert else "deck" if settings.tls else "",
    )


async def _only_run(deck: Services, node: NodeName, asked: LookAsked, address: str) -> None:
    """One run of a name at a time, as far as Redis knows."""
    key = f"member:{node}"
    known = await deck.hot.get(key, dict[str, str])
    if known is not None and known["run"] != asked.run:
        raise Conflict("node_runs_elsewhere", f"node {node} runs already, or ended a moment ago, at {known['address']}")
    if asked.leaves:
        await deck.hot.delete(key)
    else:
        await deck.hot.put(key, {"run": asked.run, "address": address}, RUN_S)


@router.post("/join/reach", response_model=Reach)
async def reach(body: ReachAsked, request: Request, _: Joiner) -> Reach:
    """Try to reach the machine: Ray's head calls its nodes."""
    try:
        address = ip_address(body.host)
    except ValueError:
        raise BadInput("host", f"{body.host!r} is no IP address") from None
    if address.is_multicast or address.is_unspecified:
        raise BadInput("host", f"{body.host} is nobody's address")
    asker = request.client.host if request.client is not None else ""
    if (address.is_loopback or address.is_link_local) and body.host != asker:
        # What listens for the head alone, a cloud's metadata too, is not to be found out from elsewhere.
        raise BadInput("host", f"{body.host} is the head's own, not an address of the machine that asks ({asker})")
    try:
        async with asyncio.timeout(REACH_S):
            reader, writer = await asyncio.open_connection(body.host, body.port)
            try:
                found = await reader.readexactly(len(body.nonce))
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        return Reach(reached=False, detail=f"{type(error).__name__} {error}".strip())
    if found != body.nonce.encode():
        return Reach(reached=False, detail="something else answers there")
    return Reach(reached=True, detail="")


@router.post("/join", response_model=Joined, status_code=201)
async def join(body: JoinAsked, request: Request, joiner: Joiner, deck: Deck) -> Joined:
    """Register a machine.  Its token is used up, unless it is a pool's; answers with all that Ray needs there."""
    text, token = joiner
    node = name(body.node, "node")
    if token.node and node != token.node and not token.used_at:
        raise BadInput("node", f"this token is for node {token.node}")
    own = check_labels(body.labels)
    others = {key for key, value in own.items() if token.labels.get(key, value) != value}
    if claimed := sorted((own.keys() & RESERVED_LABELS) | others):
        raise BadInput("labels", f"{', '.join(claimed)} can be given by an operator only: with the token, or later")
    egress = {"egress": request.client.host} if request.client is not None else {}
    record = NodeRecord(
        name=NodeName(node), labels={**egress, **own, **token.labels}, registered_at=Nanos(time.time_ns())
    )
    # Checked before it is used up.
    settings = deck.deck
    secret = key_text(settings.home) if token.with_secrets else None
    ray_token = (settings.home / "ray-token").read_text().strip()
    tls_ca, tls_cert = await asyncio.to_thread(_certificate, settings, body)
    own_text = await deck.join_tokens.use(text, record)
    return Joined(
        cluster=settings.cluster,
        node=record.name,
        labels=record.labels,
        token=own_text,
        ray_address=settings.ray_address,
        ray_token=ray_token,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        secret_key=secret,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        egress_urls=settings.egress_urls,
    )


def _certificate(settings: DeckSettings, body: JoinAsked) -> tuple[str, str]:
    """The authority's certificate and the machine's; "" what there is not.  Raises `BadInput`."""
    files = settings.tls_files
    if files is None:
        return "", ""
    if settings.tls_cert:
        return files.ca.read_text(), ""
    try:
        address = ip_address(body.address)
    except ValueError:
        raise BadInput("address", f"{body.address!r} is no IP address, and a certificate must name one") from None
    if str(address) == settings.host and not address.is_loopback:
        raise BadInput("address", f"{address} is the head's own address")
    return files.ca.read_text(), tls.sign(files, body.certificate_request, body.node, [str(address)])


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
