"""A Munki repository in a directory of a share, on a node that is killed again and again while it takes a new catalog and the 20 packages that it names."""

from __future__ import annotations

import hashlib
import os
import plistlib
import random
from pathlib import Path

import pytest

from support.network import Network, Node
from support.relay import Relay
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(120)]
MIB = 1 << 20
COUNT = 20
KILLS = 3
"""Of each release; a release has some 25 MiB."""
RATE = 10 * MIB
RELEASES = int(os.environ.get("REPLICAD_MUNKI_RELEASES", "1"))
"""After the first; many in ``make soak``."""
ROOT = "Client/Repo"


def release(root: Path, version: int, count: int, dice: random.Random) -> Path:
    """A repository: packages of one chunk and of two, and the catalog that names them."""
    items = []
    for number in range(count):
        package, content = root / "pkgs" / f"App{number}-{version}.pkg", dice.randbytes(MIB + (number % 4 == 0) * MIB)
        package.parent.mkdir(parents=True, exist_ok=True)
        package.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        items.append({"name": f"App{number}", "version": str(version), "installer_item_location": package.name, "installer_item_hash": digest})
    (root / "catalogs").mkdir()
    (root / "catalogs" / "all").write_bytes(plistlib.dumps(items))
    return root


def client_version(node: Node) -> int | None:
    """The version of the catalog that a client of Munki reads now, None while the node is down; fails if there is none, or if the node has not got a package that it names."""
    try:
        catalog = node.download(f"munki/{ROOT}/catalogs/all")
        assert catalog.status == 200
        items = plistlib.loads(catalog.body)
        statuses = [node.download(f"munki/{ROOT}/pkgs/{item['installer_item_location']}", method="HEAD").status for item in items]
    except OSError:
        return None
    assert set(statuses) == {200}, [item["installer_item_location"] for item, status in zip(items, statuses, strict=True) if status != 200]
    return int(items[0]["version"])


def test_whenever_the_node_is_killed_its_clients_never_read_a_catalog_of_which_a_package_is_missing(
    network: Network, tmp_path: Path, dice: random.Random
) -> None:
    ams = network.node("ams1")
    with Relay(ams.peers_port, rate=RATE).running() as relay:
        ams.environ["REPLICAD__PEERS__URL"] = relay.url
        ams.start()
        ber = network.add("ber1", to="ams1")
        ams.cli("share", "create", "munki", "--public", "--layout", "munki", "--root", ROOT)
        ams.cli("publish", str(release(tmp_path / "1", 1, 2, dice)), "--share", "munki", "--as", ROOT, "--wait", "all", "--timeout", "60s")
        assert client_version(ber) == 1
        for version in range(2, 2 + RELEASES):
            ams.cli("publish", str(release(tmp_path / str(version), version, COUNT, dice)), "--share", "munki", "--as", ROOT)
            seen = [version - 1]

            def is_new(more: float = 0, mark: int = 0, seen: list[int] = seen, version: int = version) -> bool:
                """Whether clients read the new version, or that many bytes have come since."""
                seen.append(client_version(ber) or seen[-1])
                assert version - 1 <= seen[-2] <= seen[-1] <= version
                return seen[-1] == version or 0 < more < relay.received - mark

            for _ in range(KILLS):
                mark, more = relay.received, dice.randrange(1, 6 * MIB)
                wait_for(lambda mark=mark, more=more: is_new(more, mark), what=f"{more} bytes, or the new catalog")  # type: ignore[misc]
                ber.kill()
                ber.launch()
            wait_for(lambda: is_new() and client_version(ber) == version, what=f"catalog {version}")  # noqa: B023 - called at once
    assert ber.ask("munki", "status")["repositories"] == [{"share": "munki", "root": ROOT, "indexes": 1, "waiting": []}]
