"""A directory for tests: OpenLDAP's slapd on loopback with a handful of people and groups, and certificates for it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from support.network import free_port
from support.processes import Process
from support.waiting import wait_for

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
GROUPS = f"ou=groups,{BASE}"
SERVICE = f"cn=replicad,{BASE}"
SERVICE_PASSWORD = "service secret"
PROGRAM = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "slapd"
DEEP = 14
"""Levels of groups above the person "deep"."""

PERSONS = {
    "jane": (rf"cn=Doe\, Jane,{PEOPLE}", "correct horse"),
    "bob": (rf"cn=Bob (the *),{PEOPLE}", "bob's"),
    "carol": (f"cn=Carol,{PEOPLE}", "carol's"),
    "dave": (f"cn=Dave,{PEOPLE}", "pässwörd"),
    "deep": (f"cn=Deep,{PEOPLE}", "deep's"),
    "eve": (f"cn=Eve,{PEOPLE}", "eve's"),
    "we*ird)(\\": (f"cn=Weird,{PEOPLE}", "weird's"),
    "twin": (f"cn=Twin One,{PEOPLE}", "twin's"),
}
"""Login name to name (DN) and password."""


def group(name: str) -> str:
    return f"cn={name},{GROUPS}"


def _entries() -> Iterator[str]:
    yield f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n"
    for unit in ("people", "groups"):
        yield f"dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\nou: {unit}\n"
    yield f"dn: {SERVICE}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: replicad\nuserPassword: {SERVICE_PASSWORD}\n"
    for uid, (dn, password) in [*PERSONS.items(), ("twin", (f"cn=Twin Two,{PEOPLE}", "twin's"))]:
        yield f"dn: {dn}\nobjectClass: inetOrgPerson\nsn: {uid}\nuid: {uid}\nuserPassword: {password}\n"
    members = {
        r"Mac\, Packages": [PERSONS["jane"][0], PERSONS["dave"][0], PERSONS["we*ird)(\\"][0], PERSONS["twin"][0]],
        "team": [PERSONS["bob"][0]],
        "engineering": [group("team")],
        "company": [group("engineering")],
        "ring a": [group("ring b"), PERSONS["carol"][0]],
        "ring b": [group("ring c")],
        "ring c": [group("ring a")],
        "jamf": [PERSONS["dave"][0]],
        "readers": [PERSONS["dave"][0]],
        "deep 0": [PERSONS["deep"][0]],
        **{f"deep {level}": [group(f"deep {level - 1}")] for level in range(1, DEEP)},
        "others": [PERSONS["eve"][0]],
    }
    for name, dns in members.items():
        yield f"dn: {group(name)}\nobjectClass: groupOfNames\n" + "".join(f"member: {dn}\n" for dn in dns)


_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
allow bind_anon_cred
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
database mdb
maxsize 16777216
dbnosync
suffix "{base}"
directory {folder}/database
index uid,member eq
access to attrs=userPassword by anonymous auth
access to dn.subtree="{groups}" by dn="{service}" read
access to * by * read
"""
"""``bind_anon_cred``: a bind with a name and without a password succeeds, as with Active Directory. Groups are shown to the service account only."""


@dataclass(frozen=True)
class Slapd:
    """``ca`` signed its certificate, for ``localhost`` alone; ``stranger`` signed nothing here."""

    process: Process
    plain_port: int
    tls_port: int
    ca: Path
    stranger: Path
    password_file: Path

    @property
    def url(self) -> str:
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def start_tls_url(self) -> str:
        return f"ldap://localhost:{self.plain_port}"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slapd]:
    """A directory that lives in this folder."""
    ca, stranger = trustme.CA(), trustme.CA()
    certificate = ca.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    (folder / "database").mkdir()
    (folder / "password").write_text(f"{SERVICE_PASSWORD}\n")
    configuration = folder / "slapd.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, base=BASE, groups=GROUPS, service=SERVICE))
    subprocess.run([PROGRAM, "-T", "add", "-q", "-f", configuration], input="\n".join(_entries()), text=True, check=True, capture_output=True, timeout=60)
    plain_port, tls_port = free_port(), free_port()
    listeners = f"ldap://127.0.0.1:{plain_port} ldaps://127.0.0.1:{tls_port}"
    process = Process([PROGRAM, "-d", "0", "-f", str(configuration), "-h", listeners], log=folder / "slapd.log")
    try:
        wait_for(lambda: not process.alive or _answers(tls_port), what="slapd to listen")
        assert process.alive, process.output()
        yield Slapd(process, plain_port, tls_port, folder / "ca.pem", folder / "stranger.pem", folder / "password")
    finally:
        process.stop()


def _answers(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
