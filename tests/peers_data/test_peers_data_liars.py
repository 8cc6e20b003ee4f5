"""Peers that lie, break or refuse at the door, in every way: the content arrives from the honest one, liars are named, the others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.data_node import data_network
from support.lying_door import HARMLESS, OFFENCES, lying_door
from support.storing import manifest_of, random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets
MIB = 1 << 20
CONTENT = random_bytes(24 * MIB + 77)
MANIFEST = manifest_of(CONTENT)


@pytest.mark.parametrize("style", OFFENCES)
async def test_a_liar_is_named_and_the_content_comes_from_the_honest_peer(tmp_path: Path, style: str) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        liar = await network.node("liar", door=lying_door(style, CONTENT, MANIFEST))
        sink = await network.node("sink")
        await network.share("files")
        for node in (source, liar):
            await node.add(CONTENT)
        await network.link(liar, sink)
        await network.publish(source, "files", big=MANIFEST)
        await until(sink.offences, what="an offence")
        await network.link(source, sink)
        await sink.wait_for(MANIFEST)
        assert sink.store.path_of(MANIFEST.content).read_bytes() == CONTENT
        assert {node for node, _ in sink.offences()} == {liar.id}
        assert OFFENCES[style] in {offence for _, offence in sink.offences()}
        assert {blame.offence for blame in await sink.catalog.blames(liar.id)} >= {OFFENCES[style]}


@pytest.mark.parametrize("style", ["flip", "long-said", "lacks"])
async def test_three_offences_ban_for_an_hour(tmp_path: Path, style: str) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        asked: list[bytes] = []
        liar = await network.node("liar", door=lying_door(style, CONTENT, MANIFEST, asked))
        sink = await network.node("sink")
        await network.share("files")
        await liar.add(CONTENT)
        await network.link(liar, sink)
        await network.publish(source, "files", big=MANIFEST)
        await until(lambda: (liar.id, "banned") in sink.offences(), what="a ban")
        requests = len(asked)
        await source.add(CONTENT)
        await network.link(source, sink)
        await sink.wait_for(MANIFEST)
        assert len(asked) == requests, "a banned peer is asked for nothing"
        assert sink.offences() == {(liar.id, OFFENCES[style]), (liar.id, "banned")}


@pytest.mark.parametrize("style", HARMLESS)
async def test_what_happens_to_honest_peers_is_no_offence(tmp_path: Path, style: str) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        asked: list[bytes] = []
        other = await network.node("other", door=lying_door(style, CONTENT, MANIFEST, asked))
        sink = await network.node("sink")
        await network.share("files")
        for node in (source, other):
            await node.add(CONTENT)
        await network.link(other, sink)
        await network.publish(source, "files", big=MANIFEST)
        await until(lambda: len(asked) >= 2, what="requests to the one who fails")
        await network.link(source, sink)
        await sink.wait_for(MANIFEST)
        assert not sink.blamed


async def test_a_peer_that_dies_in_the_middle_of_its_answers_is_not_blamed(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        asked: list[bytes] = []
        dying = await network.node("dying", door=lying_door("short-cut", CONTENT, MANIFEST, asked))
        sink = await network.node("sink")
        await network.share("files")
        for node in (source, dying):
            await node.add(CONTENT)
        await network.link(dying, sink)
        await network.publish(source, "files", big=MANIFEST)
        await until(lambda: len(asked) >= 2, what="requests to the one who dies")
        await network.unlink(dying, sink)
        await network.link(source, sink)
        await sink.wait_for(MANIFEST)
        assert not sink.blamed
