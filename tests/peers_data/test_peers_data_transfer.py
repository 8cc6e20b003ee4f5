"""Content between real nodes: real files, catalogs, sessions and sockets, with and without TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.data_node import data_network
from support.storing import random_bytes

pytestmark = pytest.mark.sockets
MIB = 1 << 20


@pytest.mark.parametrize("tls", [False, True])
async def test_a_published_content_arrives_verified(tmp_path: Path, tls: bool) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        await network.link(source, sink)
        content = random_bytes(20 * MIB + 12345)
        manifest = await source.add(content)
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert sink.store.path_of(manifest.content).read_bytes() == content
        assert not sink.blamed, sink.blamed
        assert source.fetch.provider.sent_bytes == len(content)
