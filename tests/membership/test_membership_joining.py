"""Joining with tokens between real nodes: what it brings, how it is repeated, and every way in which it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.peer_node import admit, all_linked, peer_node

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_node_joins_and_has_everything_when_join_returns(tmp_path: Path, tls: bool) -> None:
    async with peer_node(tmp_path / "a", "ann", tls=tls) as ann, peer_node(tmp_path / "b", "bob", tls=tls) as bob:
        await ann.create_share("munki")
        await ann.publish("munki", "Firefox.pkg", "Chrome.pkg")
        await admit(ann, bob)
        assert bob.members() == {"ann", "bob"}
        assert await bob.files() == {"munki/Firefox.pkg", "munki/Chrome.pkg"}
        assert bob.hash("munki") == ann.hash("munki")
        await all_linked(ann, bob)
        await bob.publish_and_wait("munki", "Safari.pkg", ann)
