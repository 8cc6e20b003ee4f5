"""Logging in at a provider of OpenID Connect: there and back through a real door and a real provider over TLS, and every lie that a provider, a stranger or another browser can tell."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from replicad.errors import ConfigurationError, ReplicadError, UnauthorizedError, UnreachableError
from replicad.integrations import oidc
from replicad.integrations.logins import OidcConfig, Rights
from replicad.integrations.oidc import Provider
from replicad.model.callers import AccessRole, Account, Source
from replicad.net.https import Https, verified_context
from support import provider as providers
from support.admin_door import Door, Reply, opened
from support.provider import TestProvider, new_key

URL = "https://ams1.example.org:8441"
GROUPS = {
    "packagers": Rights(AccessRole.PUBLISHER, frozenset({"munki"})),
    "mac": Rights(AccessRole.PUBLISHER, frozenset({"jamf"})),
    "root": Rights(AccessRole.ADMIN),
}


@dataclass
class World:
    """A provider and the node's half of a login, without a door; and the time that passes for the node."""

    provider: TestProvider
    config: OidcConfig
    login: Provider
    late_s: float = 0.0

    async def log_in(self) -> Account:
        begun = await self.login.begin()
        return await self.login.finish(self.provider.authorize(begun.url), begun.ticket)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with providers.running(tmp_path) as provider:
        (tmp_path / "secret").write_text(f"{providers.CLIENT_SECRET}\n")
        config = OidcConfig(provider.issuer, providers.CLIENT_ID, URL, GROUPS, client_secret_file=tmp_path / "secret", ca=provider.ca)
        async with Https.open(frozenset({provider.host}), tls=verified_context(config.ca, key="oidc.ca")) as http:
            login = Provider(config, http, clock_s=lambda: time.time() + found.late_s, now_s=lambda: time.monotonic() + found.late_s)
            found = World(provider, config, login)
            yield found


@dataclass
class Browser:
    """What a browser does at the door."""

    door: Door

    async def visit(self, path: str, *, ticket: str = "") -> Reply:
        cookie = f"Cookie: replicad_login={ticket}\r\n" if ticket else ""
        return await self.door.send(f"GET {path} HTTP/1.1\r\nHost: ams1.example.org:8441\r\nConnection: close\r\n{cookie}\r\n".encode(), over_tcp=True)

    async def begin(self) -> tuple[str, str]:
        """Where it is sent, and the ticket that it bears."""
        reply = await self.visit("/oidc/login")
        assert reply.status == 303, reply.body
        cookie = SimpleCookie(reply.cookies[0])["replicad_login"]
        assert (cookie["httponly"], cookie["samesite"], cookie["secure"], cookie["path"]) == (True, "Lax", True, "/")
        return reply.headers["location"], cookie.value

    async def back(self, query: dict[str, str], ticket: str) -> Reply:
        return await self.visit(f"/oidc/callback?{urlencode(query)}", ticket=ticket)


@pytest.fixture
async def browser(world: World, tmp_path: Path) -> AsyncIterator[Browser]:
    async with opened(tmp_path / "data", provider=world.login) as door:
        yield Browser(door)


@contextlib.contextmanager
def refused(code: str, words: str = "") -> Iterator[None]:
    with pytest.raises(ReplicadError) as caught:
        yield
    assert caught.value.error_code == code, caught.value.message
    assert words in caught.value.message


async def test_there_and_back(world: World, browser: Browser) -> None:
    url, ticket = await browser.begin()
    query = world.provider.authorize(url)
    reply = await browser.back(query, ticket)
    assert (reply.status, reply.headers["location"], reply.headers["cache-control"]) == (303, "/ui/", "no-store")
    cookies = SimpleCookie("; ".join(cookie.partition(";")[0] for cookie in reply.cookies))
    assert cookies["replicad_login"].value == ""
    [session] = [SimpleCookie(cookie)["__Host-replicad"] for cookie in reply.cookies if cookie.startswith("__Host-replicad=")]
    assert (session["httponly"], session["samesite"], session["secure"], session["path"]) == (True, "Strict", True, "/")
    who = (await browser.door.ask("GET", "/whoami", headers={"Cookie": f"__Host-replicad={session.value}"}, over_tcp=True)).json
    assert (who["name"], who["role"], who["shares"], who["via"]) == ("user jane (oidc)", "publisher", ["munki"], "cookie")

    again = await browser.back(query, ticket)
    assert (again.status, again.json["code"], again.cookies) == (401, "login-expired", ())
    actions = [action for action in (await browser.door.ask("GET", "/audit/log")).json["actions"] if action["target"] == "/oidc/callback"]
    assert [(action["caller"], action["method"], action["status"], action["code"]) for action in actions] == [
        ("user jane (oidc)", "GET", 303, ""),
        ("", "GET", 401, "login-expired"),
    ]
    assert query["code"] not in str(actions)


async def test_refusals_at_the_door(world: World, browser: Browser) -> None:
    """Each is a problem document, and begins no session."""
    url, ticket = await browser.begin()
    twice = await browser.visit(f"/oidc/callback?{urlencode(world.provider.authorize(url))}&state=x", ticket=ticket)
    world.provider.twist = _set(groups=["staff"])
    no_role = await browser.back(world.provider.authorize(url), ticket)
    no_browser = await browser.back(world.provider.authorize(url), "")
    world.provider.answers["openid-configuration"] = lambda: web.Response(status=500)
    world.late_s = 4000.0
    down = await browser.visit("/oidc/login")
    replies = (twice, no_role, no_browser, down)
    assert [(reply.status, reply.json["code"], reply.cookies) for reply in replies] == [
        (400, "bad-input", ()),
        (403, "no-role", ()),
        (401, "login-expired", ()),
        (503, "provider-unreachable", ()),
    ]
    assert all(reply.headers["content-type"] == "application/problem+json" for reply in replies)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_each_kind_of_key(world: World, algorithm: str) -> None:
    world.provider.keys = [new_key(algorithm, "only")]
    assert (await world.log_in()).name == "jane"


def _set(**claims: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def twist(_header: dict[str, Any], found: dict[str, Any]) -> None:
        for name, value in claims.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value

    return twist


NOW_S = int(time.time())


@pytest.mark.parametrize(
    ("twist", "words"),
    [
        pytest.param(_set(nonce="another"), "nonce", id="wrong nonce"),
        pytest.param(_set(nonce=None), "nonce", id="no nonce"),
        pytest.param(_set(aud="somebody-else"), "aud", id="wrong aud"),
        pytest.param(_set(aud=["somebody-else"]), "aud", id="wrong aud in a list"),
        pytest.param(_set(aud=[]), "aud", id="empty aud"),
        pytest.param(_set(aud=None), "aud", id="no aud"),
        pytest.param(_set(aud=[providers.CLIENT_ID, "somebody-else"]), "azp", id="two in aud, no azp"),
        pytest.param(_set(aud=[providers.CLIENT_ID, "somebody-else"], azp="somebody-else"), "azp", id="azp of somebody else"),
        pytest.param(_set(azp="somebody-else"), "azp", id="azp of somebody else, one in aud"),
        pytest.param(_set(iss="https://elsewhere.example.org"), "iss", id="wrong iss"),
        pytest.param(_set(iss=None), "iss", id="no iss"),
        pytest.param(_set(exp=NOW_S - 3600), "expired", id="expired"),
        pytest.param(_set(exp=None), "exp", id="no exp"),
        pytest.param(_set(exp="tomorrow"), "exp", id="exp as text"),
        pytest.param(_set(iat=NOW_S + 7200, exp=NOW_S + 9000), "future", id="signed in the future"),
        pytest.param(_set(nbf=NOW_S + 7200, exp=NOW_S + 9000), "", id="not yet valid"),
        pytest.param(_set(iat=None), "iat", id="no iat"),
        pytest.param(_set(sub=None), "sub", id="no sub"),
        pytest.param(_set(preferred_username=None), "preferred_username", id="no name"),
        pytest.param(_set(preferred_username=["jane"]), "preferred_username", id="name in a list"),
        pytest.param(_set(preferred_username="ja\nne"), "preferred_username", id="name of two lines"),
        pytest.param(_set(preferred_username=" jane"), "preferred_username", id="name with a space"),
        pytest.param(_set(preferred_username="j" * 257), "preferred_username", id="name too long"),
    ],
)
async def test_a_token_that_is_not_for_this_login(world: World, twist: providers.Twist, words: str) -> None:
    world.provider.twist = twist
    with refused("wrong-login", words):
        await world.log_in()


async def test_two_in_aud_and_we_are_the_party(world: World) -> None:
    world.provider.twist = _set(aud=[providers.CLIENT_ID, "somebody-else"], azp=providers.CLIENT_ID)
    assert (await world.log_in()).name == "jane"


FOREIGN = new_key("ES256", "first")
RSA = RSAKey.generate_key(2048, {"kid": "first"})


def _forged(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Written by hand, because no library would."""
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims))
    return f"{signed.decode()}.{base64.urlsafe_b64encode(sign(signed)).rstrip(b'=').decode()}"


def _foreign(signed: bytes) -> bytes:
    return JWSRegistry.algorithms["ES256"].sign(signed, FOREIGN)


def _altered(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return _forged(header, {**claims, "groups": ["root"]}, lambda _signed: _foreign(b"something else"))


def _with_public_key_as_secret(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return _forged({**header, "alg": "HS256"}, claims, lambda signed: hmac.digest(RSA.as_pem(private=False), signed, "sha256"))


@pytest.mark.parametrize(
    ("key", "encode"),
    [
        pytest.param(None, lambda header, claims: _forged({**header, "alg": "none"}, claims, lambda _signed: b""), id="alg none"),
        pytest.param(None, lambda header, claims: _forged({**header, "alg": "nOnE"}, claims, lambda _signed: b""), id="alg nOnE"),
        pytest.param(None, lambda header, claims: _forged({"kid": header["kid"]}, claims, lambda _signed: b""), id="no alg"),
        pytest.param(RSA, _with_public_key_as_secret, id="HS256 with the public key"),
        pytest.param(None, lambda header, claims: _forged(header, claims, _foreign), id="another key of the same name"),
        pytest.param(FOREIGN, _altered, id="claims changed after signing"),
        pytest.param(
            RSA, lambda header, claims: jwt.encode({**header, "alg": "PS256"}, claims, RSA, algorithms=["PS256"]), id="an algorithm that is not listed"
        ),
        pytest.param(FOREIGN, lambda header, claims: _forged({**header, "kid": ["first"]}, claims, _foreign), id="kid as list"),
        pytest.param(FOREIGN, lambda header, claims: _forged({**header, "crit": ["x"], "x": 1}, claims, _foreign), id="an extension that must be understood"),
        pytest.param(FOREIGN, lambda header, _claims: _forged(header, ["root"], _foreign), id="claims as list"),  # type: ignore[arg-type]
        pytest.param(None, lambda _header, _claims: "not a token", id="no token"),
        pytest.param(None, lambda _header, _claims: "a.b.c", id="three letters"),
        pytest.param(None, lambda _header, _claims: "é.é.é", id="not ASCII"),
        pytest.param(None, lambda _header, _claims: "", id="nothing"),
    ],
)
async def test_a_token_that_nobody_signed(world: World, key: Any, encode: Callable[[dict[str, Any], dict[str, Any]], str]) -> None:
    world.provider.keys = [key] if key else world.provider.keys
    world.provider.encode = encode
    with refused("wrong-login"):
        await world.log_in()


async def test_what_is_forged_here_would_count_if_it_were_not(world: World) -> None:
    """The forger's pen writes tokens that are right, too: with the right key, and with a header that nobody need understand."""
    world.provider.keys = [FOREIGN]
    world.provider.encode = lambda header, claims: _forged({**header, "x": 1}, claims, _foreign)
    assert (await world.log_in()).name == "jane"


async def test_a_callback_counts_once(world: World) -> None:
    begun = await world.login.begin()
    query = world.provider.authorize(begun.url)
    await world.login.finish(query, begun.ticket)
    for replayed in (query, world.provider.authorize(begun.url)):
        with refused("login-expired"):
            await world.login.finish(replayed, begun.ticket)


async def test_a_callback_counts_in_the_browser_that_began(world: World) -> None:
    """Somebody lets another person's browser end the login that he began: that person would work as him. And the other way round."""
    villain, victim = await world.login.begin(), await world.login.begin()
    villains, victims = world.provider.authorize(villain.url), world.provider.authorize(victim.url)
    for ticket in (victim.ticket, ""):
        with refused("login-expired"):
            await world.login.finish(villains, ticket)
    with refused("wrong-login", "the provider does not take the code"):
        await world.login.finish({**villains, "state": victims["state"]}, victim.ticket)


async def test_a_code_of_another_login_is_useless_even_where_the_provider_forgets_the_verifier(world: World) -> None:
    """The nonce in the ID token is that of the login that the code is of."""
    villain, victim = await world.login.begin(), await world.login.begin()
    villains, victims = world.provider.authorize(villain.url), world.provider.authorize(victim.url)
    world.provider.codes[villains["code"]]["code_challenge"] = world.provider.codes[victims["code"]]["code_challenge"]
    with refused("wrong-login", "nonce"):
        await world.login.finish({**villains, "state": victims["state"]}, victim.ticket)


@pytest.mark.parametrize("ticket", ["", "x", "9999999999.x", "9999999999", ".", "\u0661.x", '"', "9" * 5000, "\ud800"])
async def test_tickets_that_we_never_gave(world: World, ticket: str) -> None:
    query = world.provider.authorize((await world.login.begin()).url)
    for state in (query["state"], "", "\ud800"):
        with refused("login-expired"):
            await world.login.finish({**query, "state": state}, ticket)


async def test_a_login_ends_after_ten_minutes(world: World) -> None:
    begun = await world.login.begin()
    query = world.provider.authorize(begun.url)
    world.late_s = 601.0
    with refused("login-expired"):
        await world.login.finish(query, begun.ticket)
    assert "token" not in world.provider.asked


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iss": "https://elsewhere.example.org"}, "another provider"),
        ({"code": None, "error": "access_denied"}, "access_denied"),
        ({"code": None}, "nothing"),
        ({"code": "guessed"}, "does not take the code"),
    ],
)
async def test_answers_that_bring_nobody(world: World, change: dict[str, str | None], words: str) -> None:
    begun = await world.login.begin()
    query = {name: value for name, value in {**world.provider.authorize(begun.url), **change}.items() if value is not None}
    with refused("wrong-login", words):
        await world.login.finish(query, begun.ticket)


@pytest.mark.parametrize(
    ("groups", "rights"),
    [
        (["mac", "packagers", "unknown"], Rights(AccessRole.PUBLISHER, frozenset({"jamf", "munki"}))),
        (["packagers", "root"], Rights(AccessRole.ADMIN)),
        ("packagers", GROUPS["packagers"]),
        (["packagers", 7, None, {}, ["root"]], GROUPS["packagers"]),
        (["staff"], None),
        ([], None),
        (None, None),
        ({"root": True}, None),
        (["ROOT"], None),
    ],
)
async def test_groups_give_roles(world: World, groups: Any, rights: Rights | None) -> None:
    world.provider.twist = _set(groups=groups)
    if rights is None:
        with refused("no-role"):
            await world.log_in()
    else:
        assert await world.log_in() == Account("jane", Source.OIDC, rights.role, rights.shares)


@pytest.mark.parametrize(("verified", "is_believed"), [(False, False), (True, True), (None, True)])
async def test_an_address_that_is_not_verified_names_nobody(world: World, verified: bool | None, is_believed: bool) -> None:
    world.provider.twist = _set(email="jane@example.org", email_verified=verified)
    world.login._config = replace(world.config, name_claim="email")
    if is_believed:
        assert (await world.log_in()).name == "jane@example.org"
    else:
        with refused("wrong-login", "not verified"):
            await world.log_in()


async def test_new_keys_are_fetched_when_they_are_used_and_not_too_often(world: World) -> None:
    await world.log_in()
    world.provider.keys = [*world.provider.keys, new_key("ES256", "second")]
    with refused("wrong-login"):
        await world.log_in()
    assert world.provider.asked["jwks"] == 1
    world.late_s = 61.0
    await world.log_in()
    await world.log_in()
    assert (world.provider.asked["jwks"], world.provider.asked["openid-configuration"]) == (2, 1)


@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://elsewhere.example.org"},
        {"issuer": 7},
        {"token_endpoint": "not a URL"},
        {"token_endpoint": "https://elsewhere.example.org/token"},
        {"token_endpoint": "https://169.254.169.254/latest/meta-data"},
        {"token_endpoint": "https://[::1/"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://localhost:1/jwks"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://localhost/auth"},
    ],
)
async def test_a_provider_that_points_elsewhere(world: World, description: dict[str, Any]) -> None:
    world.provider.description = description
    with refused("provider-unreachable"):
        await world.login.begin()
    assert world.provider.asked == {"openid-configuration": 1}


def _redirect() -> web.Response:
    return web.Response(status=302, headers={"Location": "https://elsewhere.example.org/"})


@pytest.mark.parametrize("what", ["openid-configuration", "jwks", "token"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: web.Response(status=500), id="500"),
        pytest.param(_redirect, id="redirect"),
        pytest.param(lambda: web.Response(text="<html>"), id="a page"),
        pytest.param(lambda: web.Response(text="[]"), id="a list"),
        pytest.param(lambda: web.json_response({"keys": []}), id="empty"),
        pytest.param(lambda: web.json_response({"keys": [{"kty": "RSA"}]}), id="half a key"),
        pytest.param(lambda: web.Response(body=b'"' + b"x" * (300 << 10)), id="too long"),
    ],
)
async def test_a_provider_that_answers_nonsense(world: World, what: str, answer: Callable[[], web.Response]) -> None:
    world.provider.answers[what] = answer
    with pytest.raises((UnreachableError, UnauthorizedError)):
        await world.log_in()


async def test_a_provider_that_is_down_is_left_alone_for_a_while(world: World) -> None:
    world.provider.answers["openid-configuration"] = lambda: web.Response(status=500)
    for _ in range(3):
        with refused("provider-unreachable", "users of this node can log in"):
            await world.login.begin()
    assert world.provider.asked["openid-configuration"] == 1
    world.provider.answers.clear()
    world.late_s = 6.0
    await world.log_in()


async def test_a_provider_that_another_authority_signed(world: World) -> None:
    async with Https.open(frozenset({world.provider.host}), tls=verified_context(None, key="oidc.ca")) as http:
        with refused("provider-unreachable"):
            await Provider(world.config, http, clock_s=time.time, now_s=time.monotonic).begin()
    assert world.provider.asked == {}


async def test_what_is_kept_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "USED_MAX", 3)
    for _ in range(5):
        await world.log_in()
    assert len(world.login._used) == 3
    monkeypatch.setattr(oidc, "EXCHANGES_MAX", 0)
    with refused("busy"):
        await world.log_in()


async def test_no_provider(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as door:
        for path in ("/oidc/login", "/oidc/callback?state=x&code=y"):
            reply = await door.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), over_tcp=True)
            assert (reply.status, reply.json["code"]) == (404, "no-provider")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"oidc\.ca: cannot use "):
        verified_context(tmp_path / "absent", key="oidc.ca")
    with pytest.raises(ConfigurationError, match=r"oidc\.client_secret_file: cannot read "):
        Provider(OidcConfig("https://x", "x", URL, {}, client_secret_file=tmp_path / "absent"), None, clock_s=time.time, now_s=time.monotonic)  # type: ignore[arg-type]
