"""[ldap] and [oidc], the directories and providers that vouch for people: their kinds of values, their keys, and what of them must be given together."""

from __future__ import annotations

import inspect
import re
import tomllib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from replicad.config.keys import Key
from replicad.config.quantities import Duration, Switch
from replicad.config.values import File, ListOf, Strings, Text, Url, quoted, suggestion
from replicad.errors import InputError
from replicad.integrations.logins import LdapConfig, OidcConfig, Rights
from replicad.model.callers import AccessRole
from replicad.model.ids import check_share_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GROUPS_MAX = 256
GROUP_CHARS_MAX = 512
ROLES = tuple(AccessRole)
_GROUP = Text(GROUP_CHARS_MAX, may_be_empty=False)
_RIGHTS = Text(4096)


class LdapUrl(Strings):
    """Where a directory server listens."""

    expects = 'a URL such as "ldaps://dc1.example.org"'

    def parse(self, value: object) -> str:
        """As it was written."""
        text = self._text(value)
        try:
            parts = urlsplit(text)
            usable = parts.scheme in {"ldaps", "ldap"} and parts.hostname and parts.port != 0 and text == f"{parts.scheme}://{parts.netloc}" and "@" not in text
        except ValueError:
            usable = False
        if not usable or len(text) > 300 or not text.isascii() or not text.isprintable():
            raise ValueError(f"{self.expects} expected, got {quoted(text[:80])}")
        return text


class Issuer(Url):
    """Who a provider says it is: a URL, never without TLS, and as it was written, because it is compared letter by letter."""

    expects = 'a URL such as "https://login.example.org/realms/office"'

    def parse(self, value: object) -> str | None:
        """None if empty."""
        found = super().parse(value)
        if found is not None and not found.startswith("https://"):
            raise ValueError(f"{self.expects} expected, got {quoted(found[:80])}")
        return None if found is None else str(value)


class Filter(Strings, Struct, frozen=True):
    """A search filter (RFC 4515), perhaps with {dn} in it."""

    placeholder: str = ""

    @property
    def expects(self) -> str:  # type: ignore[override]
        """With an example."""
        return f'a search filter{f" with {self.placeholder}" if self.placeholder else ""} such as "({f"member={self.placeholder}" if self.placeholder else "objectClass=person"})"'

    def parse(self, value: object) -> str:
        """As it was written; the directory client looks at it again."""
        text = self._text(value)
        if (
            not re.fullmatch(r"\(.+\)", text)
            or text.count("(") != text.count(")")
            or len(text) > 1000
            or not text.isprintable()
            or self.placeholder not in text
        ):
            raise ValueError(f"{self.expects} expected, got {quoted(text[:80])}")
        return text


class Groups:
    """From the name of a group to what it gives: ``{ "GROUP" = "ROLE [SHARE...]" }``; in the environment the same text."""

    expects = 'a table such as { "cn=packagers,ou=groups,dc=example,dc=org" = "publisher munki" }'

    def parse(self, value: object) -> dict[str, Rights]:
        """At most GROUPS_MAX of them."""
        if not isinstance(value, dict) or len(value) > GROUPS_MAX:
            raise ValueError(f"{self.expects} expected, with at most {GROUPS_MAX} groups")
        return {_GROUP.parse(name): _rights(name, text) for name, text in value.items()}

    def from_text(self, text: str) -> object:
        """As in TOML."""
        try:
            return tomllib.loads(f"groups = {text}")["groups"]
        except tomllib.TOMLDecodeError:
            return text

    def show(self, value: Mapping[str, Rights]) -> str:
        """As an inline table."""
        rows = [f"{quoted(name)} = {quoted(' '.join([rights.role, *sorted(rights.shares or ())]))}" for name, rights in value.items()]
        return f"{{ {', '.join(rows)} }}" if rows else "{}"


def _rights(name: str, value: object) -> Rights:
    role, *shares = _RIGHTS.parse(value).split() or [""]
    if role not in ROLES:
        raise ValueError(f"{quoted(name)}: a role expected ({', '.join(ROLES)}), got {quoted(role[:40])}{suggestion(role, ROLES)}")
    try:
        return Rights(AccessRole(role), frozenset(check_share_name(share) for share in shares) or None)
    except InputError as error:
        raise ValueError(f"{quoted(name)}: {error.message}") from None


_URLS = ListOf(LdapUrl(), most=8)
_LDAP = LdapConfig((), "", {})
_OIDC = OidcConfig("", "", "", {})
_LONG = Text(500)
_WORD = Text(200, may_be_empty=False)

KEYS: tuple[Key, ...] = (
    Key(
        "ldap",
        "urls",
        _URLS,
        (),
        "The servers, asked in this order: ldaps://, or ldap:// with start_tls. Empty: no directory.",
        sample='["ldaps://dc1.example.org"]',
    ),
    Key("ldap", "start_tls", Switch(), _LDAP.start_tls, "Whether ldap:// begins with StartTLS; without TLS nothing is asked."),
    Key(
        "ldap",
        "ca",
        File(),
        None,
        "The authorities that may sign the servers' certificates, PEM. Empty: the system's.",
        sample='"/etc/replicad/directory-ca.pem"',
    ),
    Key("ldap", "timeout", Duration(1.0, 60.0), _LDAP.timeout_s, "All that one login asks of one server; then the next one is asked."),
    Key("ldap", "bind_dn", _LONG, "", "The account that searches. Empty: nobody's.", sample='"cn=replicad,ou=services,dc=example,dc=org"'),
    Key("ldap", "bind_password_file", File(), None, "Its password is the first line of this file.", sample='"/etc/replicad/ldap.password"'),
    Key("ldap", "base", _LONG, "", "Below which people are searched.", sample='"ou=people,dc=example,dc=org"'),
    Key("ldap", "name_attribute", _WORD, _LDAP.name_attribute, 'What people type to log in; in Active Directory "sAMAccountName".'),
    Key("ldap", "user_filter", Filter(), _LDAP.user_filter, "What else must be true of them."),
    Key("ldap", "group_base", _LONG, "", "Below which groups are searched. Empty: base.", sample='"ou=groups,dc=example,dc=org"'),
    Key(
        "ldap",
        "group_filter",
        Filter("{dn}"),
        _LDAP.group_filter,
        'The groups that {dn} is in: asked about the person, and about the groups that were found. With Active Directory "(member={dn})" is quickest.',
    ),
    Key(
        "ldap",
        "groups",
        Groups(),
        {},
        "Who is in this group (by its DN), or in a group in it, has this role, over these shares or all. Nobody else may log in. Best as a section of its own: [ldap.groups].",
        sample='{ "cn=packagers,ou=groups,dc=example,dc=org" = "publisher munki" }',
    ),
    Key("oidc", "issuer", Issuer(), None, "The provider, exactly as it calls itself. Empty: none.", sample='"https://login.example.org/realms/office"'),
    Key("oidc", "client_id", _LONG, "", "What the provider calls this node.", sample='"replicad"'),
    Key(
        "oidc",
        "client_secret_file",
        File(),
        None,
        "The secret that it gave is the first line of this file. Empty: a public client.",
        sample='"/etc/replicad/oidc.secret"',
    ),
    Key(
        "oidc",
        "url",
        Url(),
        None,
        "How browsers reach the admin door. The provider must allow this address with /oidc/callback behind it.",
        sample='"https://ams1.example.org:8441"',
    ),
    Key("oidc", "scopes", ListOf(_WORD), _OIDC.scopes, 'What is asked for; some providers tell groups only with "groups".'),
    Key("oidc", "name_claim", _WORD, _OIDC.name_claim, "What people are called here. It must be theirs alone."),
    Key("oidc", "groups_claim", _WORD, _OIDC.groups_claim, "The claim of the ID token that lists groups or roles."),
    Key(
        "oidc",
        "groups",
        Groups(),
        {},
        "As in [ldap]: what each value of that claim gives. Best as a section of its own: [oidc.groups].",
        sample='{ "packagers" = "publisher munki" }',
    ),
    Key(
        "oidc",
        "hosts",
        ListOf(_WORD, most=8),
        (),
        "Hosts at which the provider has addresses, besides its own; nothing else is asked.",
        sample='["oauth2.googleapis.com"]',
    ),
    Key(
        "oidc",
        "ca",
        File(),
        None,
        "The authorities that may sign the provider's certificates, PEM. Empty: the system's.",
        sample='"/etc/replicad/provider-ca.pem"',
    ),
)


def gaps(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is missing or contradicts itself in [ldap] and [oidc]: the key to name, and what is wrong."""
    yield from _lacking(values, "ldap.urls", ("ldap.base", "ldap.groups"))
    yield from _lacking(values, "oidc.issuer", ("oidc.client_id", "oidc.url", "oidc.groups"))
    for url in values["ldap.urls"]:
        if url.startswith("ldap:") and not values["ldap.start_tls"]:
            yield "ldap.urls", f"{quoted(url)} would send passwords in the clear: write ldaps://, or start_tls = true"
        if url.startswith("ldaps:") and values["ldap.start_tls"]:
            yield "ldap.start_tls", f"{quoted(url)} speaks TLS from the start: write ldap://, or start_tls = false"
    if (url := values["oidc.url"]) and not url.startswith("https://") and urlsplit(url).hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield "oidc.url", f"{quoted(url)} would send sessions in the clear: write https:// (http:// only for this machine itself)"
    if bool(values["ldap.bind_dn"]) != bool(values["ldap.bind_password_file"]):
        missing = "bind_dn" if values["ldap.bind_password_file"] else "bind_password_file"
        yield ("ldap.bind_password_file" if missing == "bind_dn" else "ldap.bind_dn"), f"needs {missing} beside it"


def _lacking(values: Mapping[str, Any], first: str, others: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A section counts when its first key is given, and then needs the others."""
    if values[first]:
        for other in others:
            if not values[other]:
                yield first, f"needs {other.partition('.')[2]} beside it"
    else:
        for other in others:
            if values[other]:
                yield other, f"needs {first.partition('.')[2]} beside it"


def ldap(values: Mapping[str, Any], base: Path) -> LdapConfig | None:
    """The section, None if it is not used. Relative paths start at ``base``."""
    given = {name: values[f"ldap.{name}"] for name in _names(LdapConfig) if name != "timeout_s"}
    return LdapConfig(**_absolute(given, base), timeout_s=values["ldap.timeout"]) if given["urls"] else None


def oidc(values: Mapping[str, Any], base: Path) -> OidcConfig | None:
    """The section, None if it is not used. Relative paths start at ``base``."""
    given = {name: values[f"oidc.{name}"] for name in _names(OidcConfig)}
    return OidcConfig(**_absolute(given, base)) if given["issuer"] else None


def _names(kind: type) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


def _absolute(given: dict[str, Any], base: Path) -> dict[str, Any]:
    return {name: base / value if value is not None and name in {"ca", "bind_password_file", "client_secret_file"} else value for name, value in given.items()}
