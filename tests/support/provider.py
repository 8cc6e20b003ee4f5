"""A provider of OpenID Connect for tests: a real server over TLS on loopback that signs with real keys, knows one client, and can be told to cheat."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import trustme
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

CLIENT_ID = "replicad"
CLIENT_SECRET = "s3cret/+:"
PATH = "/realms/office"
Twist = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes header and claims before they are signed."""


def new_key(algorithm: str, kid: str) -> Key:
    """A key pair for this algorithm."""
    parameters = {"kid": kid, "alg": algorithm, "use": "sig"}
    if algorithm == "RS256":
        return RSAKey.generate_key(2048, parameters)
    return ECKey.generate_key("P-256", parameters) if algorithm == "ES256" else OKPKey.generate_key("Ed25519", parameters)


@dataclass
class TestProvider:
    """``asked`` counts requests by the last part of their path. ``encode`` makes the ID token of header and claims; ``description`` overrides what discovery says."""

    __test__ = False

    issuer: str
    ca: Path
    keys: list[Key]
    twist: Twist = lambda _header, _claims: None
    encode: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
    description: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Callable[[], web.StreamResponse]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "7f3a", "preferred_username": "jane", "groups": ["staff", "packagers"]})

    @property
    def host(self) -> str:
        return urlsplit(self.issuer).netloc

    def authorize(self, url: str) -> dict[str, str]:
        """The person logs in at this address and agrees; the query with which the browser is sent back."""
        query = dict(parse_qsl(urlsplit(url).query, strict_parsing=True))
        assert url.startswith(f"{self.issuer}/auth?")
        assert (query["response_type"], query["client_id"], query["code_challenge_method"]) == ("code", CLIENT_ID, "S256")
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return {"code": code, "state": query["state"], "iss": self.issuer}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition("/")[2]
        self.asked[what] = self.asked.get(what, 0) + 1
        if what in self.answers:
            return self.answers[what]()
        if what == "openid-configuration":
            endpoints = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
            return web.json_response({"issuer": self.issuer, **{name: f"{self.issuer}/{path}" for name, path in endpoints.items()}} | self.description)
        if what == "jwks":
            return web.json_response(KeySet(self.keys).as_dict())
        return await self._token(request)

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        client, _, secret = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
        login = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        is_right = (
            login is not None
            and request.method == "POST"
            and (unquote(client), unquote(secret)) == (CLIENT_ID, CLIENT_SECRET)
            and form["grant_type"] == "authorization_code"
            and login["code_challenge"] == challenge
            and login["redirect_uri"] == form["redirect_uri"]
        )
        if login is None or not is_right:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now_s = int(time.time())
        key = self.keys[-1]
        header: dict[str, Any] = {"alg": key.as_dict()["alg"], "kid": key.kid}
        claims: dict[str, Any] = {"iss": self.issuer, "aud": CLIENT_ID, "exp": now_s + 300, "iat": now_s, "nonce": login["nonce"], **self.person}
        self.twist(header, claims)
        token = self.encode(header, claims) if self.encode else jwt.encode(header, claims, key, algorithms=[header["alg"]])
        return web.json_response({"access_token": "unused", "token_type": "Bearer", "id_token": token})


@contextlib.asynccontextmanager
async def running(folder: Path, *, algorithm: str = "ES256") -> AsyncIterator[TestProvider]:
    """A provider on a port of its own, with one key."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)
    provider = TestProvider("", folder / "ca.pem", [new_key(algorithm, "first")])
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", provider.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        provider.issuer = f"https://localhost:{runner.addresses[0][1]}{PATH}"
        yield provider
    finally:
        await runner.cleanup()
