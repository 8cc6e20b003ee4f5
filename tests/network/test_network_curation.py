"""What becomes of a file after publishing, with real daemons: promoted, taken down, lifted, removed, brought back, rolled back; the same everywhere."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from support.network import Network, Node
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]
MIB = 1 << 20
FILE = "munki/a.pkg"


def shows(node: Node, content: bytes | None) -> None:
    """Until clients of the node get this content (None: 404) under the name."""

    def there() -> bool:
        answer = node.download(FILE)
        return answer.status == 404 if content is None else answer.body == content

    wait_for(there, what=f"{node.name} to show {'nothing' if content is None else 'the other content'}", deadline_s=60)


def test_a_file_is_promoted_taken_down_removed_and_rolled_back_everywhere(network: Network, tmp_path: Path, dice: random.Random) -> None:
    ams = network.found("ams1")
    ber = network.add("ber1", to="ams1", invite=("--stage", "prod"))
    ams.cli("share", "create", "munki", "--public")
    old, new = dice.randbytes(50_000), dice.randbytes(2 * MIB + 5)
    blob = f"-/blob/{hashlib.sha256(new).hexdigest()}"
    (tmp_path / "a.pkg").write_bytes(old)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--wait", "all", "--timeout", "60s")
    (tmp_path / "a.pkg").write_bytes(new)
    ams.cli("publish", str(tmp_path / "a.pkg"), "--stage", "dev")
    shows(ams, new)
    shows(ber, old)

    wait_for(lambda: len(ber.ask("history", FILE)["records"]) == 2, what="ber1 to hear of the second version")
    for forbidden in (("promote", FILE, "--to", "prod"), ("rm", FILE), ("takedown", hashlib.sha256(old).hexdigest())):
        ber.cli(*forbidden, code=6)
    ams.cli("promote", FILE, "--to", "prod")
    shows(ber, new)
    assert ams.download(FILE, method="HEAD").headers["last-modified"] == ber.download(FILE, method="HEAD").headers["last-modified"]

    ams.cli("takedown", FILE, "--reason", "licence")
    shows(ber, None)
    cdg = network.add("cdg1", to="ams1")
    for node in (ams, ber, cdg):
        assert (node.download(FILE).status, node.download(blob).status) == (404, 404)
    [listed] = cdg.ask("ls")["entries"]
    assert (listed["taken_down"], cdg.ask("status")["store"]["wanted"]) == (True, 0)
    ams.cli("takedown", FILE, "--lift")
    for node in (ams, ber, cdg):
        shows(node, new)
        assert node.download(blob).body == new

    ams.cli("rm", FILE)
    for node in (ber, cdg):
        shows(node, None)
    ams.cli("undelete", FILE)
    shows(cdg, new)
    ams.cli("rollback", FILE)
    for node in (ams, ber, cdg):
        shows(node, old)
    told = [[(one["record"], one["kind"], one["state"]) for one in node.ask("history", FILE)["records"]] for node in (ams, ber, cdg)]
    assert told[0] == told[1] == told[2]
    assert [kind for _, kind, _ in told[0]] == ["restore", "restore", "remove", "promote", "publish", "publish"]
