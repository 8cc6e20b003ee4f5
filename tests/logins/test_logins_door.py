"""People of a directory at the admin door: local users come first and are never kept out, and what is written down says who vouched. And what a node opens of its configuration."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicad.errors import ConfigurationError
from replicad.integrations.logins import LdapConfig, OidcConfig, Rights
from replicad.integrations.vouching import open_vouchers
from replicad.model.callers import AccessRole
from support.admin_door import Door, Reply, opened
from support.directory import PERSONS
from support.network import free_port

LOCAL = "a local password"


async def log_in(door: Door, name: str, password: str) -> Reply:
    return await door.ask("POST", "/sessions", {"name": name, "password": password}, over_tcp=True)


@pytest.fixture
async def door(tmp_path: Path, config: LdapConfig) -> AsyncIterator[Door]:
    """One that knows a local admin of the name "bob", as the directory does, and one "root", whom the directory does not know."""
    async with open_vouchers(config, None) as (directories, provider), opened(tmp_path / "data", directories=directories, provider=provider) as door:
        for name in ("bob", "root"):
            await door.ask("POST", "/users", {"name": name, "password": LOCAL, "role": "admin"})
        yield door


@pytest.mark.needs("slapd")
async def test_people_of_a_directory_log_in(door: Door) -> None:
    reply = await log_in(door, "Jane", PERSONS["jane"][1])
    assert reply.status == 200, reply.body
    who = (await door.ask("GET", "/whoami", headers={"Authorization": f"Bearer {reply.json['secret']}"}, over_tcp=True)).json
    assert (who["name"], who["role"], who["shares"], who["user"]) == ("user jane (ldap)", "publisher", ["munki"], None)

    locals_own, same_name, wrong = [await log_in(door, "bob", LOCAL), await log_in(door, "bob", PERSONS["bob"][1]), await log_in(door, "jane", "x")]
    assert (locals_own.status, locals_own.json["session"]["name"]) == (200, "user bob")
    assert [(one.status, one.json["code"]) for one in (same_name, wrong)] == [(401, "wrong-login")] * 2
    logins = [action for action in (await door.ask("GET", "/audit/log")).json["actions"] if action["target"] == "/api/v1/sessions"]
    assert [(action["caller"], action["status"], action["code"]) for action in logins] == [
        ("user jane (ldap)", 200, ""),
        ("user bob", 200, ""),
        ("", 401, "wrong-login"),
        ("", 401, "wrong-login"),
    ]
    assert PERSONS["jane"][1] not in str(logins)


@pytest.mark.needs("slapd")
async def test_a_directory_that_is_down_keeps_no_local_user_out(tmp_path: Path, config: LdapConfig) -> None:
    dead = replace(config, urls=(f"ldaps://localhost:{free_port()}",))
    async with open_vouchers(dead, None) as (directories, _), opened(tmp_path / "data", directories=directories) as door:
        await door.ask("POST", "/users", {"name": "root", "password": LOCAL, "role": "admin"})
        local, other = await log_in(door, "root", LOCAL), await log_in(door, "jane", PERSONS["jane"][1])
        assert (local.status, local.json["session"]["role"]) == (200, "admin")
        assert (other.status, other.json["code"]) == (503, "directory-unreachable")


OIDC = OidcConfig("https://login.example.org", "replicad", "https://ams1.example.org:8441", {"a": Rights(AccessRole.ADMIN)})


async def test_nothing_is_opened_that_is_not_configured() -> None:
    async with open_vouchers(None, None) as found:
        assert found == ((), None)


@pytest.mark.parametrize(
    ("missing", "configs"),
    [
        ("ldap", (LdapConfig(("ldaps://dc1",), "dc=x", {}), None)),
        ("oidc", (None, OIDC)),
    ],
)
async def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, configs: tuple[Any, Any]) -> None:
    monkeypatch.setitem(sys.modules, f"replicad.integrations.{missing}", None)
    with pytest.raises(ConfigurationError, match=rf"\[{missing}\] needs the library") as caught:
        async with open_vouchers(*configs):
            pass
    assert caught.value.hint == f"pip install 'replicad[{missing}]'"


async def test_a_node_starts_while_its_provider_is_down() -> None:
    async with open_vouchers(None, replace(OIDC, hosts=("keys.example.org",))) as (_, provider):
        assert provider is not None
        assert provider._http.check("https://keys.example.org/jwks")
        assert provider._http.check("https://login.example.org/token")
