"""Every key of the configuration: its kind, its default and what it is for.

This table is the only place: checking, ``config show``, ``config example`` and the shipped config.example.toml are made from it. Defaults of a mechanism are read from that mechanism's
own Config dataclass, so there is one of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from replicad.config import logins
from replicad.config.keys import REQUIRED, Key
from replicad.config.networks import Cidr
from replicad.config.quantities import Duration, Rate, Switch
from replicad.config.rates import RATE, SITE_RATE, WINDOW, ZONE
from replicad.config.values import Address, Choice, ChoiceOrFiles, File, Integer, Listen, ListOf, Reserve, Room, Size, Text, Url
from replicad.model.access import Network
from replicad.model.callers import Retention
from replicad.model.records import NAME_MAX
from replicad.protocol.fetch.config import FetchConfig
from replicad.store.care import CollectConfig, ScrubConfig
from replicad.store.space import StoreConfig

MIB = 1 << 20
GIB = 1 << 30
DAY_S = 86_400.0
_STORE = StoreConfig()
_FETCH = FetchConfig()
_COLLECT = CollectConfig()
_SCRUB = ScrubConfig()
_AUDIT = Retention()


class Node(Struct, frozen=True):
    """Who this node is and where it keeps everything. ``data`` is absolute."""

    name: str
    data: Path
    site: str


class Downloads(Struct, frozen=True):
    """The door for clients. ``tls`` is (certificate file, key file), None for plain HTTP; ``access_log`` is None when none is kept; ``url`` is None to derive it from ``listen``."""

    listen: Address
    tls: tuple[Path, Path] | None
    on_missing: Literal["stream", "404"]
    access_log: Path | None
    listing: tuple[str, ...]
    url: str | None
    networks: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]


class Peers(Struct, frozen=True):
    """The door for nodes. ``url`` is None to derive it from ``listen``. ``tls`` is "auto" (self-made certificate), "off" or (certificate file, key file)."""

    listen: Address
    url: str | None
    tls: Literal["auto", "off"] | tuple[Path, Path]
    connect: tuple[str, ...]


class Admin(Struct, frozen=True):
    """The door for people and scripts. ``listen`` is None when there is only the socket; ``tls`` is (certificate file, key file) of the listener, None for plain HTTP."""

    socket: Path
    listen: Address | None
    tls: tuple[Path, Path] | None
    retention: Retention


class Log(Struct, frozen=True):
    """How the daemon speaks on stderr."""

    format: Literal["text", "json"]
    level: Literal["debug", "info", "warning", "error"]


SECTIONS: dict[str, str] = {
    "node": "This node.",
    "downloads": "The door for clients: files over HTTP or HTTPS, read only.",
    "peers": "The door for the other nodes of the network.",
    "admin": "The door for people and scripts: the Unix socket that the replicad command uses, and optionally TCP with bearer tokens (replicad token; admin.token in the data directory is the root token) and logins (replicad user, replicad login).",
    "storage": "The disk.",
    "scrub": "Every file is read again now and then; what the disk lost is fetched again from other nodes.",
    "limits": 'How fast bytes may flow between this node and others, in bytes per second. What "replicad limits set" says goes before this. Urgent files have no limits.',
    "fetch": "Bounds on transfers between nodes.",
    "ldap": "People of a directory (LDAP, Active Directory) may log in. Needs ldap3: pip install 'replicad[ldap]'.",
    "oidc": "People of a provider of OpenID Connect may log in, at /oidc/login of the admin door. Needs joserfc: pip install 'replicad[oidc]'.",
    "log": "What the daemon writes to stderr.",
}

KEYS: tuple[Key, ...] = (
    Key("node", "name", Text(NAME_MAX, may_be_empty=False), REQUIRED, "A label for people; the node's identity is its key. Required.", sample='"ams1"'),
    Key(
        "node",
        "data",
        File(),
        Path("/var/lib/replicad"),
        "Where keys, database and files live. Relative paths, here and below, start at this file's directory.",
    ),
    Key("node", "site", Text(NAME_MAX), "", "Where the node stands, such as a town. Nodes of one site prefer each other."),
    Key("downloads", "listen", Listen(), Address("", 8480), "HOST:PORT; without a host: every interface."),
    Key(
        "downloads",
        "tls_certificate",
        File(),
        None,
        "The door's certificate with its chain, PEM: then it speaks HTTPS only. New files are taken up within seconds, without a restart.",
        sample='"/etc/replicad/tls/fullchain.pem"',
    ),
    Key("downloads", "tls_key", File(), None, "The certificate's private key, PEM. Both keys, or neither.", sample='"/etc/replicad/tls/privkey.pem"'),
    Key(
        "downloads",
        "on_missing",
        Choice(("stream", "404")),
        "stream",
        'What a client gets for a file that this node still fetches. "stream": the file as it arrives, what it asks for first; 503 when nobody brings it. "404" lets it try another node.',
    ),
    Key(
        "downloads",
        "access_log",
        File(may_be_off=True),
        None,
        'Who took what: JSON Lines, renamed to NAME.1 at 64 MiB. Empty: access.log in the data directory. "off": none.',
    ),
    Key(
        "downloads",
        "url",
        Url(),
        None,
        "How clients reach this door: what signed URLs, metalinks and MDM manifests are made of. Empty: the listening address, of which clients of other nodes hear only if it is not every interface.",
        sample='"https://ams1.example.org"',
    ),
    Key(
        "downloads",
        "networks",
        ListOf(Cidr()),
        (),
        "Networks whose clients are nearest to this node: all nodes name it first to them. Counts for an admin's node; for any other an admin says it: replicad peer set NODE --network.",
        sample='["10.4.0.0/16"]',
    ),
    Key(
        "downloads",
        "trusted_proxies",
        ListOf(Cidr()),
        (),
        "Networks of proxies in front of this door: only their X-Forwarded-For is believed.",
        sample='["127.0.0.0/8"]',
    ),
    Key(
        "downloads",
        "listing",
        ListOf(Text(63, may_be_empty=False)),
        (),
        "Shares whose directories anybody who may download from them can list.",
        sample='["munki"]',
    ),
    Key("peers", "listen", Listen(), Address("", 8440), "HOST:PORT; without a host: every interface."),
    Key(
        "peers", "url", Url(), None, "How the other nodes reach this door. Empty: https:// and the listening address.", sample='"https://ams1.example.org:8440"'
    ),
    Key(
        "peers",
        "tls",
        ChoiceOrFiles(("auto", "off")),
        "auto",
        '"auto": a self-made certificate that the other nodes pin. "off": only behind a TLS proxy or inside a trusted network. Or your own: ["certificate.pem", "key.pem"].',
    ),
    Key("peers", "connect", ListOf(Url()), (), "Peer doors to try besides those that the network already knows.", sample='["https://ber1.example.org:8440"]'),
    Key("admin", "socket", File(), None, "The Unix socket. Empty: admin.sock in the data directory."),
    Key("admin", "listen", Listen(may_be_off=True), Address("127.0.0.1", 8441), 'HOST:PORT, or "off" for the socket alone.'),
    Key(
        "admin",
        "tls_certificate",
        File(),
        None,
        "The listener's certificate with its chain, PEM: then it speaks HTTPS only. Needed where passwords come over a network. Renewed as the downloads door's.",
        sample='"/etc/replicad/tls/fullchain.pem"',
    ),
    Key("admin", "tls_key", File(), None, "The certificate's private key, PEM. Both keys, or neither.", sample='"/etc/replicad/tls/privkey.pem"'),
    Key("admin", "audit_time", Duration(DAY_S, 3650 * DAY_S), _AUDIT.time_s, "How long what was done through this door stays in the audit log."),
    Key("admin", "audit_actions", Integer(1000, 10_000_000), _AUDIT.actions, "How many actions stay in the audit log at most."),
    Key("storage", "reserve", Room(), Reserve(fraction=_STORE.reserve_fraction), "Room on the file system that is never used: a percentage or a size."),
    Key("storage", "quota", Size(), _STORE.quota_bytes, "The most that files may take; 0 B: no such bound."),
    Key(
        "storage",
        "retention_time",
        Duration(0.0, 3650 * DAY_S),
        _COLLECT.grace_s,
        "How long content stays after the last file that names it was removed or replaced.",
    ),
    Key("storage", "retention_versions", Integer(0, 1000), _COLLECT.versions, "How many older versions of a living file stay for rollback, however old."),
    Key("scrub", "enabled", Switch(), _SCRUB.enabled, "Whether that happens by itself; replicad store scrub now does it in any case."),
    Key("scrub", "interval", Duration(3600.0, 3650 * DAY_S), _SCRUB.interval_s, "Every file is read once in that time."),
    Key("scrub", "rate", Rate(), _SCRUB.rate, "The most that is read a second for it."),
    Key("limits", "download", RATE, None, 'From all other nodes together, such as "5 MB/s"; "0 B/s": nothing but what is urgent.'),
    Key("limits", "upload", RATE, None, "To all other nodes together. Clients are not limited."),
    Key("limits", "sites", ListOf(SITE_RATE), (), "With all nodes of a site together, in each direction.", sample='["syd1 2 MB/s"]'),
    Key(
        "limits",
        "windows",
        ListOf(WINDOW),
        (),
        "Other rates at certain hours of the week, for download, upload or site:NAME; where windows overlap, the first one counts.",
        sample='["mon-fri 08:00-18:00 download 1 MB/s", "sat 22:00-06:00 upload none"]',
    ),
    Key("limits", "zone", ZONE, None, "The time zone of the windows. Empty: the system's.", sample='"Europe/Berlin"'),
    Key("fetch", "files_at_once", Integer(1, 64), _FETCH.contents_max, "Large files fetched at the same time."),
    Key("fetch", "requests_per_peer", Integer(1, 64), _FETCH.requests_per_peer, "Requests under way with one node."),
    Key(
        "fetch",
        "bytes_in_flight",
        Size(MIB, 4 * GIB),
        _FETCH.bytes_in_flight_max,
        "Bytes asked for and not yet verified, all files and nodes together. Memory follows it.",
    ),
    Key(
        "fetch",
        "uploads_at_once",
        Integer(1, 1024),
        _FETCH.uploads_max,
        "Answers given to other nodes at the same time; the rest wait or are told to come back.",
    ),
    Key("fetch", "uploads_per_peer", Integer(1, 64), _FETCH.uploads_per_peer, "Answers given to one node at the same time."),
    *logins.KEYS,
    Key("log", "format", Choice(("text", "json")), "text", '"text" for people and the journal, "json" for collectors: one object a line.'),
    Key("log", "level", Choice(("debug", "info", "warning", "error")), "info", "The least important line that is written."),
)
