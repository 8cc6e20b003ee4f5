"""People of an LDAP directory or of Active Directory: who they are, whether that is their password, and which role their groups give (RFC 4511, 4513, 4515).

Over TLS only, verified. A person is found by the service account (or anonymously), the groups likewise and the groups of those groups, then the person's own password is tried: search, then bind. ldap3
works in threads; each attempt has one deadline, at which its connection is cut. A server that does not answer is asked last the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPExceptionError
from ldap3.operation.search import parse_filter
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from replicad.errors import BusyError, ConfigurationError, UnreachableError
from replicad.integrations.logins import LdapConfig, read_secret, strongest
from replicad.model.callers import Account, Source
from replicad.net.https import verified_context
from replicad.telemetry.log import get

log = get(__name__)

THREADS = 4
WAITING_MAX = 64
"""Logins under way; each takes at most the timeout for each server."""
DEPTH_MAX = 10
"""Groups of groups of groups: so many levels are looked at."""
GROUPS_MAX = 500
"""Of a person. Active Directory gives 1,000 on one page, and its tickets hold 1,015."""
NAMES_PER_SEARCH = 50
_ESCAPED = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)
_OK, _TOO_MANY, _BUSY, _UNAVAILABLE = 0, 4, 51, 52


_Name = tuple[tuple[str, str, str], ...]


class _FailedError(Exception):
    """This server cannot tell; the next one may."""


class Directory:
    """An ``Authenticator``. ConfigurationError for what can be seen to be wrong without asking a server."""

    def __init__(self, config: LdapConfig) -> None:
        self._config = config
        self._password = read_secret(config.bind_password_file, key="ldap.bind_password_file").encode()
        self._context = verified_context(config.ca, key="ldap.ca")
        try:
            self._rights = {_canonical(name): rights for name, rights in config.groups.items()}
        except LDAPExceptionError as error:
            raise ConfigurationError(f"ldap.groups: what is no name of a group (DN) stands there: {error}") from None
        for key, text in (("user_filter", config.user_filter), ("group_filter", config.group_filter)):
            try:
                parse_filter(text.replace("{dn}", "cn=x"), None, auto_escape=False, auto_encode=False, validator=None, check_names=False)  # type: ignore[no-untyped-call]
            except LDAPExceptionError as error:
                raise ConfigurationError(f"ldap.{key}: {text!r} is not a search filter: {error}") from None
        self._urls = list(config.urls)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ldap")
        self._waiting = 0

    def close(self) -> None:
        """Nothing is asked any more. What is under way ends at its deadline at the latest."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def authenticate(self, name: str, password: str) -> Account | None:
        """As ``Authenticator`` says; a person without any group of the configuration has no role. UnreachableError("directory-unreachable") if no server can tell; BusyError beyond WAITING_MAX."""
        if not name or not password:  # a bind without a password succeeds, as nobody (RFC 4513, 5.1.2)
            return None
        if self._waiting >= WAITING_MAX:
            raise BusyError("too many people log in at the same time", retry_s=1.0)
        self._waiting += 1
        try:
            for url in tuple(self._urls):
                try:
                    return await self._ask(url, name, password)
                except _FailedError as error:
                    log.warning("a directory server cannot say who somebody is", url=url, reason=str(error))
                    self._urls.sort(key=url.__eq__)
        finally:
            self._waiting -= 1
        raise UnreachableError(
            "the directory cannot be asked now; users of this node can log in",
            code="directory-unreachable",
            hint="the daemon's log says why; replicad on the node itself works as ever",
        )

    async def _ask(self, url: str, name: str, password: str) -> Account | None:
        attempt = _Attempt(url, self._context, self._config.timeout_s)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, attempt, name, password)
        try:
            await asyncio.wait({work}, timeout=self._config.timeout_s)
            if not work.done():
                raise _FailedError(f"no answer within {self._config.timeout_s:g} s")
            return work.result()
        finally:
            attempt.cut()
            work.cancel()

    def _work(self, attempt: _Attempt, name: str, password: str) -> Account | None:
        """In a thread."""
        try:
            with attempt.connected(start_tls=self._config.start_tls) as connection:
                self._bind_service(connection)
                found = self._person(connection, name)
                if found is None:
                    return None
                dn, spelled = found
                rights = strongest(self._rights[group] for group in self._groups(connection, dn) if group in self._rights)
                if not _bind(connection, dn, password.encode()) or rights is None:
                    return None
                return Account(spelled, Source.LDAP, rights.role, rights.shares)
        except UnicodeError:
            return None
        except (LDAPExceptionError, OSError) as error:
            raise _FailedError(str(error)) from None

    def _bind_service(self, connection: ldap3.Connection) -> None:
        if self._config.bind_dn and not _bind(connection, self._config.bind_dn, self._password):
            raise _FailedError(f"it refuses ldap.bind_dn: {connection.result['description']}")

    def _person(self, connection: ldap3.Connection, name: str) -> tuple[str, str] | None:
        """Name (DN) of the only person of that login name, and the login name as the directory spells it. Directories see through spaces and look-alikes; here a name is what was typed, except for case, so
        that all guesses at one person are counted together.
        """
        attribute = self._config.name_attribute
        asked = f"(&{self._config.user_filter}({attribute}={escape_filter_chars(name)}))"
        found = _search(connection, self._config.base, asked, attributes=[attribute], most=2)
        if len(found) != 1:
            return None
        names = {key.lower(): values for key, values in found[0]["raw_attributes"].items()}.get(attribute.lower(), ())
        return next(((found[0]["dn"], text) for value in names if (text := value.decode()).casefold() == name.casefold()), None)

    def _groups(self, connection: ldap3.Connection, dn: str) -> set[_Name]:
        """The groups of the person, the groups of those, and so on, as canonical names; each is looked at once, so groups that contain each other end nothing."""
        found: set[_Name] = set()
        level = [dn]
        for _ in range(DEPTH_MAX):
            new = {_canonical(group): group for group in self._containing(connection, level)}
            level = [group for name, group in new.items() if name not in found]
            found |= new.keys()
            if not level:
                return found
            if len(found) > GROUPS_MAX:
                break
        log.warning("somebody is in more groups than are looked at", groups=len(found), levels=DEPTH_MAX)
        return found

    def _containing(self, connection: ldap3.Connection, members: list[str]) -> Iterator[str]:
        base = self._config.group_base or self._config.base
        for start in range(0, len(members), NAMES_PER_SEARCH):
            parts = [self._config.group_filter.replace("{dn}", escape_filter_chars(dn)) for dn in members[start : start + NAMES_PER_SEARCH]]
            for entry in _search(connection, base, f"(|{''.join(parts)})", attributes=[ldap3.NO_ATTRIBUTES], most=GROUPS_MAX):
                yield entry["dn"]


class _Attempt:
    """One connection, which another thread may cut at any time."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host = str(parts.hostname)
        self._is_tls = parts.scheme == "ldaps"
        self._port = parts.port or (636 if self._is_tls else 389)
        self._tls = _Tls(context, self._host, self.hold)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._is_cut = False
        self._socket: socket.socket | None = None

    @contextlib.contextmanager
    def connected(self, *, start_tls: bool) -> Iterator[ldap3.Connection]:
        """With TLS, and nobody's name yet."""
        connection = self._open(start_tls=start_tls)
        try:
            yield connection
        finally:
            self._close(connection)

    def _open(self, *, start_tls: bool) -> ldap3.Connection:
        """To the first of the host's addresses that answers. Each gets a connection of its own: ldap3 would leave those that failed to chance."""
        failures: list[str] = []
        for *_, (address, *_) in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            connection = self._connection(str(address))
            try:
                connection.open(read_server_info=False)
                self.hold(connection.socket)
                if start_tls and not connection.start_tls(read_server_info=False):
                    raise _FailedError(f"it refuses StartTLS: {connection.last_error or connection.result['description']}")
            except (LDAPExceptionError, OSError, _FailedError) as error:
                self._close(connection)
                failures.append(str(error))
            else:
                return connection
        raise _FailedError("; ".join(failures))

    def _connection(self, address: str) -> ldap3.Connection:
        """Referrals are not followed: they would take passwords to other servers."""
        host = f"[{address}]" if ":" in address else address
        server = ldap3.Server(host, port=self._port, use_ssl=self._is_tls, tls=self._tls, get_info=ldap3.NONE, connect_timeout=self._timeout_s)
        wait_s = max(1, round(self._timeout_s))
        return ldap3.Connection(server, client_strategy=ldap3.SYNC, auto_referrals=False, check_names=False, read_only=True, receive_timeout=wait_s)

    def _close(self, connection: ldap3.Connection) -> None:
        connection.strategy.close()
        with self._lock:
            held, self._socket = self._socket, None
        for one in (held, connection.socket):
            if one is not None:
                one.close()

    def hold(self, connected: socket.socket) -> None:
        """Remember this connection: a second descriptor of it, which stays when TLS takes over the first."""
        with self._lock:
            if self._is_cut:
                raise _FailedError("too late")
            if self._socket is None:
                self._socket = socket.socket(fileno=os.dup(connected.fileno()))

    def cut(self) -> None:
        """Whatever waits for this connection fails now."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Tls(ldap3.Tls):
    """TLS as everywhere else: chain and name are verified by the standard library."""

    def __init__(self, context: ssl.SSLContext, host: str, hold: Callable[[socket.socket], None]) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context
        self._host = host
        self._hold = hold

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """For ldaps:// when connected, for ldap:// after StartTLS. The handshake is part of it in any case."""
        del do_handshake
        self._hold(connection.socket)
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._host)


def _bind(connection: ldap3.Connection, dn: str, password: bytes) -> bool:
    """Whether that is the password of that name. As bytes: prepared as text (RFC 4013), a password of soft hyphens would become none at all, and a bind without one succeeds."""
    if connection.rebind(dn, password, ldap3.SIMPLE, read_server_info=False):
        return True
    if connection.result["result"] in {_BUSY, _UNAVAILABLE}:
        raise _FailedError(connection.result["description"])
    return False


def _search(connection: ldap3.Connection, base: str, filter_: str, *, attributes: Iterable[str], most: int) -> list[dict[str, Any]]:
    """At most ``most`` entries."""
    connection.search(base, filter_, ldap3.SUBTREE, attributes=list(attributes), size_limit=most)
    if connection.result["result"] not in {_OK, _TOO_MANY}:
        raise _FailedError(f"it refuses to search {base!r}: {connection.result['description']}")
    return [entry for entry in connection.response or () if entry["type"] == "searchResEntry"][:most]


def _canonical(dn: str) -> _Name:
    """A name (DN) in the one form in which names are compared here: case, runs of spaces and how a character is escaped do not matter. LDAPExceptionError if it is none."""
    parts = parse_dn(dn, escape=False, strip=True)
    return tuple((attribute.casefold(), " ".join(_plain(value).split()).casefold(), separator) for attribute, value, separator in parts)


def _plain(value: str) -> str:
    """Without escapes (RFC 4514, 2.4)."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].replace("\\", "")).decode(errors="replace") if found[1] else found[2], value)
