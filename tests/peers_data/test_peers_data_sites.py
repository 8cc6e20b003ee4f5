"""Sites with real nodes: who divides the chunks of a content with whom follows from grants, rights and links, and the content arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.model.records import Grant, Role
from support.data_node import data_network
from support.storing import random_bytes

pytestmark = pytest.mark.sockets
MIB = 1 << 20


async def test_those_of_a_site_who_may_have_a_content_divide_its_chunks(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, ann, bob = [await network.node(name) for name in ("source", "ann", "bob")]
        other = await network.node("other", shares=("secret",))
        await network.share("files")
        content = random_bytes(12 * MIB + 5)
        manifest = await source.add(content)
        await network.publish(source, "files", big=manifest)
        everybody = frozenset({ann.id, bob.id, other.id})

        async def crew(*present: object) -> frozenset[object]:
            return frozenset(await ann.fetch._rights.crew(ann.id, manifest.content, linked=lambda node: node in present))

        assert await crew(*everybody) == frozenset(), "nobody named a site"
        for node in (ann, bob, other):
            await network.author(source, "", Grant(node.id, node.name, Role.MIRROR, shares=("secret",) if node is other else None, site="here"))
        assert await crew(*everybody) == {ann.id, bob.id}, "the other may not have it"
        assert await crew() == {ann.id}, "who is neither linked nor alive is not waited for"
        for node in (ann, bob):
            await network.link(source, node)
        await network.link(ann, bob)
        await ann.wait_for(manifest)
        await bob.wait_for(manifest)
        assert ann.store.path_of(manifest.content).read_bytes() == bob.store.path_of(manifest.content).read_bytes() == content
