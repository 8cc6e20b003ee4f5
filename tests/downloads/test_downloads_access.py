"""Who may see what: a table of credentials, kinds of shares and paths; what is forbidden looks like what is not there; guessing is slowed; nothing secret is logged."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from aiohttp.http import HttpRequestParser
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from downloads_world import Client, Reply, World, request_of
from msgspec.structs import replace

from replicad.crypto import passwords as verifiers
from replicad.crypto import prestage
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.errors import InputError, StorageError
from replicad.model.access import Access, BearerToken, check_network
from replicad.model.addresses import one_client, parse
from replicad.model.ids import NodeId, Stamp
from replicad.model.members import Member
from replicad.model.records import Role
from replicad.protocol.signed_urls import sign
from replicad.server.downloads.access import SHARES_TRIED_MAX
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.downloads.passwords import ALLOWANCES_MAX, EVERY_S, GUESSES, Allowances
from replicad.server.downloads.requests import Request
from replicad.telemetry import log as logs

BODY = b"customer a's package"
NETWORK = NodeId(bytes(32))
LATER_S = 4_000_000_000
PASSWORD, TOKEN = "correct horse", "rshare_a-token-of-customer-a"
PUBLISHER, OTHERS, MIRROR, GONE = (SigningKey(bytes([number]) * 32) for number in range(4))
JAMF, STRANGER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
BY_PROXY = DownloadsConfig(proxies=(check_network("127.0.0.0/8"),))
NEAR, FAR = "X-Forwarded-For: 10.4.1.2", "X-Forwarded-For: 10.5.1.2"


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def member(key: SigningKey, role: Role, *shares: str) -> Member:
    return Member(key.id, key.id.short, role, "", frozenset(shares) if shares else None, None, Stamp.of(0), key.id)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """public (anybody's), near (anybody's in 10.4.0.0/16), private (credentials), narrow (credentials, and the network) and sealed (nobody's). All hold a file a.pkg, private also b.pkg."""
    world = World(tmp_path)
    tokens = {"ci": BearerToken(sha256(TOKEN.encode())), "old": BearerToken(sha256(b"rshare_expired"), Stamp.of(1000))}
    access = Access(users={"jane": verifiers.verifier(PASSWORD)}, tokens=tokens, prestage=pem(JAMF))
    networks = ("10.4.0.0/16",)
    world.share("public")
    world.share("near", access=Access(networks=networks))
    world.share("private", public=False, access=access)
    world.share("narrow", public=False, access=Access(users=access.users, tokens=tokens, networks=networks, prestage=access.prestage))
    world.share("sealed", public=False)
    for share in world.shares:
        world.put(share, "a.pkg", BODY if share != "sealed" else b"sealed")
    world.put("private", "b.pkg", b"another")
    roles = {PUBLISHER: (Role.PUBLISHER, "private", "narrow"), OTHERS: (Role.PUBLISHER, "public"), MIRROR: (Role.MIRROR, "private", "narrow")}
    world.members = {key.id: member(key, *rights) for key, rights in roles.items()}
    return world


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def url(signer: SigningKey, share: str, path: str = "a.pkg", *, until_s: int = LATER_S, network: NodeId = NETWORK, **changed: str) -> str:
    return urlencode({**sign(signer, network, share=share, path_key=path, until_s=until_s), **changed})


def jwt(key: rsa.RSAPrivateKey = JAMF, *, alg: str = "RS256", **claims: object) -> str:
    said = {"sub": "AppManifest", "iss": "JSS", "exp": LATER_S, **claims}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": alg, "typ": "JWT"}, said)]
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


Shown = tuple[str, str]
"""What a request for a share shows: the query string and a header."""
NOTHING = ""
GOOD: dict[str, Callable[[str], Shown]] = {
    "password": lambda _: ("", basic("jane", PASSWORD)),
    "bearer token": lambda _: ("", f"Authorization: Bearer {TOKEN}"),
    "signed URL": lambda share: (url(PUBLISHER, share), NOTHING),
    "prestage token": lambda _: (f"token={jwt()}", NOTHING),
    "several, one of them good": lambda share: (url(PUBLISHER, share), basic("jane", "wrong")),
}
BAD: dict[str, Callable[[str], Shown]] = {
    "nothing": lambda _: ("", NOTHING),
    "wrong password": lambda _: ("", basic("jane", "wrong")),
    "unknown user": lambda _: ("", basic("mallory", PASSWORD)),
    "user in another case": lambda _: ("", basic("Jane", PASSWORD)),
    "empty password": lambda _: ("", basic("jane", "")),
    "garbage for Basic": lambda _: ("", "Authorization: Basic ?!"),
    "no colon in Basic": lambda _: ("", f"Authorization: Basic {base64.b64encode(b'jane').decode()}"),
    "unknown token": lambda _: ("", "Authorization: Bearer rshare_guessed"),
    "expired token": lambda _: ("", "Authorization: Bearer rshare_expired"),
    "the hash of the token": lambda _: ("", f"Authorization: Bearer {sha256(TOKEN.encode())}"),
    "another scheme": lambda _: ("", f"Authorization: Digest {TOKEN}"),
    "URL signed for another share": lambda share: (url(PUBLISHER, {"private": "narrow"}.get(share, "private")), NOTHING),
    "URL signed for another file": lambda share: (url(PUBLISHER, share, "b.pkg"), NOTHING),
    "URL signed for another network": lambda share: (url(PUBLISHER, share, network=NodeId(bytes([1]) * 32)), NOTHING),
    "URL signed for a directory": lambda share: (url(PUBLISHER, share, "a"), NOTHING),
    "expired URL": lambda share: (url(PUBLISHER, share, until_s=1000), NOTHING),
    "URL whose time was moved": lambda share: (url(PUBLISHER, share, until_s=1000, until=str(LATER_S)), NOTHING),
    "URL of a publisher of another share": lambda share: (url(OTHERS, share), NOTHING),
    "URL of a mirror": lambda share: (url(MIRROR, share), NOTHING),
    "URL of a former member": lambda share: (url(GONE, share), NOTHING),
    "URL with somebody else's key": lambda share: (url(GONE, share, key=str(PUBLISHER.id)), NOTHING),
    "garbage for a URL": lambda _: ("until=x&key=y&signature=%FF", NOTHING),
    "prestage token of a stranger": lambda _: (f"token={jwt(STRANGER)}", NOTHING),
    "expired prestage token": lambda _: (f"token={jwt(exp=1000)}", NOTHING),
    "prestage token that never expires": lambda _: (f"token={jwt(exp=None)}", NOTHING),
    "prestage token for something else": lambda _: (f"token={jwt(sub='Login')}", NOTHING),
    "prestage token of another issuer": lambda _: (f"token={jwt(iss='me')}", NOTHING),
    "prestage token without a signature": lambda _: (f"token={jwt(alg='none')}", NOTHING),
    "prestage token by another algorithm": lambda _: (f"token={jwt(alg='HS256')}", NOTHING),
}
CASES = [(True, name, shown) for name, shown in GOOD.items()] + [(False, name, shown) for name, shown in BAD.items()]
SHARES: dict[str, tuple[bool, bool, bool]] = {
    "public": (True, True, True),
    "near": (True, False, True),
    "private": (False, True, True),
    "narrow": (False, False, True),
    "sealed": (False, True, False),
    "absent": (False, True, False),
}
"""Share to: whether it is public, whether it is served far away, whether a credential helps."""


async def ask(client: Client, target: str, shown: Shown, *headers: str, method: str = "GET") -> Reply:
    query, header = shown
    return await client.get(f"{target}?{query}" if query else target, *headers, *([header] if header else []), method=method)


def same(replies: list[Reply]) -> set[tuple[int, bytes]]:
    """What can be told apart, dates aside."""
    return {(reply.status, b"\r\n".join(line for line in reply.raw.split(b"\r\n") if not line.startswith(b"Date:")) + reply.body) for reply in replies}


async def test_every_credential_at_every_kind_of_share(world: World) -> None:
    """Allowed: 200 with the file; 404 only for whoever may see the share. Everything else: one answer, byte by byte, for each method."""
    refused: dict[str, list[Reply]] = {"GET": [], "HEAD": []}
    async with world.serve(config=BY_PROXY) as client:
        for good, name, shown in CASES:
            for share, (public, anywhere, useful) in SHARES.items():
                forget_guesses(client)
                for where in (NEAR, FAR):
                    may = (anywhere or where == NEAR) and (public or (good and useful))
                    whole = good and not shown(share)[0].startswith("until") and share not in {"sealed", "absent"}
                    for path, there in (("a.pkg", True), ("absent.pkg", False)):
                        for method, replies in refused.items():
                            reply = await ask(client, f"/{share}/{path}", shown(share), where, method=method)
                            allowed = may and (there or public or whole)
                            assert reply.status == (200 if allowed and there else 404 if allowed else 401), (name, share, where, path, method)
                            if reply.status == 401:
                                replies.append(reply)
        blobs = [await client.get(f"/-/blob/{content}", NEAR) for content in (sha256(b"another"), sha256(b"sealed"), sha256(b"nobody has this"))]
        assert (await client.get(f"/-/blob/{sha256(b'another')}", basic("jane", PASSWORD))).body == b"another"
        assert (await client.get(f"/-/blob/{sha256(BODY)}")).body == BODY
    assert len(refused["GET"]) == len(refused["HEAD"]) > 400
    [(status, text)] = same(refused["GET"] + blobs)
    assert status == 401
    assert b'WWW-Authenticate: Basic realm="replicad", charset="UTF-8"' in text
    assert len(same(refused["HEAD"])) == 1


def forget_guesses(client: Client) -> None:
    """The table has more wrong passwords than anybody may try."""
    door = client.server.handler.__self__  # type: ignore[attr-defined]
    door._gate._passwords._allowances._full_s.clear()


async def test_a_content_by_its_hash_is_for_whoever_may_see_a_share_that_has_it(world: World) -> None:
    """Every way in but a signed URL, which is for one name; near and far; and beside shares whose password the user does not have."""
    for share in ("near", "narrow", "private", "sealed"):
        world.put(share, "own.pkg", share.encode())
    for number in range(SHARES_TRIED_MAX - 2):
        world.share(f"another {number}", public=False, access=Access(users={"jane": verifiers.verifier(f"another {number}")}))
    world.shares = dict(sorted(world.shares.items()))
    async with world.serve(config=BY_PROXY) as client:

        async def statuses(share: str, shown: Shown) -> tuple[int, int]:
            forget_guesses(client)
            near, far = [await ask(client, f"/-/blob/{sha256(share.encode())}", shown, where) for where in (NEAR, FAR)]
            assert {reply.body for reply in (near, far)} <= {share.encode(), b"401 Unauthorized\n"}
            return near.status, far.status

        for name, shown in {**GOOD, **BAD}.items():
            known = 200 if name in {"bearer token", "prestage token", "password"} else 401
            assert await statuses("near", shown("near")) == (200, 401), name
            assert await statuses("narrow", shown("narrow")) == (known, 401), name
            assert await statuses("private", shown("private")) == (known, known), name
            assert await statuses("sealed", shown("sealed")) == (401, 401), name


async def test_without_passwords_anywhere_nobody_is_asked_for_one(world: World) -> None:
    world.shares = {name: share for name, share in world.shares.items() if not share.access.users}
    async with world.serve() as client:
        replies = [
            await client.get(target) for target in ("/sealed/a.pkg", "/sealed/absent", "/absent/a.pkg", "/public/absent", f"/-/blob/{sha256(b'sealed')}")
        ]
    [(status, _)] = same(replies)
    assert status == 404


class Nobody:
    """The other end of a request that came by no connection."""

    transport = None

    async def drain(self) -> None:
        """There is nothing to wait for."""


async def test_what_is_forbidden_costs_what_is_absent_costs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a stopwatch, which the neighbours of this machine would stop: the functions that are called."""
    proven: list[str] = []
    monkeypatch.setattr(verifiers, "matches", lambda stored, _password: proven.append(stored[:30]) is not None)
    many = {f"token{number}": BearerToken(sha256(bytes([number]))) for number in range(100)}
    world.share("many", public=False, access=replace(world.shares["private"].access, tokens=many))
    async with world.serve(config=BY_PROXY) as client:
        door = client.server.handler.__self__  # type: ignore[attr-defined]

        async def work(target: str, *headers: str) -> list[str]:
            called: list[str] = []
            [(message, _)], _, _ = HttpRequestParser(None, asyncio.get_running_loop(), 1 << 16).feed_data(request_of(target, *headers))
            request = Request(message, Nobody())
            sys.setprofile(
                lambda frame, event, _: called.append(frame.f_code.co_qualname) if event == "call" and "replicad" in frame.f_code.co_filename else None
            )
            try:
                await door.handle(request)
            finally:
                sys.setprofile(None)
            return called

        for name, shown in BAD.items():
            query, header = shown("private")
            for first, second in (
                ("private/a.pkg", "absent/a.pkg"),
                ("private/a.pkg", "private/absent"),
                ("narrow/a.pkg", "absent/a.pkg"),
                ("many/a.pkg", "sealed/a.pkg"),
            ):
                called = [await work(f"/{target}?{query}", header or "X-Nothing: at all", FAR) for target in (first, second) * 2]
                assert len(called[2]) == pytest.approx(len(called[3]), abs=3), (name, first, second)
    assert len(proven) >= 4
    assert len(set(proven)) == 1, "everybody's password costs the same memory and passes"


async def test_guessing_is_slowed_and_whoever_knows_is_not(world: World) -> None:
    async with world.serve(config=BY_PROXY) as client:
        client.server.handler.__self__._gate._passwords._allowances._now_s = lambda: 0.0  # type: ignore[attr-defined]
        good = basic("jane", PASSWORD)
        assert (await client.get("/private/a.pkg", NEAR, good)).status == 200
        guesses = [await client.get("/private/a.pkg", NEAR, basic("jane", f"guess {number}")) for number in range(GUESSES + 3)]
        assert [reply.status for reply in guesses] == [401] * GUESSES + [429] * 3
        assert 1 <= int(guesses[-1].fields["retry-after"]) <= EVERY_S
        statuses = {
            "the right one, known": (await client.get("/private/a.pkg", NEAR, good)).status,
            "an old wrong one": (await client.get("/private/a.pkg", NEAR, basic("jane", "guess 0"))).status,
            "the account from elsewhere": (await client.get("/private/a.pkg", FAR, basic("jane", "guess from elsewhere"))).status,
            "another account from here": (await client.get("/private/a.pkg", NEAR, basic("mallory", "x"))).status,
            "another account from elsewhere": (await client.get("/private/a.pkg", FAR, basic("mallory", "x"))).status,
            "a token from here": (await client.get("/private/a.pkg", NEAR, f"Authorization: Bearer {TOKEN}")).status,
        }
        absent = [await client.get("/absent/a.pkg", "X-Forwarded-For: 10.9.9.9", basic("jane", f"guess {number}")) for number in range(GUESSES + 1)]
    assert statuses == {
        "the right one, known": 200,
        "an old wrong one": 401,
        "the account from elsewhere": 429,
        "another account from here": 429,
        "another account from elsewhere": 401,
        "a token from here": 200,
    }
    assert [reply.status for reply in absent] == [401] * GUESSES + [429]


async def test_a_fleet_that_comes_at_once_with_one_password_is_let_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    matches = verifiers.matches
    monkeypatch.setattr(verifiers, "matches", lambda stored, password: (looked.append(password), matches(stored, password))[1])
    async with world.serve() as client, asyncio.TaskGroup() as group:
        right = [group.create_task(client.get("/private/a.pkg", basic("jane", PASSWORD))) for _ in range(3 * GUESSES)]
        wrong = [group.create_task(client.get("/private/a.pkg", basic("jane", "last year's"))) for _ in range(3 * GUESSES)]
    assert {task.result().status for task in right} == {200}
    assert {task.result().status for task in wrong} == {401}
    assert sorted(looked) == [PASSWORD.encode(), b"last year's"]


async def test_a_new_password_counts_at_once_and_the_old_one_no_more(world: World) -> None:
    async with world.serve() as client:
        assert (await client.get("/private/a.pkg", basic("jane", PASSWORD))).status == 200
        world.share("private", public=False, access=Access(users={"jane": verifiers.verifier("battery staple")}))
        assert (await client.get("/private/a.pkg", basic("jane", PASSWORD))).status == 401
        assert (await client.get("/private/a.pkg", basic("jane", "battery staple"))).status == 200


def test_the_table_of_guessers_is_bounded_and_allowances_come_back() -> None:
    now_s = 0.0
    allowances = Allowances(lambda: now_s)
    assert [allowances.take("a") for _ in range(GUESSES)] == [0.0] * GUESSES
    assert allowances.take("a", "b") == pytest.approx(EVERY_S)
    allowances.give_back("a")
    assert (allowances.take("a"), allowances.take("a")) == (0.0, pytest.approx(EVERY_S))
    now_s = 2 * EVERY_S
    assert [allowances.take("a") > 0 for _ in range(3)] == [False, False, True]
    for number in range(2 * ALLOWANCES_MAX):
        allowances.take(f"client {number}")
    assert len(allowances._full_s) == ALLOWANCES_MAX


async def test_a_header_of_a_stranger_is_not_believed(world: World) -> None:
    async with world.serve() as client:
        assert (await client.get("/near/a.pkg", NEAR)).status == 401
    async with world.serve(config=BY_PROXY) as client:
        assert (await client.get("/near/a.pkg", "X-Forwarded-For: 10.4.1.2, 192.0.2.1")).status == 401
        assert (await client.get("/near/a.pkg", "X-Forwarded-For: 192.0.2.1, 10.4.1.2, 127.0.0.9")).status == 200
        assert (await client.get("/near/a.pkg", "X-Forwarded-For: 10.4.1.2, rubbish")).status == 401


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("[2001:db8::5]", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x", "None"),
    ],
)
def test_what_counts_as_one_client(address: str, client: str) -> None:
    assert one_client(parse(address)) == client


@pytest.mark.parametrize(
    "text", ["", "nonsense", JAMF.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()]
)
def test_only_a_public_key_verifies_prestage_tokens(text: str) -> None:
    with pytest.raises(InputError, match="prestage_key: a public RSA key"):
        prestage.read_key(text)
    assert not prestage.admits(text, jwt(), now_s=0)
    assert prestage.read_key(pem(JAMF)) == pem(JAMF)


async def test_nothing_secret_is_logged(world: World) -> None:
    said = io.StringIO()
    logs.configure(style="json", level="debug", stream=said)
    secrets = [PASSWORD, TOKEN, "wrong secret", basic("jane", PASSWORD).split()[-1], jwt(), url(PUBLISHER, "private").rpartition("=")[2]]
    async with world.serve() as client:
        door = client.server.handler.__self__  # type: ignore[attr-defined]
        for shown in (*(shown("private") for shown in GOOD.values()), ("", basic("jane", "wrong secret"))):
            await ask(client, "/private/a.pkg", shown)
            world.open_error = StorageError("no descriptors")
            await ask(client, "/private/a.pkg", shown)
            world.open_error = None
            door._visible = None
            assert (await ask(client, "/private/a.pkg", shown)).status in {401, 500}
            door._visible = world.visible
    assert "a request failed" in said.getvalue()
    assert [secret for secret in secrets if secret in said.getvalue()] == []
