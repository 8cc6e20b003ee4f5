"""People of a provider of OpenID Connect: the authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 6749, 7636, 9207, 9700).

A login under way is kept nowhere: the browser bears a ticket, from which a key that only this process has gives state, nonce and code verifier. So strangers cannot fill anything, and a callback counts
only in the browser that began, only once, and only for some minutes. What the provider says is believed when it is signed by one of its keys, for this node, for this login, now.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet

from replicad.errors import BusyError, DistrustError, NotAllowedError, UnauthorizedError, UnreachableError
from replicad.integrations.logins import CALLBACK, TICKET_S, OidcConfig, read_secret, strongest
from replicad.model.callers import NAME_CHARS_MAX, Account, Source
from replicad.telemetry.log import get

log = get(__name__)

ALGORITHMS = ("RS256", "ES256", "Ed25519", "EdDSA")
"""Nothing without a key, and nothing whose key is a secret: a provider's public key would be one."""
USED_MAX = 4096
EXCHANGES_MAX = 16
FRESH_S = 3600.0
"""So long the provider's addresses and keys are believed without asking again."""
QUIET_S = 5.0
"""So long a provider that did not answer is not asked for them."""
ROTATION_S = 60.0
"""A key that is not known makes the keys be fetched at most so often."""
LEEWAY_S = 60
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)  # a name only: providers say it for Ed25519


class Ask(Protocol):
    """Asks the provider; see ``net.https``."""

    def check(self, url: str) -> str:
        """The URL, if it may be asked."""

    async def ask(self, url: str, *, form: Mapping[str, str] | None = None, authorization: str = "") -> bytes:
        """What is answered."""


class Begun(NamedTuple):
    """Where the browser goes, and what it must bring back."""

    url: str
    ticket: str


class _Metadata(msgspec.Struct, frozen=True):
    """OpenID Connect Discovery 1.0, section 3: what of it is needed."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Provider:
    """``clock_s`` is wall clock time, for what the provider signs; ``now_s`` is monotonic. ConfigurationError for a secret that cannot be read."""

    def __init__(self, config: OidcConfig, http: Ask, *, clock_s: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._config = config
        self._http = http
        self._clock_s = clock_s
        self._now_s = now_s
        self._secret = read_secret(config.client_secret_file, key="oidc.client_secret_file")
        self._key = os.urandom(32)
        self._used: OrderedDict[str, None] = OrderedDict()
        self._exchanges = 0
        self._turn = asyncio.Lock()
        self._metadata: _Metadata | None = None
        self._metadata_s = 0.0
        self._keys: KeySet | None = None
        self._keys_s = 0.0
        self._quiet_s = 0.0

    @property
    def is_https(self) -> bool:
        """Whether browsers reach the admin door over TLS."""
        return self._config.url.startswith("https://")

    async def begin(self) -> Begun:
        """A new login. UnreachableError("provider-unreachable")."""
        metadata = await self._described()
        ticket = f"{int(self._now_s()) + TICKET_S}.{secrets.token_urlsafe(32)}"
        query = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._config.url + CALLBACK,
            "scope": " ".join(self._config.scopes),
            "state": self._derive("state", ticket),
            "nonce": self._derive("nonce", ticket),
            "code_challenge": _encoded(hashlib.sha256(self._derive("verifier", ticket).encode()).digest()),
            "code_challenge_method": "S256",
        }
        separator = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return Begun(f"{metadata.authorization_endpoint}{separator}{urlencode(query)}", ticket)

    async def finish(self, query: Mapping[str, str], ticket: str) -> Account:
        """Who came back with this query and this ticket. UnauthorizedError("login-expired"), UnauthorizedError("wrong-login"), NotAllowedError("no-role"), UnreachableError("provider-unreachable"), BusyError."""
        self._check_ticket(query.get("state", ""), ticket)
        if query.get("iss", self._config.issuer) != self._config.issuer:
            raise _wrong("the answer is of another provider")
        if "code" not in query:
            raise _wrong(f"the provider says {query.get('error', 'nothing')[:100]!r}")
        if self._exchanges >= EXCHANGES_MAX:
            raise BusyError("too many people log in at the same time", retry_s=1.0)
        self._exchanges += 1
        try:
            token = await self._exchange(query["code"], ticket)
            return self._account(await self._claims(token, nonce=self._derive("nonce", ticket)))
        finally:
            self._exchanges -= 1

    def _check_ticket(self, state: str, ticket: str) -> None:
        """Takes it: it is good once."""
        until = ticket.partition(".")[0]
        is_ours = hmac.compare_digest(state.encode(errors="surrogatepass"), self._derive("state", ticket).encode())
        if not is_ours or int(until) < self._now_s() or ticket in self._used:
            raise UnauthorizedError(
                "this login did not begin in this browser a few minutes ago, or has ended", hint="begin again at /oidc/login", code="login-expired"
            )
        self._used[ticket] = None
        if len(self._used) > USED_MAX:
            self._used.popitem(last=False)

    def _derive(self, what: str, ticket: str) -> str:
        """43 characters that nobody can guess who lacks the key of this process."""
        return _encoded(hmac.digest(self._key, f"{what} {ticket}".encode(errors="surrogatepass"), "sha256"))

    async def _exchange(self, code: str, ticket: str) -> str:
        """The ID token that the code stands for."""
        config, metadata = self._config, await self._described()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": config.url + CALLBACK,
            "code_verifier": self._derive("verifier", ticket),
            "client_id": config.client_id,
        }
        pair = f"{quote(config.client_id, safe='')}:{quote(self._secret, safe='')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}" if self._secret else ""
        try:
            return msgspec.json.decode(await self._http.ask(metadata.token_endpoint, form=form, authorization=authorization), type=_Tokens).id_token
        except UnreachableError as error:
            if error.error_code != "refused":
                raise _unreachable(error) from None
            log.warning("the provider does not take a code", reason=error.message)
            raise _wrong("the provider does not take the code") from None
        except msgspec.DecodeError as error:
            raise _unreachable(error) from None

    async def _claims(self, token: str, *, nonce: str) -> dict[str, Any]:
        """What the token says, if it is to be believed (OpenID Connect Core 1.0, section 3.1.3.7)."""
        expected = {"iss": self._config.issuer, "aud": self._config.client_id, "nonce": nonce}
        rules: dict[str, Any] = {name: {"essential": True, "value": value} for name, value in expected.items()}
        registry = jwt.JWTClaimsRegistry(int(self._clock_s()), LEEWAY_S, exp={"essential": True}, iat={"essential": True}, sub={"essential": True}, **rules)
        try:
            keys = await self._signers(token)
            claims = jwt.decode(token, keys, registry=jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)).claims
            registry.validate(claims)
        except (JoseError, ValueError) as error:
            raise _wrong(f"the ID token is not for this login: {error}") from None
        party = claims.get("azp", None if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 else self._config.client_id)
        if party != self._config.client_id:
            raise _wrong("the ID token is not for this login: azp")
        return claims

    def _account(self, claims: Mapping[str, Any]) -> Account:
        name, groups = claims.get(self._config.name_claim), claims.get(self._config.groups_claim, [])
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX or name != name.strip():
            raise _wrong(f"the ID token names nobody: {self._config.name_claim}")
        if self._config.name_claim == "email" and claims.get("email_verified") is False:
            raise _wrong("the ID token names nobody: email is not verified")
        listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        rights = strongest(self._config.groups[group] for group in listed if isinstance(group, str) and group in self._config.groups)
        if rights is None:
            raise NotAllowedError(
                f"{name} is in no group that has a role here", hint="an admin names its groups in the configuration: [oidc.groups]", code="no-role"
            )
        return Account(name, Source.OIDC, rights.role, rights.shares)

    async def _described(self) -> _Metadata:
        """The provider's addresses, all of them where it may be asked."""
        async with self._turn:
            if self._metadata is None or self._now_s() - self._metadata_s >= FRESH_S:
                url = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
                found = await self._fetch(url, _Metadata)
                if found.issuer != self._config.issuer:
                    raise _unreachable(f"{url} calls itself {found.issuer[:200]!r}, not {self._config.issuer!r}")
                try:
                    for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                        self._http.check(address)
                except DistrustError as error:
                    raise _unreachable(f"{error.message}: [oidc] hosts names the others") from None
                self._metadata, self._metadata_s = found, self._now_s()
            return self._metadata

    async def _signers(self, token: str) -> KeySet:
        """The provider's keys; fetched again when they are old, or lack the one that the token names."""
        metadata, named = await self._described(), jws.extract_compact(token.encode()).headers().get("kid")
        async with self._turn:
            age_s = self._now_s() - self._keys_s
            known = self._keys is not None and (named is None or any(key.kid == named for key in self._keys))
            if self._keys is None or age_s >= FRESH_S or (not known and age_s >= ROTATION_S):
                self._keys = KeySet.import_key_set(await self._fetch(metadata.jwks_uri, dict))
                self._keys_s = self._now_s()
            return self._keys

    async def _fetch(self, url: str, kind: type[Any]) -> Any:
        if self._now_s() < self._quiet_s:
            raise _unreachable("it did not answer a moment ago")
        try:
            return msgspec.json.decode(await self._http.ask(url), type=kind)
        except (UnreachableError, msgspec.DecodeError) as error:
            self._quiet_s = self._now_s() + QUIET_S
            raise _unreachable(error) from None


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _wrong(message: str) -> UnauthorizedError:
    return UnauthorizedError(message, hint="begin again at /oidc/login", code="wrong-login")


def _unreachable(reason: object) -> UnreachableError:
    """The reason is the operator's, not the stranger's."""
    log.warning("the provider cannot be asked", reason=str(reason))
    return UnreachableError("the provider cannot be asked now; users of this node can log in", code="provider-unreachable", hint="the daemon's log says why")
