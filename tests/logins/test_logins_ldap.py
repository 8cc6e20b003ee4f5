"""People of a directory: against a real slapd, over real TLS, with everything that a stranger may type and everything that a server may fail at."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicad.errors import BusyError, ConfigurationError, UnreachableError
from replicad.integrations import ldap
from replicad.integrations.ldap import Directory
from replicad.integrations.logins import LdapConfig, Rights
from replicad.model.callers import AccessRole, Account, Source
from support import directory
from support.directory import BASE, PEOPLE, PERSONS, Slapd
from support.network import free_port
from support.relay import Relay
from support.waiting import until

pytestmark = pytest.mark.needs("slapd")

VIEWER, PUBLISHER, OPERATOR, ADMIN = AccessRole
JANE = Account("jane", Source.LDAP, PUBLISHER, frozenset({"munki"}))
JANES = PERSONS["jane"][1]


@contextlib.contextmanager
def opened(config: LdapConfig) -> Iterator[Directory]:
    found = Directory(config)
    try:
        yield found
    finally:
        found.close()


async def ask(config: LdapConfig, name: str, password: str) -> Account | None:
    with opened(config) as found:
        return await found.authenticate(name, password)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ldap")]


@pytest.mark.parametrize(
    ("name", "password", "account"),
    [
        ("jane", JANES, JANE),
        ("JANE", JANES, JANE),
        ("jane", "wrong", None),
        ("jane", JANES.upper(), None),
        ("nobody", JANES, None),
        ("bob", PERSONS["bob"][1], Account("bob", Source.LDAP, OPERATOR)),
        ("carol", PERSONS["carol"][1], Account("carol", Source.LDAP, VIEWER)),
        ("dave", PERSONS["dave"][1], Account("dave", Source.LDAP, PUBLISHER, frozenset({"munki", "jamf"}))),
        ("we*ird)(\\", PERSONS["we*ird)(\\"][1], Account("we*ird)(\\", Source.LDAP, PUBLISHER, frozenset({"munki"}))),
        ("deep", PERSONS["deep"][1], None),
        ("eve", PERSONS["eve"][1], None),
        ("twin", PERSONS["twin"][1], None),
    ],
    ids=[
        "direct group, DN with a comma",
        "other case",
        "wrong password",
        "password in capitals",
        "unknown",
        "groups of groups",
        "groups in a ring",
        "several groups, password not ASCII",
        "name of special characters",
        "deeper than is looked",
        "no group of the configuration",
        "two people of one name",
    ],
)
async def test_who_is_who(config: LdapConfig, name: str, password: str, account: Account | None) -> None:
    assert await ask(config, name, password) == account


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "j*",
        "jan?",
        "jane)(uid=*",
        "*)(|(uid=*",
        "nobody)(|(uid=jane",
        "jane)(userPassword=*))(|(uid=*",
        "jane\0",
        "\0",
        "jane\\00",
        "\\6aane",
        PERSONS["jane"][0],
        "Doe, Jane",
        f"uid=jane,{PEOPLE}",
        "jane,ou=people",
        "jane#",
        "jane;",
        'jane"',
        "jané",
        "jane\n",
        "ja\N{ZERO WIDTH SPACE}ne",
        "\ud800",
        "j" * 256,
        " jane ",
        "\N{FULLWIDTH LATIN SMALL LETTER J}ane",
    ],
)
async def test_a_name_is_only_ever_a_name(config: LdapConfig, name: str) -> None:
    """slapd itself takes some of these for jane, because it drops spaces and what cannot be seen."""
    assert await ask(config, name, JANES) is None


@pytest.mark.parametrize("password", ["", "\N{SOFT HYPHEN}", "\N{ZERO WIDTH SPACE}", "\0", " ", "*", "\ud800", "correct horse\0", "x" * 256])
async def test_a_password_that_is_none_opens_nothing(config: LdapConfig, password: str) -> None:
    """This slapd takes a bind with a name and no password for a success, and soft hyphens are none once they are prepared."""
    assert await ask(config, "jane", password) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=12) | st.text(alphabet="jane*()\\\0,=|&! ", max_size=8), password=st.text(max_size=8))
def test_nothing_else_opens_anything(config: LdapConfig, name: str, password: str) -> None:
    assert asyncio.run(ask(config, name, password)) is None


async def test_start_tls(config: LdapConfig, slapd: Slapd) -> None:
    assert await ask(replace(config, urls=(slapd.start_tls_url,), start_tls=True), "jane", JANES) == JANE


async def test_active_directory_style_filter(config: LdapConfig) -> None:
    """A server that does not know the rule finds nothing by it, and the walk finds the rest."""
    chain = "(|(member:1.2.840.113556.1.4.1941:={dn})(member={dn}))"
    assert await ask(replace(config, group_filter=chain), "bob", PERSONS["bob"][1]) == Account("bob", Source.LDAP, OPERATOR)


@pytest.mark.parametrize(
    "change",
    [
        lambda slapd: {"ca": slapd.stranger},
        lambda _slapd: {"ca": None},
        lambda slapd: {"urls": (f"ldaps://127.0.0.1:{slapd.tls_port}",)},
        lambda slapd: {"urls": (slapd.start_tls_url,), "start_tls": True, "ca": slapd.stranger},
        lambda slapd: {"urls": (f"ldap://127.0.0.1:{slapd.plain_port}",), "start_tls": True},
        lambda slapd: {"urls": (f"ldaps://localhost:{slapd.plain_port}",)},
        lambda _slapd: {"urls": (f"ldaps://localhost:{free_port()}",)},
        lambda _slapd: {"urls": (f"ldap://localhost:{free_port()}",), "start_tls": True},
        lambda _slapd: {"bind_dn": f"cn=nobody,{BASE}"},
        lambda _slapd: {"base": "ou=elsewhere,dc=example,dc=org"},
        lambda _slapd: {"bind_dn": "", "bind_password_file": None},
    ],
    ids=[
        "another authority",
        "the system's authorities",
        "another host name",
        "another authority, StartTLS",
        "another host name, StartTLS",
        "no TLS there",
        "down",
        "down, StartTLS",
        "service account refused",
        "no such base",
        "groups hidden from strangers",
    ],
)
async def test_a_server_that_cannot_tell(config: LdapConfig, slapd: Slapd, change: Callable[[Slapd], dict[str, object]]) -> None:
    with pytest.raises(UnreachableError) as caught:
        await ask(replace(config, **change(slapd)), "jane", JANES)  # type: ignore[arg-type]
    assert (caught.value.error_code, caught.value.http_status) == ("directory-unreachable", 503)


async def test_the_next_server_is_asked_and_the_dead_one_last_from_then_on(config: LdapConfig, slapd: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    dead = f"ldaps://localhost:{free_port()}"
    with opened(replace(config, urls=(dead, slapd.url))) as found:
        assert [await found.authenticate("jane", JANES) for _ in range(3)] == [JANE] * 3
    assert [record.message for record in caplog.records].count("a directory server cannot say who somebody is") == 1


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A port that accepts everything and says nothing, and who is connected."""
    writers: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], writers
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize("start_tls", [False, True])
async def test_a_server_that_says_nothing_costs_the_timeout_and_no_thread(config: LdapConfig, slapd: Slapd, start_tls: bool) -> None:
    async with silent() as (port, _):
        scheme = "ldap" if start_tls else "ldaps"
        with pytest.raises(UnreachableError):
            await ask(replace(config, urls=(f"{scheme}://localhost:{port}",), start_tls=start_tls, timeout_s=0.1), "jane", JANES)
    await until(lambda: not threads(), what="the threads to end")


async def test_bytes_that_trickle_are_cut_off_at_the_deadline(config: LdapConfig, slapd: Slapd) -> None:
    with Relay(slapd.tls_port, rate=50.0).running() as relay:
        with pytest.raises(UnreachableError):
            await ask(replace(config, urls=(f"ldaps://localhost:{relay.port}",), timeout_s=0.2), "jane", JANES)
        await until(lambda: not threads(), what="the threads to end")


async def test_an_answer_without_end_is_cut_off_at_the_deadline(config: LdapConfig) -> None:
    """Every single wait is short: only all of them together are too long."""

    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(bytes.fromhex("30847fffffff"))
            while True:
                writer.write(bytes(4096))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        url = f"ldap://localhost:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(UnreachableError):
            await ask(replace(config, urls=(url,), start_tls=True, timeout_s=0.2), "jane", JANES)
        await until(lambda: not threads(), what="the threads to end", deadline_s=10.0)


async def test_whoever_hangs_up_leaves_no_thread(config: LdapConfig) -> None:
    async with silent() as (port, writers):
        asking = asyncio.ensure_future(ask(replace(config, urls=(f"ldaps://localhost:{port}",)), "jane", JANES))
        await until(lambda: bool(writers), what="the directory to be asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not threads(), what="the threads to end", deadline_s=10.0)


async def test_only_so_many_log_in_at_once(config: LdapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldap, "WAITING_MAX", 1)
    async with silent() as (port, writers):
        with opened(replace(config, urls=(f"ldaps://localhost:{port}",))) as found:
            first = asyncio.ensure_future(found.authenticate("jane", JANES))
            await until(lambda: bool(writers), what="the directory to be asked")
            with pytest.raises(BusyError):
                await found.authenticate("bob", "x")
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
    await until(lambda: not threads(), what="the threads to end")


async def test_who_strips_start_tls_hears_no_password(config: LdapConfig) -> None:
    heard = bytearray()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(4096):
            if not heard:
                writer.write(bytes.fromhex("300c0201") + piece[4:5] + bytes.fromhex("78070a013404000400"))  # an extended response: unavailable
            heard.extend(piece)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError):
            await ask(replace(config, urls=(f"ldap://localhost:{port}",), start_tls=True), "jane", JANES)
    assert b"1.3.6.1.4.1.1466.20037" in heard
    assert directory.SERVICE_PASSWORD.encode() not in heard


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": {"packagers": Rights(ADMIN)}}, r"ldap\.groups: .*'packagers'|ldap\.groups: "),
        ({"user_filter": "(objectClass=person)(uid=x)"}, r"ldap\.user_filter: "),
        ({"group_filter": "(member)"}, r"ldap\.group_filter: '\(member\)'"),
        ({"ca": Path("/does/not/exist")}, r"ldap\.ca: cannot use /does/not/exist"),
        ({"bind_password_file": Path("/does/not/exist")}, r"ldap\.bind_password_file: cannot read /does/not/exist"),
        ({"bind_password_file": Path("/dev/null")}, r"ldap\.bind_password_file: the first line of /dev/null is empty"),
    ],
)
def test_what_is_wrong_without_asking_anybody(config: LdapConfig, change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Directory(replace(config, **change))  # type: ignore[arg-type]
