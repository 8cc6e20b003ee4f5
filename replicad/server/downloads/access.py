"""Who may see a share: everybody, or whoever shows a password, a token, a signed URL or a PreStage token, and only from its networks, as its policy says.

What a client may not see looks in every respect like what does not exist: the same answer after the same work. So the answer is a challenge (401) for everything that is neither public nor allowed as
soon as any share of the network takes passwords, and 404 otherwise.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import parse_qsl

from replicad.crypto import passwords, prestage
from replicad.crypto.hashing import sha256
from replicad.model.access import check_network
from replicad.model.addresses import one_client
from replicad.model.ids import Stamp
from replicad.protocol.signed_urls import SignedUrl
from replicad.server.downloads.answers import Answer, plain
from replicad.server.downloads.clients import address_of, is_in
from replicad.server.downloads.passwords import Attempt, Passwords, TooManyGuessesError

if TYPE_CHECKING:
    from replicad.model.access import BearerToken, Network
    from replicad.model.addresses import Address
    from replicad.model.ids import Digest, NodeId
    from replicad.model.members import Member, Share
    from replicad.server.downloads.requests import Request

CHALLENGE = b'WWW-Authenticate: Basic realm="replicad", charset="UTF-8"\r\n'
TOKEN = "token"  # noqa: S105 - the name of a parameter
SHARES_TRIED_MAX = 8
"""Shares for which one request's password is tried, where a content is asked for by its hash: 200 ms at first, and less than the guesses that a client has."""
PARAMETERS_MAX = 16
_AUTHORIZATION_MAX = 4096


class Trust(Protocol):
    """Which shares there are, and who belongs to the network."""

    def shares(self) -> Mapping[str, Share]:
        """By name."""

    def members(self, now_ms: int) -> Mapping[NodeId, Member]:
        """At that time."""


class Replica(Protocol):
    """What the network says."""

    @property
    def network(self) -> NodeId:
        """Its id."""

    @property
    def trust(self) -> Trust:
        """And believes."""


class RefusedError(Exception):
    """The client may not see it, or it is not there."""


class _Basic(NamedTuple):
    user: str
    password: bytes


class _Shown(NamedTuple):
    """What a request shows, decoded."""

    basic: _Basic | None = None
    bearer: str | None = None
    url: SignedUrl | None = None
    prestage: str | None = None


class Gate:
    """``replica`` is asked afresh for each request: joining a network replaces it. ``now_s`` is wall clock time."""

    def __init__(self, replica: Callable[[], Replica], *, proxies: Sequence[Network] = (), now_s: Callable[[], float] = time.time) -> None:
        self._replica = replica
        self._proxies = proxies
        self._now_s = now_s
        self._passwords = Passwords(time.monotonic)
        self._judged: Mapping[str, Share] | None = None
        self._tokens: dict[str, dict[Digest, BearerToken]] = {}
        self._prestage_keys: frozenset[str] = frozenset()
        self._challenges = False

    async def check(self, request: Request, share: str, path_key: str) -> None:
        """Returns for whoever may see the file of that name in that share. RefusedError, TooManyGuessesError."""
        found = self._replica().trust.shares().get(share)
        if found is not None and found.public and not found.access.networks:
            return
        address = address_of(request, self._proxies)
        near = [found] if found is not None and _is_near(found, address) else []
        if any(share.public for share in near):
            return
        shown = _shown(request)
        by_url = self._has_url(share, path_key, shown.url)
        if not (near and by_url) and not await self._opened(near, shown, asked=share, client=one_client(address)):
            raise RefusedError

    def open_to(self, request: Request) -> list[str]:
        """The shares that this client may see whatever it shows."""
        address = address_of(request, self._proxies)
        return [share.name for share in self._replica().trust.shares().values() if share.public and _is_near(share, address)]

    async def opened_by(self, request: Request) -> list[str]:
        """The other shares that what this client shows lets it see, under whatever name; RefusedError if there are none, TooManyGuessesError. A signed URL is for one name."""
        address = address_of(request, self._proxies)
        near = [share for share in self._replica().trust.shares().values() if not share.public and _is_near(share, address)]
        opened = await self._opened(near, _shown(request), asked="", client=one_client(address))
        if not opened:
            raise RefusedError
        return [share.name for share in opened]

    def refusal(self, method: str) -> Answer:
        """What whoever is refused is answered."""
        self._judge()
        return plain(HTTPStatus.UNAUTHORIZED, method, extra=CHALLENGE) if self._challenges else plain(HTTPStatus.NOT_FOUND, method)

    @staticmethod
    def slow_down(error: TooManyGuessesError, method: str) -> Answer:
        """What whoever guesses too fast is answered."""
        return plain(HTTPStatus.TOO_MANY_REQUESTS, method, extra=f"Retry-After: {math.ceil(error.retry_s)}\r\n".encode())

    def _judge(self) -> None:
        """Look again at the shares if they are others than before: what follows from all of them, so that the size of one share's lists cannot be heard in its answers."""
        shares = self._replica().trust.shares()
        if shares is self._judged:
            return
        self._judged, self._challenges = shares, any(share.access.users for share in shares.values())
        self._tokens = {share.name: {token.digest: token for token in share.access.tokens.values()} for share in shares.values()}
        self._prestage_keys = frozenset(share.access.prestage for share in shares.values()) - {""}

    async def _opened(self, shares: Sequence[Share], shown: _Shown, *, asked: str, client: str) -> list[Share]:
        """Those of the shares that a token or password lets in to. The same steps are taken where there is no share, for nothing."""
        self._judge()
        found = self._by_token(shares, shown.bearer) + self._by_prestage(shares, shown.prestage)
        if not found and shown.basic is not None:
            found = await self._by_password(shares, shown.basic, asked=asked, client=client)
        return found

    def _by_token(self, shares: Iterable[Share], token: str | None) -> list[Share]:
        """Looked up by its hash, of which a stopwatch tells nothing that helps to find the token."""
        if token is None:
            return []
        digest, now = sha256(token.encode(errors="surrogatepass")), Stamp.of(int(self._now_s() * 1000))
        known = [(share, self._tokens[share.name].get(digest)) for share in shares]
        return [share for share, token in known if token is not None and (token.until is None or now <= token.until)]

    def _by_prestage(self, shares: Iterable[Share], token: str | None) -> list[Share]:
        """Compared with every key of the network, whoever's share is asked for."""
        if token is None:
            return []
        right = {key for key in self._prestage_keys if prestage.admits(key, token, now_s=self._now_s())}
        return [share for share in shares if share.access.prestage in right]

    def _has_url(self, share: str, path_key: str, url: SignedUrl | None) -> bool:
        if url is None:
            return False
        replica, now_s = self._replica(), self._now_s()
        return url.admits(replica.trust.members(int(now_s * 1000)), replica.network, share=share, path_key=path_key, now_s=now_s)

    async def _by_password(self, shares: Iterable[Share], shown: _Basic, *, asked: str, client: str) -> list[Share]:
        """Whoever has no account costs what one with a wrong password costs."""
        accounts = [(share, verifier) for share in shares if (verifier := share.access.users.get(shown.user))][:SHARES_TRIED_MAX]
        if not accounts:
            await self._passwords.are_right(Attempt(asked, shown.user, shown.password, passwords.NOBODY, client))
        return [share for share, verifier in accounts if await self._passwords.are_right(Attempt(share.name, shown.user, shown.password, verifier, client))]


def _is_near(share: Share, address: Address | None) -> bool:
    return not share.access.networks or is_in(address, _networks(share.access.networks))


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(check_network(text) for text in texts)


def _shown(request: Request) -> _Shown:
    scheme, _, rest = request.headers.get("Authorization", "")[:_AUTHORIZATION_MAX].partition(" ")
    rest = rest.strip()
    basic = _basic(rest) if scheme.lower() == "basic" else None
    bearer = rest if scheme.lower() == "bearer" else None
    said = parameters(request.raw_path)
    return _Shown(basic, bearer, SignedUrl.read(said), said.get(TOKEN))


def _basic(encoded: str) -> _Basic | None:
    """RFC 7617, with UTF-8 as the challenge says."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        return _Basic(user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def parameters(target: str) -> dict[str, str]:
    """Those of the query string, decoded; none if there are more than PARAMETERS_MAX."""
    query = target.partition("?")[2]
    try:
        return dict(parse_qsl(query, max_num_fields=PARAMETERS_MAX)) if query else {}
    except ValueError:
        return {}
