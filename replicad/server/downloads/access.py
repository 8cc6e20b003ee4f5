"""Who may see a share: everybody, or whoever shows a password, a token, a signed URL or a PreStage token, and only from its networks, as its policy says.

What a client may not see looks in every respect like what does not exist: the same answer after the same work. So the answer is a challenge (401) for everything that is neither public nor allowed as
soon as any share of the network takes passwords, and 404 otherwise.
"""

from __future__ import annotations

import base64
import binascii
import hmac
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
from replicad.model.ids import Stamp
from replicad.model.members import Share
from replicad.protocol.signed_urls import SignedUrl
from replicad.server.downloads.answers import Answer, plain
from replicad.server.downloads.clients import address_of, is_in, one_client
from replicad.server.downloads.passwords import Attempt, Passwords, TooManyGuessesError

if TYPE_CHECKING:
    from replicad.model.access import Network
    from replicad.model.ids import NodeId
    from replicad.model.members import Member
    from replicad.server.downloads.requests import Request

CHALLENGE = b'WWW-Authenticate: Basic realm="replicad", charset="UTF-8"\r\n'
TOKEN = "token"  # noqa: S105 - the name of a parameter
SHARES_TRIED_MAX = 4
"""Shares of one content for which one request's password is tried."""
PARAMETERS_MAX = 16
_AUTHORIZATION_MAX = 4096
_NOBODYS = Share("", public=False, immutable=False, stages=(), created=Stamp(0))
"""In the place of a share that does not exist: it is refused by the same steps."""


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
        self._challenges = False

    async def check(self, request: Request, share: str, path_key: str) -> None:
        """Returns for whoever may see the file of that name in that share. RefusedError, TooManyGuessesError."""
        found = self._replica().trust.shares().get(share)
        if found is not None and found.public and not found.access.networks:
            return
        await self._check_private(request, [found or _NOBODYS], asked=share, path_key=path_key)

    async def check_any(self, request: Request, shares: Iterable[str]) -> None:
        """The same for what is in several shares, under whatever name: one of them is enough."""
        known = self._replica().trust.shares()
        found = [known[share] for share in shares if share in known]
        if not any(share.public and not share.access.networks for share in found):
            await self._check_private(request, found or [_NOBODYS], asked="", path_key=None)

    def refusal(self, method: str) -> Answer:
        """What whoever is refused is answered."""
        shares = self._replica().trust.shares()
        if shares is not self._judged:
            self._judged, self._challenges = shares, any(share.access.users for share in shares.values())
        return plain(HTTPStatus.UNAUTHORIZED, method, extra=CHALLENGE) if self._challenges else plain(HTTPStatus.NOT_FOUND, method)

    @staticmethod
    def slow_down(error: TooManyGuessesError, method: str) -> Answer:
        """What whoever guesses too fast is answered."""
        return plain(HTTPStatus.TOO_MANY_REQUESTS, method, extra=f"Retry-After: {math.ceil(error.retry_s)}\r\n".encode())

    async def _check_private(self, request: Request, shares: Sequence[Share], *, asked: str, path_key: str | None) -> None:
        address = address_of(request, self._proxies)
        near = [share for share in shares if not share.access.networks or is_in(address, _networks(share.access.networks))]
        if any(share.public for share in near):
            return
        shown = _shown(request)
        if self._has_token(near, shown.bearer) or self._is_prestage(near, shown.prestage) or self._has_url(near, shown.url, path_key):
            return
        if shown.basic is not None and await self._has_password(near, shown.basic, asked=asked, client=one_client(address)):
            return
        raise RefusedError

    def _has_token(self, shares: Iterable[Share], token: str | None) -> bool:
        if token is None:
            return False
        digest, now = sha256(token.encode(errors="surrogatepass")), Stamp.of(int(self._now_s() * 1000))
        return any(
            hmac.compare_digest(known.digest, digest) and (known.until is None or now <= known.until)
            for share in shares
            for known in share.access.tokens.values()
        )

    def _is_prestage(self, shares: Iterable[Share], token: str | None) -> bool:
        return token is not None and any(share.access.prestage and prestage.admits(share.access.prestage, token, now_s=self._now_s()) for share in shares)

    def _has_url(self, shares: Iterable[Share], url: SignedUrl | None, path_key: str | None) -> bool:
        if url is None or path_key is None:
            return False
        replica, now_s = self._replica(), self._now_s()
        members = replica.trust.members(int(now_s * 1000))
        return any(url.admits(members, replica.network, share=share.name, path_key=path_key, now_s=now_s) for share in shares)

    async def _has_password(self, shares: Iterable[Share], shown: _Basic, *, asked: str, client: str) -> bool:
        """Whoever has no account costs what one with a wrong password costs."""
        accounts = [(share.name, verifier) for share in shares if (verifier := share.access.users.get(shown.user))]
        for share, verifier in accounts[:SHARES_TRIED_MAX] or [(asked, passwords.NOBODY)]:
            if await self._passwords.are_right(Attempt(share, shown.user, shown.password, verifier, client)):
                return True
        return False


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
