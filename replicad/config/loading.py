"""From a file and the environment to a ``Config``, or to one ConfigurationError that lists everything that is wrong, each with its place and a suggestion.

The environment wins over the file: ``REPLICAD__DOWNLOADS__LISTEN`` is the key ``listen`` of ``[downloads]``. Unknown sections, keys and variables are refused: a misspelt bound that is
silently ignored is worse than a daemon that does not start.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from replicad.config import logins
from replicad.config.document import DOCUMENT_BYTES_MAX, Document, read
from replicad.config.keys import REQUIRED, Key
from replicad.config.sections import KEYS, SECTIONS, Admin, Downloads, Log, Node, Peers
from replicad.config.values import OFF, Address, suggestion
from replicad.errors import ConfigurationError
from replicad.model.callers import Retention
from replicad.model.limits import DOWNLOAD, SITE, UPLOAD, Limits
from replicad.protocol.fetch.config import FetchConfig
from replicad.store.care import CollectConfig, ScrubConfig
from replicad.store.space import StoreConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from replicad.integrations.logins import LdapConfig, OidcConfig

PREFIX = "REPLICAD__"
DEFAULT = "default"
ENVIRONMENT = "environment"
EVERY_INTERFACE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound
_BY_PATH = {key.path: key for key in KEYS}
_NAMES = {section: [key.name for key in KEYS if key.section == section] for section in SECTIONS}


class Row(Struct, frozen=True):
    """One key as it stands: ``key`` is ``section.name``, ``text`` the value as TOML, ``origin`` ``FILE:LINE``, ``environment`` or ``default``."""

    key: str
    value: object
    text: str
    origin: str
    help: str


class Config(Struct, frozen=True):
    """The whole configuration. ``path`` is the file it came from; the sections are those of config.example.toml, composed into what each mechanism asks for."""

    path: Path
    node: Node
    downloads: Downloads
    peers: Peers
    admin: Admin
    storage: StoreConfig
    limits: Limits
    zone: tzinfo | None
    collect: CollectConfig
    scrub: ScrubConfig
    fetch: FetchConfig
    ldap: LdapConfig | None
    oidc: OidcConfig | None
    log: Log
    values: Mapping[str, object]
    origins: Mapping[str, str]

    def rows(self) -> list[Row]:
        """Every key with its value and where that came from, in the order of the example."""
        return [Row(key.path, self.values[key.path], key.kind.show(self.values[key.path]), self.origins[key.path], key.help) for key in KEYS]

    def changes(self, newer: Config) -> list[str]:
        """The keys (``section.name``) that have another value in ``newer``, in the order of the example."""
        return [key.path for key in KEYS if self.values[key.path] != newer.values[key.path]]

    @property
    def node_key(self) -> Path:
        """This node's private key."""
        return self.node.data / "node.key"

    @property
    def network_key(self) -> Path:
        """The network's private key, if it was founded here and not yet moved to a safe place."""
        return self.node.data / "network.key"

    @property
    def catalog(self) -> Path:
        """The database."""
        return self.node.data / "catalog.sqlite"

    @property
    def peer_certificate(self) -> Path:
        """The self-made certificate of the peer door."""
        return self.node.data / "peer.crt"

    @property
    def peer_key(self) -> Path:
        """The private key of that certificate."""
        return self.node.data / "peer.key"

    @property
    def admin_socket(self) -> Path:
        """The Unix socket of the admin door."""
        return self.admin.socket

    @property
    def admin_token(self) -> Path:
        """The bearer token of the admin door's TCP listener."""
        return self.node.data / "admin.token"

    @property
    def peers_url(self) -> str:
        """How other nodes reach the peer door: as configured, else from where it listens (this machine's name if that is every interface)."""
        return self.peers.url or _url("http" if self.peers.tls == "off" else "https", self.peers.listen)

    @property
    def downloads_url(self) -> str:
        """The same for clients and the downloads door."""
        return self.downloads.url or _url("https" if self.downloads.tls else "http", self.downloads.listen)

    @property
    def is_downloads_url_known(self) -> bool:
        """Whether that is more than a guess from this machine's name, so that clients of other nodes may be sent there."""
        return self.downloads.url is not None or self.downloads.listen.host not in EVERY_INTERFACE


class _Given(Struct, frozen=True):
    """A value as somebody gave it, and where. ``problem_at`` begins the message about it, ``origin`` is what ``config show --origin`` says."""

    value: object
    problem_at: str
    origin: str


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in the file, overruled by ``REPLICAD__SECTION__KEY`` in ``environ``. Raises ConfigurationError naming every problem, one per line."""
    document = _read(path)
    problems: list[str] = []
    given = _from_file(document, problems) | _from_environment(environ, problems)
    values = {key.path: _value(key, given.get(key.path), document.name, problems) for key in KEYS}
    problems += [*_halves(values, given, "downloads"), *_halves(values, given, "admin")]
    problems = problems or [f"{given[path].problem_at}: {problem}" for path, problem in logins.gaps(values) if path in given]
    if problems:
        raise ConfigurationError("\n".join(problems), hint="every key is explained by: replicad config example")
    origins = {key.path: given[key.path].origin if key.path in given else DEFAULT for key in KEYS}
    return _compose(path, values, origins)


def _read(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            encoded = file.read(DOCUMENT_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file", hint="make one: replicad init --name NAME") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    return read(str(path), encoded)


def _from_file(document: Document, problems: list[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for section, table in document.tables.items():
        if section not in SECTIONS:
            problems.append(f"{document.at(section)}: {_unknown_section(section, table)}")
        elif not isinstance(table, dict):
            problems.append(f'{document.at(section)}: "{section}" is a section: write [{section}] and its keys below')
        else:
            for name, value in table.items():
                place = document.at(section, name)
                if name in _NAMES[section]:
                    given[f"{section}.{name}"] = _Given(value, f"{place}: [{section}] {name}", place)
                else:
                    problems.append(f"{place}: {_unknown_key(section, name)}")
    return given


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
        key = _BY_PATH.get(f"{section}.{name}")
        if key is not None:
            given[key.path] = _Given(key.kind.from_text(environ[variable]), f"environment variable {variable}", ENVIRONMENT)
        else:
            known = [f"{key.section}__{key.name}".upper() for key in KEYS]
            problems.append(f"environment variable {variable}: no such key{suggestion(variable.removeprefix(PREFIX), known, before=PREFIX)}")
    return given


def _value(key: Key, given: _Given | None, document: str, problems: list[str]) -> Any:
    if given is None:
        if key.default is REQUIRED:
            problems.append(f"{document}: [{key.section}] {key.name} is missing; for example: {key.name} = {key.sample}")
        return key.default
    try:
        return key.kind.parse(given.value)
    except ValueError as error:
        problems.append(f"{given.problem_at}: {error}")
        return key.default


def _halves(values: dict[str, Any], given: dict[str, _Given], section: str) -> list[str]:
    """A certificate without its key, or a key without its certificate."""
    halves = (f"{section}.tls_certificate", f"{section}.tls_key")
    lonely = [path for path in halves if values[path]]
    if len(lonely) != 1 or lonely[0] not in given:
        return []
    missing = next(path for path in halves if path not in lonely).partition(".")[2]
    return [f"{given[lonely[0]].problem_at}: needs {missing} beside it"]


def _unknown_section(section: str, table: object) -> str:
    if isinstance(table, dict):
        return f"unknown section [{section}]{suggestion(section, list(SECTIONS)) or '; there are ' + ', '.join(SECTIONS)}"
    homes = [known for known, names in _NAMES.items() if section in names]
    return f'key "{section}" stands outside any section' + (f"; it belongs below [{homes[0]}]" if homes else "")


def _unknown_key(section: str, name: str) -> str:
    close = suggestion(name, _NAMES[section])
    homes = [known for known, names in _NAMES.items() if name in names]
    if not close and homes:
        close = f"; it belongs in [{homes[0]}]"
    return f'unknown key "{name}" in [{section}]{close or "; it knows " + ", ".join(_NAMES[section])}'


def _url(scheme: str, listen: Address) -> str:
    return f"{scheme}://{socket.gethostname()}:{listen.port}" if listen.host in EVERY_INTERFACE else f"{scheme}://{listen}"


def _tls(value: Any, base: Path) -> Literal["auto", "off"] | tuple[Path, Path]:
    return (base / value[0], base / value[1]) if isinstance(value, tuple) else value


def _both(values: dict[str, Any], base: Path, section: str) -> tuple[Path, Path] | None:
    certificate, key = values[f"{section}.tls_certificate"], values[f"{section}.tls_key"]
    return (base / certificate, base / key) if certificate and key else None


def _compose(path: Path, values: dict[str, Any], origins: dict[str, str]) -> Config:
    base = path.parent.absolute()
    data = base / values["node.data"]
    return Config(
        path=path,
        node=Node(name=values["node.name"], data=data, site=values["node.site"]),
        downloads=Downloads(
            listen=values["downloads.listen"],
            tls=_both(values, base, "downloads"),
            on_missing=values["downloads.on_missing"],
            listing=values["downloads.listing"],
            access_log=None if values["downloads.access_log"] is OFF else base / (values["downloads.access_log"] or data / "access.log"),
            url=values["downloads.url"],
            networks=values["downloads.networks"],
            trusted_proxies=values["downloads.trusted_proxies"],
        ),
        peers=Peers(
            listen=values["peers.listen"],
            url=values["peers.url"],
            tls=_tls(values["peers.tls"], base),
            connect=values["peers.connect"],
        ),
        admin=Admin(
            socket=base / values["admin.socket"] if values["admin.socket"] else data / "admin.sock",
            listen=values["admin.listen"],
            tls=_both(values, base, "admin"),
            retention=Retention(values["admin.audit_actions"], values["admin.audit_time"]),
        ),
        storage=StoreConfig(
            reserve_fraction=values["storage.reserve"].fraction, reserve_bytes=values["storage.reserve"].size_bytes, quota_bytes=values["storage.quota"]
        ),
        limits=Limits(
            {
                DOWNLOAD: values["limits.download"],
                UPLOAD: values["limits.upload"],
                **{f"{SITE}{name}": rate for name, rate in values["limits.sites"]},
            },
            values["limits.windows"],
        ),
        zone=values["limits.zone"],
        collect=CollectConfig(grace_s=values["storage.retention_time"], versions=values["storage.retention_versions"]),
        scrub=ScrubConfig(enabled=values["scrub.enabled"], interval_s=values["scrub.interval"], rate=values["scrub.rate"]),
        fetch=FetchConfig(
            contents_max=values["fetch.files_at_once"],
            requests_per_peer=values["fetch.requests_per_peer"],
            bytes_in_flight_max=values["fetch.bytes_in_flight"],
            uploads_max=values["fetch.uploads_at_once"],
            uploads_per_peer=values["fetch.uploads_per_peer"],
        ),
        ldap=logins.ldap(values, base),
        oidc=logins.oidc(values, base),
        log=Log(format=values["log.format"], level=values["log.level"]),
        values=values,
        origins=origins,
    )
