"""Saying who may download: users, tokens, networks and signed URLs, over the API."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from replicad.crypto import passwords
from replicad.crypto.hashing import sha256
from replicad.protocol.signed_urls import SignedUrl
from support.admin_door import Door

SECRET = "correct horse battery staple"


async def test_a_share_says_who_may_download_and_never_what_they_know(door: Door) -> None:
    pem = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    asked = {
        "public": False,
        "layout": "munki",
        "checksums": ["sha512", "md5", "sha512"],
        "passwords": {"jane": SECRET},
        "networks": ["10.4.0.0/16", "2001:DB8::/32", "192.0.2.1"],
        "prestage_key": pem.decode(),
        "redirects": {"10.4.0.0/16": "nearest", "192.0.2.1": "here", "any": "https://cdn.example.org/mirror/"},
    }
    assert (await door.ask("PATCH", "/shares/munki", asked)).status == 200
    token = (await door.ask("POST", "/shares/munki/tokens", {"name": "ci", "expires_s": 60})).json
    shown = (await door.ask("GET", "/shares/munki")).json["share"]
    assert (shown["public"], shown["layout"], shown["users"], shown["prestage"]) == (False, "munki", ["jane"], True)
    assert shown["checksums"] == ["md5", "sha512"]
    assert shown["networks"] == ["10.4.0.0/16", "2001:db8::/32", "192.0.2.1/32"]
    redirects = {"10.4.0.0/16": "nearest", "192.0.2.1/32": "here", "any": "https://cdn.example.org/mirror"}
    assert shown["redirects"] == redirects
    assert shown["tokens"] == [{"name": "ci", "expires": token["expires"]}]
    access = door.services.catalog.replica.trust.shares()["munki"].access
    assert passwords.matches(access.users["jane"], SECRET.encode())
    assert access.tokens["ci"].digest == sha256(token["token"].encode())
    stored = b"".join(file.read_bytes() for file in door.data.iterdir() if file.name.startswith("catalog"))
    assert SECRET.encode() not in stored
    said = [record["detail"] for record in (await door.ask("GET", "/audit")).json["records"]][-1]
    assert said.endswith(
        "layout munki; checksums md5,sha512; users jane; tokens ci; networks 10.4.0.0/16,2001:db8::/32,192.0.2.1/32; redirects 10.4.0.0/16=nearest,192.0.2.1/32=here,any=https://cdn.example.org/mirror; prestage key"
    )
    assert (await door.ask("GET", "/shares/munki")).json["share"]["redirects"] == redirects, "what was not named stays"
    assert token["token"].encode() not in stored

    assert (
        await door.ask("PATCH", "/shares/munki", {"passwords": {"jane": None}, "networks": [], "prestage_key": "", "layout": "", "redirects": {}})
    ).status == 200
    assert (await door.ask("GET", "/shares/munki")).json["share"]["checksums"] == ["md5", "sha512"]
    assert (await door.ask("PATCH", "/shares/munki", {"checksums": []})).status == 200
    assert (await door.ask("DELETE", "/shares/munki/tokens/ci")).status == 200
    left = (await door.ask("GET", "/shares/munki")).json["share"]
    assert [left[name] for name in ("layout", "users", "tokens", "networks", "prestage", "public", "checksums", "redirects")] == [
        "",
        [],
        [],
        [],
        False,
        False,
        [],
        {},
    ]


async def test_changes_at_the_same_time_lose_nothing(door: Door) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(door.ask("PATCH", "/shares/munki", {"passwords": {f"user{number}": SECRET}}))
            group.create_task(door.ask("POST", "/shares/munki/tokens", {"name": f"token{number}"}))
    shown = (await door.ask("GET", "/shares/munki")).json["share"]
    assert shown["users"] == [f"user{number}" for number in range(6)]
    assert [token["name"] for token in shown["tokens"]] == [f"token{number}" for number in range(6)]


async def test_a_signed_url_holds_for_one_file_as_long_as_its_signer_is_a_member(door: Door) -> None:
    await door.publish("munki", "pkgs/Caf\u00e9 1.pkg", b"x")
    services = door.services
    answer = await door.ask("POST", "/shares/munki/urls", {"path": "pkgs/Caf\u00e9 1.pkg", "expires_s": 3600})
    parts = urlsplit(answer.json["url"])
    assert (parts.netloc, parts.path) == ("ams1:8480", "/munki/pkgs/Caf%C3%A9%201.pkg")
    url = SignedUrl.read(dict(parse_qsl(parts.query)))
    assert url is not None
    now_s = services.clock_ms() / 1000

    def admits(**changed: object) -> bool:
        asked = {"share": "munki", "path_key": "pkgs/caf\u00e9 1.pkg", "now_s": now_s, **changed}
        return url.admits(services.catalog.replica.trust.members(services.clock_ms()), services.catalog.network, **asked)  # type: ignore[arg-type, union-attr]

    assert admits()
    assert not admits(now_s=now_s + 3602)
    assert not admits(share="jamf")
    assert not admits(path_key="pkgs/caf\u00e9 2.pkg")
    await services.catalog.author_cut(services.node, reason="remove")
    assert not admits()


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "says"),
    [
        ("PATCH", "/shares/munki", {"networks": ["10.4.0.1/16"]}, "bad-input", "other bits are 0"),
        ("PATCH", "/shares/munki", {"networks": ["nonsense"]}, "bad-input", "nonsense"),
        ("PATCH", "/shares/munki", {"passwords": {"ja:ne": SECRET}}, "bad-input", "without spaces, control characters and colons"),
        ("PATCH", "/shares/munki", {"passwords": {"jane": ""}}, "bad-input", "passwords"),
        ("PATCH", "/shares/munki", {"passwords": {"nobody": None}}, "no-such-user", "nobody"),
        ("PATCH", "/shares/munki", {"prestage_key": "nonsense"}, "bad-input", "public RSA key"),
        ("PATCH", "/shares/munki", {"layout": "other"}, "bad-input", "layout"),
        ("PATCH", "/shares/munki", {"checksums": ["crc32"]}, "bad-input", "crc32"),
        ("PATCH", "/shares/munki", {"checksums": ["md5"] * 4}, "bad-input", "checksums"),
        ("PUT", "/blobs?share=absent", b"x", "no-such-share", "absent"),
        ("POST", "/blobs?share=absent", b"", "no-such-share", "absent"),
        ("PATCH", "/shares/munki", {"redirects": {"10.4.0.1/16": "nearest"}}, "bad-input", "redirects: network '10.4.0.1/16'"),
        ("PATCH", "/shares/munki", {"redirects": {"any": "far"}}, "bad-input", "redirects: 'far' is no base URL"),
        ("PATCH", "/shares/munki", {"redirects": {"any": "https://user:secret@cdn.example.org"}}, "bad-input", "no base URL"),
        ("PATCH", "/shares/munki", {"redirects": {"any": "https://cdn.example.org/?x"}}, "bad-input", "no base URL"),
        ("PATCH", "/shares/munki", {"redirects": {"any": "ftp://cdn.example.org"}}, "bad-input", "no base URL"),
        ("PATCH", "/shares/munki", {"redirects": {f"10.{n}.0.0/16": "here" for n in range(17)}}, "bad-input", "redirects"),
        ("DELETE", "/shares/munki/tokens/ci", None, "no-such-token", "ci"),
        ("POST", "/shares/munki/tokens", {"name": "a b"}, "bad-input", "without spaces"),
        ("POST", "/shares/munki/urls", {"path": "absent"}, "no-such-file", "absent"),
        ("POST", "/shares/absent/urls", {"path": "x"}, "no-such-share", "absent"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(door: Door, method: str, path: str, body: object, code: str, says: str) -> None:
    before = door.services.catalog.replica.trust.shares()
    reply = await door.ask(method, path, body)
    assert (reply.status >= 400, reply.json["code"]) == (True, code), reply.body
    assert says in reply.json["detail"]
    assert SECRET not in reply.body.decode()
    assert door.services.catalog.replica.trust.shares() == before
