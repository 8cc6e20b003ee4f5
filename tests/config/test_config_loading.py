"""Loading: what is honoured, what is refused, and that every problem is named at once with its place."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from replicad import config
from replicad.config import Address
from replicad.errors import ConfigurationError
from replicad.integrations.logins import LdapConfig, OidcConfig, Rights
from replicad.model.callers import AccessRole

Load = Callable[..., config.Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, environ: dict[str, str] | None = None) -> config.Config:
        path = tmp_path / "replicad.toml"
        path.write_text(text)
        return config.load(path, environ or {})

    return load


def problems(load: Load, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(text, environ)
    assert caught.value.exit_code == 10
    return [re.sub(r"^/\S*/(?=replicad\.toml)", "", line) for line in caught.value.message.splitlines()]


NAMED = '[node]\nname = "ams1"\n'


def test_a_name_is_enough(load: Load, tmp_path: Path) -> None:
    found = load(NAMED)
    assert (found.node.name, found.node.site, found.node.data) == ("ams1", "", Path("/var/lib/replicad"))
    assert found.downloads.listen == Address("", 8480)
    assert found.downloads.on_missing == "stream"
    assert (found.downloads.tls, found.downloads.access_log) == (None, Path("/var/lib/replicad/access.log"))
    assert found.peers.listen == Address("", 8440)
    assert found.admin.listen == Address("127.0.0.1", 8441)
    assert found.admin_socket == Path("/var/lib/replicad/admin.sock")
    assert found.storage.reserve_fraction == 0.05
    assert set(found.origins.values()) == {"default", f"{tmp_path}/replicad.toml:2"}


def test_everything_can_be_said(load: Load, tmp_path: Path) -> None:
    found = load("""
[node]
name = "ber1"
data = "state"
site = "Berlin"
[downloads]
listen = "[::1]:8001"
tls_certificate = "tls/chain.pem"
tls_key = "/etc/door.pem"
access_log = "off"
listing = ["munki"]
on_missing = "404"
url = "https://ber1.example.org/"
networks = ["10.4.0.0/16"]
trusted_proxies = ["127.0.0.0/8", "::1"]
[peers]
listen = "10.0.0.1:8002"
url = "https://ber1.example.org:8440/"
tls = ["tls/cert.pem", "/etc/key.pem"]
connect = ["https://ams1.example.org:8440"]
[admin]
socket = "run/admin.sock"
listen = "off"
tls_certificate = "tls/admin.pem"
tls_key = "/etc/admin.pem"
audit_time = "90 d"
audit_actions = 5000
[storage]
reserve = "20 GiB"
quota = "1.5 TB"
retention_time = "36 h"
retention_versions = 0
[scrub]
enabled = false
interval = "60 d"
rate = "500 kB/s"
[limits]
download = "5 MB/s"
upload = "none"
sites = ["syd1 2 MB/s"]
windows = ["mon-fri 08:00-18:00 download 1 MB/s", "sat 22:00-06:00 site:syd1 none"]
zone = ""
[fetch]
files_at_once = 2
requests_per_peer = 3
bytes_in_flight = "64 MiB"
uploads_at_once = 5
uploads_per_peer = 1
[ldap]
urls = ["ldaps://dc1.example.org", "ldaps://dc2.example.org:3269"]
start_tls = false
ca = "ca.pem"
timeout = "2 s"
bind_dn = "cn=replicad,dc=example,dc=org"
bind_password_file = "/run/ldap.password"
base = "ou=people,dc=example,dc=org"
name_attribute = "sAMAccountName"
user_filter = "(objectCategory=person)"
group_base = "ou=groups,dc=example,dc=org"
group_filter = "(member={dn})"
[ldap.groups]
'cn=Mac\\, Packages,ou=groups,dc=example,dc=org' = "publisher munki jamf"
"cn=admins,ou=groups,dc=example,dc=org" = "admin"
[oidc]
issuer = "https://login.example.org/"
client_id = "replicad"
client_secret_file = "oidc.secret"
url = "https://ber1.example.org:8441/"
scopes = ["openid", "groups"]
name_claim = "email"
groups_claim = "roles"
groups = { packagers = "operator" }
hosts = ["keys.example.org"]
ca = "/etc/provider.pem"
[log]
format = "json"
level = "debug"
""")
    assert found.node.data == tmp_path / "state"
    assert (found.downloads.access_log, found.downloads.on_missing, found.downloads.listing) == (None, "404", ("munki",))
    assert found.downloads.tls == (tmp_path / "tls/chain.pem", Path("/etc/door.pem"))
    assert (found.downloads.listen, found.downloads_url) == (Address("::1", 8001), "https://ber1.example.org")
    assert found.downloads.networks == (ip_network("10.4.0.0/16"),)
    assert found.downloads.trusted_proxies == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert found.peers == type(found.peers)(
        listen=Address("10.0.0.1", 8002),
        url="https://ber1.example.org:8440",
        tls=(tmp_path / "tls/cert.pem", Path("/etc/key.pem")),
        connect=("https://ams1.example.org:8440",),
    )
    assert (found.admin_socket, found.admin.listen) == (tmp_path / "run/admin.sock", None)
    assert found.admin.tls == (tmp_path / "tls/admin.pem", Path("/etc/admin.pem"))
    assert (found.admin.retention.time_s, found.admin.retention.actions) == (90 * 86_400, 5000)
    assert (found.storage.reserve_fraction, found.storage.reserve_bytes, found.storage.quota_bytes) == (0.0, 20 << 30, 1_500_000_000_000)
    assert found.limits.rates == {"download": 5_000_000, "upload": None, "site:syd1": 2_000_000}
    assert [str(window) for window in found.limits.windows] == ["mon-fri 08:00-18:00 download 1 MB/s", "sat 22:00-06:00 site:syd1 none"]
    assert found.zone is None
    assert (found.fetch.contents_max, found.fetch.requests_per_peer, found.fetch.bytes_in_flight_max) == (2, 3, 64 << 20)
    assert (found.collect.grace_s, found.collect.versions) == (36 * 3600, 0)
    assert (found.scrub.enabled, found.scrub.interval_s, found.scrub.rate) == (False, 60 * 86_400, 500_000)
    assert (found.fetch.uploads_max, found.fetch.uploads_per_peer) == (5, 1)
    assert found.ldap == LdapConfig(
        urls=("ldaps://dc1.example.org", "ldaps://dc2.example.org:3269"),
        base="ou=people,dc=example,dc=org",
        groups={
            r"cn=Mac\, Packages,ou=groups,dc=example,dc=org": Rights(AccessRole.PUBLISHER, frozenset({"munki", "jamf"})),
            "cn=admins,ou=groups,dc=example,dc=org": Rights(AccessRole.ADMIN),
        },
        ca=tmp_path / "ca.pem",
        bind_dn="cn=replicad,dc=example,dc=org",
        bind_password_file=Path("/run/ldap.password"),
        name_attribute="sAMAccountName",
        user_filter="(objectCategory=person)",
        group_base="ou=groups,dc=example,dc=org",
        group_filter="(member={dn})",
        timeout_s=2.0,
    )
    assert found.oidc == OidcConfig(
        issuer="https://login.example.org/",
        client_id="replicad",
        url="https://ber1.example.org:8441",
        groups={"packagers": Rights(AccessRole.OPERATOR)},
        client_secret_file=tmp_path / "oidc.secret",
        scopes=("openid", "groups"),
        name_claim="email",
        groups_claim="roles",
        hosts=("keys.example.org",),
        ca=Path("/etc/provider.pem"),
    )
    assert (found.log.format, found.log.level) == ("json", "debug")
    assert "default" not in found.origins.values()


def test_the_environment_wins_and_is_named_as_the_origin(load: Load) -> None:
    environ = {
        "REPLICAD__DOWNLOADS__LISTEN": "127.0.0.1:9000",
        "REPLICAD__DOWNLOADS__ON_MISSING": "404",
        "REPLICAD__FETCH__FILES_AT_ONCE": "7",
        "REPLICAD__PEERS__CONNECT": "https://a:1, https://b:2",
        "REPLICAD__PEERS__TLS": "off",
        "REPLICAD_CONFIG": "not a key",
        "HOME": "/root",
    }
    found = load(NAMED + '[downloads]\nlisten = ":1"\n', environ)
    assert found.downloads.listen == Address("127.0.0.1", 9000)
    assert found.fetch.contents_max == 7
    assert found.peers.connect == ("https://a:1", "https://b:2")
    assert found.peers.tls == "off"
    assert found.origins["downloads.listen"] == "environment"
    assert {row.key: (row.text, row.origin) for row in found.rows()}["peers.connect"] == ('["https://a:1", "https://b:2"]', "environment")


def test_files_for_tls_from_the_environment(load: Load, tmp_path: Path) -> None:
    assert load(NAMED, {"REPLICAD__PEERS__TLS": "a.pem, b.pem"}).peers.tls == (tmp_path / "a.pem", tmp_path / "b.pem")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('[storage]\nqota = "5 GiB"', 'replicad.toml:4: unknown key "qota" in [storage]; did you mean "quota"?', id="unknown key"),
        pytest.param('[storag]\nquota = "5 GiB"', 'replicad.toml:3: unknown section [storag]; did you mean "storage"?', id="unknown section"),
        pytest.param('[log]\nquota = "5 GiB"', 'replicad.toml:4: unknown key "quota" in [log]; it belongs in [storage]', id="key of another section"),
        pytest.param(
            '[limits]\nupload = "5 Mbit/s"',
            'replicad.toml:4: [limits] upload: a rate such as "5 MB/s" or "500 KiB/s", "0 B/s" (nothing but what is urgent) or "none" (no limit) expected, got "5 Mbit/s" '
            "(units: B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s)",
            id="rate in bits",
        ),
        pytest.param(
            '[limits]\nzone = "Mars/Olympus"',
            'replicad.toml:4: [limits] zone: a time zone such as "Europe/Berlin" expected, got "Mars/Olympus", which this system does not know',
            id="unknown time zone",
        ),
        pytest.param("[log]\nqqqq = 1", 'replicad.toml:4: unknown key "qqqq" in [log]; it knows format, level', id="key like no other"),
        pytest.param("[qqqq]\nx = 1", "replicad.toml:3: unknown section [qqqq]; there are node, downloads,", id="section like no other"),
        pytest.param('[storage]\nquota = "5 Gib"', None, id="unit in the wrong case"),
        pytest.param('[storage]\nquota = "5"', None, id="size without a unit"),
        pytest.param('[storage]\nquota = "5 GiB extra"', None, id="size with a tail"),
        pytest.param("[storage]\nquota = 5", 'replicad.toml:4: [storage] quota: a size such as "64 MiB" or "5 GB" expected, got 5', id="size as a number"),
        pytest.param(
            '[storage]\nreserve = "101 %"',
            'replicad.toml:4: [storage] reserve: a percentage from "0 %" to "99.999 %" expected, got "101 %"',
            id="more than all",
        ),
        pytest.param(
            '[fetch]\nfiles_at_once = "4"', 'replicad.toml:4: [fetch] files_at_once: a whole number of 1 to 64 expected, got "4"', id="number as text"
        ),
        pytest.param(
            "[fetch]\nfiles_at_once = true", "replicad.toml:4: [fetch] files_at_once: a whole number of 1 to 64 expected, got true", id="truth as number"
        ),
        pytest.param("[fetch]\nfiles_at_once = 0", "replicad.toml:4: [fetch] files_at_once: a whole number of 1 to 64 expected, got 0", id="below the bound"),
        pytest.param('[fetch]\nbytes_in_flight = "1 KiB"', 'replicad.toml:4: [fetch] bytes_in_flight: 1 MiB to 4 GiB expected, got "1 KiB"', id="size below"),
        pytest.param('[fetch]\nbytes_in_flight = "5 GiB"', 'replicad.toml:4: [fetch] bytes_in_flight: 1 MiB to 4 GiB expected, got "5 GiB"', id="size above"),
        pytest.param('[downloads]\nlisten = "8480"', None, id="address without colon"),
        pytest.param('[downloads]\nlisten = ":0"', None, id="port zero"),
        pytest.param('[downloads]\nlisten = ":65536"', None, id="port too high"),
        pytest.param('[downloads]\nlisten = "off"', None, id="downloads cannot be off"),
        pytest.param('[downloads]\nlisten = "::1:8480"', None, id="IPv6 without brackets"),
        pytest.param("[downloads]\non_missing = 404", 'replicad.toml:4: [downloads] on_missing: write it in quotes: "404"', id="a word as number"),
        pytest.param('[downloads]\non_missing = "500"', 'replicad.toml:4: [downloads] on_missing: "stream" or "404" expected, got "500"', id="wrong word"),
        pytest.param(
            '[downloads]\ntls_certificate = "chain.pem"', "replicad.toml:4: [downloads] tls_certificate: needs tls_key beside it", id="certificate alone"
        ),
        pytest.param('[admin]\ntls_key = "key.pem"', "replicad.toml:4: [admin] tls_key: needs tls_certificate beside it", id="key alone"),
        pytest.param('[log]\nformat = "jsn"', 'replicad.toml:4: [log] format: "text" or "json" expected, got "jsn"; did you mean "json"?', id="misspelt word"),
        pytest.param('[peers]\nurl = "ams1:8440"', None, id="address instead of URL"),
        pytest.param('[peers]\nurl = "https://user:pw@ams1:8440"', None, id="URL with a password"),
        pytest.param('[peers]\nurl = "https://ams1:99999"', None, id="URL with an impossible port"),
        pytest.param('[peers]\ntls = ["only-one.pem"]', None, id="certificate without key"),
        pytest.param('[peers]\nconnect = "https://ams1:8440"', None, id="text instead of list"),
        pytest.param("[peers]\nconnect = [1]", None, id="number in list"),
        pytest.param("log = 5", 'replicad.toml:1: "log" is a section', id="section as value"),
        pytest.param('level = "info"', 'replicad.toml:1: key "level" stands outside any section; it belongs below [log]', id="outside any section"),
    ],
)
def test_what_is_refused(load: Load, text: str, expected: str | None) -> None:
    in_front = not text.startswith("[")
    (problem,) = problems(load, f"{text}\n{NAMED}" if in_front else f"{NAMED}{text}\n")
    assert problem.startswith(expected or "replicad.toml:4: ["), problem


LDAP = '[ldap]\nbase = "dc=x"\ngroups = { "cn=a,dc=x" = "admin" }\n'
OIDC = '[oidc]\nclient_id = "replicad"\nurl = "https://ams1:8441"\ngroups = { a = "admin" }\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{LDAP}urls = ["ldap://dc1"]', '[ldap] urls: "ldap://dc1" would send passwords in the clear: write ldaps://, or start_tls = true'),
        (f'{LDAP}urls = ["ldap://127.0.0.1"]', '[ldap] urls: "ldap://127.0.0.1" would send passwords in the clear: write ldaps://, or start_tls = true'),
        (f'{LDAP}urls = ["ldaps://dc1"]\nstart_tls = true', '[ldap] start_tls: "ldaps://dc1" speaks TLS from the start: write ldap://, or start_tls = false'),
        (f'{LDAP}urls = ["http://dc1"]', '[ldap] urls: a URL such as "ldaps://dc1.example.org" expected, got "http://dc1"'),
        (f'{LDAP}urls = ["ldaps://dc1/dc=x??sub"]', '[ldap] urls: a URL such as "ldaps://dc1.example.org" expected, got "ldaps://dc1/dc=x??sub"'),
        (f'{LDAP}urls = ["ldaps://me:pw@dc1"]', '[ldap] urls: a URL such as "ldaps://dc1.example.org" expected'),
        ('[ldap]\nurls = ["ldaps://dc1"]\ngroups = { "cn=a" = "admin" }', "[ldap] urls: needs base beside it"),
        ('[ldap]\nurls = ["ldaps://dc1"]\nbase = "dc=x"', "[ldap] urls: needs groups beside it"),
        ('[ldap]\nbase = "dc=x"', "[ldap] base: needs urls beside it"),
        (f'{LDAP}urls = ["ldaps://dc1"]\nbind_dn = "cn=x"', "[ldap] bind_dn: needs bind_password_file beside it"),
        (f'{LDAP}urls = ["ldaps://dc1"]\nbind_password_file = "x"', "[ldap] bind_password_file: needs bind_dn beside it"),
        (
            f'{LDAP}urls = ["ldaps://dc1"]\ngroup_filter = "(member=x)"',
            '[ldap] group_filter: a search filter with {dn} such as "(member={dn})" expected, got "(member=x)"',
        ),
        (f'{LDAP}urls = ["ldaps://dc1"]\nuser_filter = "uid=x"', '[ldap] user_filter: a search filter such as "(objectClass=person)" expected, got "uid=x"'),
        (f'{LDAP}urls = ["ldaps://dc1"]\ntimeout = "5 min"', '[ldap] timeout: 1 s to 1 min expected, got "5 min"'),
        ('[ldap.groups]\n"cn=a" = "boss"', '[ldap] groups: "cn=a": a role expected (viewer, publisher, operator, admin), got "boss"'),
        (
            '[ldap.groups]\n"cn=a" = "operater"',
            '[ldap] groups: "cn=a": a role expected (viewer, publisher, operator, admin), got "operater"; did you mean "operator"?',
        ),
        ('[ldap.groups]\n"cn=a" = "viewer No/Share"', '[ldap] groups: "cn=a": '),
        ('[ldap.groups]\n"cn=a" = ""', '[ldap] groups: "cn=a": a role expected'),
        ('[ldap]\ngroups = "admin"', "[ldap] groups: a table such as"),
        (f'{OIDC}issuer = "http://login"', '[oidc] issuer: a URL such as "https://login.example.org/realms/office" expected, got "http://login"'),
        ('[oidc]\nissuer = "https://login"\nurl = "https://ams1:8441"\ngroups = { a = "admin" }', "[oidc] issuer: needs client_id beside it"),
        (
            '[oidc]\nissuer = "https://login"\nclient_id = "x"\nurl = "http://ams1:8441"\ngroups = { a = "admin" }',
            '[oidc] url: "http://ams1:8441" would send sessions in the clear',
        ),
        ('[oidc]\nclient_id = "x"', "[oidc] client_id: needs issuer beside it"),
    ],
)
def test_what_is_refused_of_directories_and_providers(load: Load, text: str, expected: str) -> None:
    (problem,) = problems(load, NAMED + text)
    assert problem.partition(": ")[2].startswith(expected), problem


def test_groups_from_the_environment_and_as_they_are_shown(load: Load) -> None:
    text = '{ "cn=a b,dc=x" = "publisher jamf munki", "cn=c" = "admin" }'
    assert {
        row.key: row.text
        for row in load(NAMED, {"REPLICAD__LDAP__GROUPS": text, "REPLICAD__LDAP__URLS": "ldaps://a,ldaps://b", "REPLICAD__LDAP__BASE": "dc=x"}).rows()
    }["ldap.groups"] == text
    (problem,) = problems(load, NAMED, {"REPLICAD__LDAP__GROUPS": "admins"})
    assert problem.startswith("environment variable REPLICAD__LDAP__GROUPS: a table such as")


def test_all_problems_at_once_with_their_lines(load: Load) -> None:
    text = '[node]\nnam = "x"\n\n[storage]\n# a comment\nquota = "5 Gb"\n[fetch]\nfiles_at_once = 1000\n'
    environ = {"REPLICAD__LOG__LEVL": "info", "REPLICAD__ADMIN__LISTEN": "nowhere"}
    assert [problem.split(": ")[0] for problem in problems(load, text, environ)] == [
        "replicad.toml:2",
        "environment variable REPLICAD__LOG__LEVL",
        "replicad.toml",
        "environment variable REPLICAD__ADMIN__LISTEN",
        "replicad.toml:6",
        "replicad.toml:8",
    ]


def test_a_misspelt_variable_gets_a_suggestion(load: Load) -> None:
    assert problems(load, NAMED, {"REPLICAD__LOG__LEVL": "info"}) == [
        'environment variable REPLICAD__LOG__LEVL: no such key; did you mean "REPLICAD__LOG__LEVEL"?'
    ]
    assert problems(load, NAMED, {"REPLICAD__FOO__BAR": "x"}) == ["environment variable REPLICAD__FOO__BAR: no such key"]


@pytest.mark.parametrize(
    ("encoded", "place"),
    [
        (b'[node]\nname = "x\n', "replicad.toml:2: "),
        (b"[node]\nname = 'x'\n[node]\n", "replicad.toml:3: "),
        (b"[node]\nname = 'x'\nname = 'y'\n", "replicad.toml:3: "),
        (b'[node]\nname = """x', "replicad.toml:2: "),
        (b"[node]\n\nname = '\xff'\n", "replicad.toml:3: not UTF-8"),
        (b"#" * ((1 << 20) + 1), "replicad.toml: too long for a configuration (at most 1048576 bytes)"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, encoded: bytes, place: str) -> None:
    path = tmp_path / "replicad.toml"
    path.write_bytes(encoded)
    with pytest.raises(ConfigurationError) as caught:
        config.load(path, {})
    assert caught.value.message.removeprefix(f"{tmp_path}/").startswith(place), caught.value.message


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "replicad.toml"
    path.write_bytes(b"\xef\xbb\xbf" + NAMED.encode())
    assert config.load(path, {}).origins["node.name"].endswith("replicad.toml:2")
    path.write_bytes(b"\xef\xbb\xbf[node]\nname = '\xff'\n")
    with pytest.raises(ConfigurationError, match="toml:2: not UTF-8"):
        config.load(path, {})


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "replicad.toml").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ConfigurationError, match="too long for a configuration"):
        config.load(tmp_path / "replicad.toml", {})


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file") as caught:
        config.load(tmp_path / "absent.toml", {})
    assert "replicad init" in caught.value.hint
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        config.load(tmp_path, {})


def test_dotted_keys_and_inline_tables_have_lines_too(load: Load) -> None:
    assert problems(load, 'node.name = "x"\nstorage = { quota = "5 Gx" }\n"log" . level = "loud"\n') == [
        'replicad.toml:2: [storage] quota: unknown unit "Gx" in "5 Gx" (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)',
        'replicad.toml:3: [log] level: "debug" or "info" or "warning" or "error" expected, got "loud"',
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", f"https://{socket.gethostname()}:8440"),
        ('[peers]\nlisten = "127.0.0.1:7000"', "https://127.0.0.1:7000"),
        ('[peers]\nlisten = "[::1]:7000"\ntls = "off"', "http://[::1]:7000"),
        ('[peers]\nlisten = "[::]:7000"', f"https://{socket.gethostname()}:7000"),
        ('[peers]\nurl = "https://proxy.example.org"', "https://proxy.example.org"),
    ],
)
def test_the_url_of_the_peer_door(load: Load, text: str, url: str) -> None:
    assert load(NAMED + text).peers_url == url


@pytest.mark.parametrize(
    ("text", "url", "known"),
    [
        ("", f"http://{socket.gethostname()}:8480", False),
        ('[downloads]\nlisten = "10.4.0.9:80"', "http://10.4.0.9:80", True),
        ('[downloads]\nlisten = "[::]:80"\ntls_certificate = "c"\ntls_key = "k"', f"https://{socket.gethostname()}:80", False),
        ('[downloads]\nurl = "https://ams1.example.org/"', "https://ams1.example.org", True),
    ],
)
def test_the_url_of_the_clients_door(load: Load, text: str, url: str, known: bool) -> None:
    found = load(f'[node]\nname = "x"\n{text}')
    assert (found.downloads_url, found.is_downloads_url_known) == (url, known)


def test_what_changed_between_two_readings(load: Load) -> None:
    before = load(NAMED + '[log]\nlevel = "info"\n')
    after = load(NAMED + '[log]\nlevel = "debug"\n[storage]\nquota = "0 B"\nreserve = "6 %"\n')
    assert before.changes(after) == ["storage.reserve", "log.level"]
    assert before.changes(before) == []
