"""Real daemons: a Mac asks a node, over TLS, for a file that the node itself still fetches over a slow line."""

from __future__ import annotations

import http.client
import json
import random
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replicad.crypto import certificate as certificates
from support.network import Network, Node
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]

MIB = 1 << 20
SIZE = 16 * MIB + 77
TAIL = 100_000


def get(node: Node, context: ssl.SSLContext, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", node.downloads_port, timeout=60, context=context)
    try:
        connection.request(method, "/jamf/big.pkg", headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_a_file_is_downloaded_from_a_node_that_still_fetches_it(network: Network, tmp_path: Path, dice: random.Random) -> None:
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificates.ensure(certificate, key)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    body = dice.randbytes(SIZE)
    (tmp_path / "big.pkg").write_bytes(body)
    ams = network.node("ams1")
    with Relay(ams.peers_port, rate=6 * MIB).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.node("ber1")
        ber.environ |= {
            "REPLICAD__DOWNLOADS__ON_MISSING": "stream",
            "REPLICAD__DOWNLOADS__TLS_CERTIFICATE": str(certificate),
            "REPLICAD__DOWNLOADS__TLS_KEY": str(key),
        }
        ber.start()
        ber.cli("peer", "add", "-", stdin=ams.cli("peer", "invite").lines[-1])
        ams.cli("share", "create", "jamf", "--public")
        ams.cli("publish", str(tmp_path / "big.pkg"))
        wait_for(lambda: get(ber, context, method="HEAD")[0] == 200, what="the name at the second node")
        before = relay.received
        status, tail_fields, tail = get(ber, context, Range=f"bytes=-{TAIL}")
        assert (status, tail) == (206, body[-TAIL:])
        status, fields, whole = get(ber, context)
        assert (status, fields["content-length"], whole == body) == (200, str(SIZE), True)
        assert relay.received - before < 1.5 * SIZE, "clients do not make it fetched twice"
    here = ams.download("jamf/big.pkg", method="HEAD").headers
    for name in ("etag", "last-modified", "repr-digest", "content-type", "cache-control", "accept-ranges"):
        assert here[name] == fields[name] == tail_fields[name]
    ber.stop()
    lines = [json.loads(line) for line in (ber.data / "access.log").read_text().splitlines()]
    assert [(line["share"], line["path"], line["bytes"]) for line in lines if line["method"] == "GET"] == [("jamf", "big.pkg", TAIL), ("jamf", "big.pkg", SIZE)]


def test_a_file_that_is_replaced_and_removed_meanwhile_is_downloaded_to_its_last_byte(network: Network, tmp_path: Path, dice: random.Random) -> None:
    body = dice.randbytes(SIZE)
    old, new = tmp_path / "old" / "big.pkg", tmp_path / "new" / "big.pkg"
    for path, content in ((old, body), (new, b"another version")):
        path.parent.mkdir()
        path.write_bytes(content)
    ams, ber = network.node("ams1"), network.node("ber1")
    with Relay(ams.peers_port, rate=MIB).running() as relay, ThreadPoolExecutor(1) as reading:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ber.environ["REPLICAD__DOWNLOADS__ON_MISSING"] = "stream"
        ams.start()
        ber.start()
        ber.cli("peer", "add", "-", stdin=ams.cli("peer", "invite").lines[-1])
        ams.cli("share", "create", "jamf", "--public")
        ams.cli("publish", str(old))
        etag = ber.wait_for_file("jamf/big.pkg").headers["etag"]
        connection = http.client.HTTPConnection("127.0.0.1", ber.downloads_port, timeout=60)
        connection.request("GET", "/jamf/big.pkg")
        response = connection.getresponse()
        first = response.read(TAIL)
        rest = reading.submit(response.read)
        ams.cli("publish", str(new))
        wait_for(lambda: ber.download("jamf/big.pkg", method="HEAD").headers["etag"] != etag, what="the new version at the second node")
        ams.cli("rm", "jamf/big.pkg", "--yes")
        wait_for(lambda: ber.download("jamf/big.pkg", method="HEAD").status == 404, what="the end of the name at the second node")
        relay.rate = None
        assert first + rest.result() == body
        connection.close()
        wait_for(lambda: not list((ber.data / "partials").iterdir()), what="the second node to be done with it")
