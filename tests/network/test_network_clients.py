"""What clients of a real network see: access said once and enforced everywhere, where else a file is, what is counted."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.network import Network, Node
from support.waiting import wait_for

pytestmark = pytest.mark.daemons
MIB = 1 << 20
PASSWORD = "correct horse battery staple"


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'jane:{password}'.encode()).decode()}"


def nearest(node: Node) -> list[str]:
    return [one["name"] for one in json.loads(node.download("-/nearest").body)["nodes"]]


def check_access(ams: Node, ber: Node, tmp_path: Path) -> None:
    """A private share: passwords, tokens and URLs of one node at the other, and nothing of them in what the nodes write."""
    (tmp_path / "a.pkg").write_bytes(b"customer a's" * MIB)
    ams.cli("share", "create", "customer-a")
    ams.cli("share", "set", "customer-a", "--user", "jane", "--password-file", "-", stdin=f"{PASSWORD}\n")
    token = ams.cli("share", "token", "create", "customer-a", "ci", "--expires", "1d").out.strip()
    ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "customer-a", "--wait", "all", "--timeout", "60s")
    path, absent = "customer-a/a.pkg", ber.download("nothing/a.pkg")
    refused = ber.download(path)
    assert (refused.status, refused.body, refused.headers.get("www-authenticate")) == (401, absent.body, absent.headers.get("www-authenticate"))
    signed = urlsplit(ams.cli("url", "sign", path, "--expires", "1h").out.strip())
    assert signed.netloc == f"127.0.0.1:{ams.downloads_port}"
    shown = {
        "password": ber.download(path, Authorization=basic(PASSWORD)).status,
        "wrong password": ber.download(path, Authorization=basic("wrong")).status,
        "token": ber.download(path, Authorization=f"Bearer {token}").status,
        "signed URL": ber.download(f"{path}?{signed.query}").status,
    }
    assert shown == {"password": 200, "wrong password": 401, "token": 200, "signed URL": 200}

    metalink = ET.fromstring(ber.download(f"-/metalink/{path}.meta4?{signed.query}").body)
    urls = [url.text or "" for url in metalink.iter("{urn:ietf:params:xml:ns:metalink}url")]
    assert urls == [f"{node.url(path)}?{signed.query}" for node in (ber, ams)], "the asked node first"
    assert nearest(ams) == ["ams1", "ber1"], "what a mirror says of its networks does not count"
    assert ams.cli("peer", "set", "ber1", "--network", "127.0.0.0/8").code == 0
    wait_for(lambda: nearest(ams) == ["ber1", "ams1"], what="ber1 first, as an admin said")
    assert "networks 127.0.0.0/8" in ams.cli("peer", "show", "ber1").out
    assert "; networks 127.0.0.0/8" in ber.cli("audit").out

    ams.cli("share", "token", "revoke", "customer-a", "ci")
    wait_for(lambda: ber.download(path, Authorization=f"Bearer {token}").status == 401, what="the revocation on the other node")
    ams.cli("share", "set", "customer-a", "--allow", "192.0.2.0/24")
    wait_for(lambda: ber.download(path, Authorization=basic(PASSWORD)).status == 401, what="the allowed networks on the other node")
    written = "".join(file.read_text(errors="replace") for node in (ams, ber) for file in (node.home / "log", node.data / "access.log") if file.exists())
    secrets = [PASSWORD, token, basic(PASSWORD).split()[1], signed.query.rpartition("=")[2]]
    assert [secret for secret in secrets if secret in written] == []


def check_metrics(node: Node) -> None:
    def scraped() -> dict[tuple[str, ...], float]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(node.data / "admin.sock"))
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return {(sample.name, *sample.labels.values()): sample.value for family in text_string_to_metric_families(text) for sample in family.samples}

    before = scraped()
    size = len(node.download("munki/b.pkg").body)
    node.download("munki/absent")
    after = scraped()
    names = (
        ("replicad_downloads_requests_total", "munki", "2xx"),
        ("replicad_downloads_requests_total", "munki", "4xx"),
        ("replicad_downloads_bytes_total", "munki"),
    )
    grown = [after[name] - before.get(name, 0) for name in names]
    assert grown[:2] == [1, 1]
    assert size < grown[2] < size + 100, "the file and a short text"


def check_redirects(ams: Node, ber: Node, tmp_path: Path) -> None:
    """The share asks for it, so a client of ams1 is sent to ber1, which is near it, and not back; nor does a cache, once named, come back to where it was sent from."""
    (tmp_path / "b.pkg").write_bytes(b"everybody's" * MIB)
    ams.cli("share", "create", "open", "--public")
    ams.cli("publish", str(tmp_path / "b.pkg"), "--share", "open", "--wait", "all", "--timeout", "60s")
    path, curl = "open/b.pkg", ("curl", "--silent", "--location", "--max-redirs", "1", "--range", "11-21", "--write-out", " %{http_code} %{url_effective}")

    def fetched(node: Node) -> str:
        return subprocess.run([*curl, node.url(path)], capture_output=True, text=True, check=True, timeout=60).stdout

    assert fetched(ams) == f"everybody's 206 {ams.url(path)}"
    said = ams.cli("share", "set", "open", "--redirect", "any=nearest").out
    assert "redirect  any to nearest" in said
    wait_for(lambda: fetched(ams) == f"everybody's 206 {ber.url(path)}?redirected=1", what="the redirect to the nearest node")
    assert fetched(ber) == f"everybody's 206 {ber.url(path)}"
    ams.cli("peer", "set", "ber1", "--network", "none")
    wait_for(lambda: fetched(ams) == f"everybody's 206 {ams.url(path)}", what="no redirect to who only says that the client is near")
    ams.cli("share", "set", "open", "--redirect", f"127.0.0.0/8={ams.url()}")
    wait_for(lambda: fetched(ber) == f"everybody's 206 {ams.url(path)}?redirected=1", what="the redirect to the cache, on the other node")
    assert fetched(ams) == f"everybody's 206 {ams.url(path)}?redirected=1", "once, and no further"
    ams.cli("share", "set", "open", "--redirect", "none")
    wait_for(lambda: fetched(ber) == f"everybody's 206 {ber.url(path)}", what="the end of it")


@pytest.mark.needs("curl")
def test_what_clients_see(network: Network, tmp_path: Path) -> None:
    ams, ber = network.found("ams1"), network.node("ber1", environ={"REPLICAD__DOWNLOADS__NETWORKS": "127.0.0.0/8"}).start()
    ber.cli("peer", "add", "-", stdin=ams.cli("peer", "invite").lines[-1])
    check_access(ams, ber, tmp_path)
    check_redirects(ams, ber, tmp_path)

    ams.cli("share", "create", "munki", "--public")
    (tmp_path / "b.pkg").write_bytes(b"for everybody" * MIB)
    ams.cli("publish", str(tmp_path / "b.pkg"), "--share", "munki", "--wait", "all", "--timeout", "60s")
    check_metrics(ber)
