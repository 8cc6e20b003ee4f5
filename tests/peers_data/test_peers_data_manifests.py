"""One content that entries of two shares name under different manifests: whoever has one of the shares only gets it from whoever has both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from replicad.errors import NotFoundError
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.records import Role
from replicad.protocol.fetch.events import Target
from replicad.services.fetch import measuring
from replicad.store.reading import Pace, unpaced
from support.data_node import DataNetwork, DataNode, data_network
from support.storing import MIB, flip, manifest_of, random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets

CONTENT, OTHER = random_bytes(3 * MIB + 5), random_bytes(3 * MIB + 5, seed=2)
TRUE = manifest_of(CONTENT)
FALSE = replace(TRUE, chunks=manifest_of(OTHER).chunks)
"""States that prove the content, and digests of another."""


@dataclass
class Scene:
    """``middle`` has both shares and the content, ``edge`` the share "files" only. ``read``: which contents the middle node read for their manifests."""

    network: DataNetwork
    middle: DataNode
    edge: DataNode
    read: list[Digest]

    def target(self, manifest: Manifest) -> Target:
        return Target(manifest.content, manifest.id)


@asynccontextmanager
async def scene(root: Path, monkeypatch: pytest.MonkeyPatch, *, named: Manifest, mirrored: Manifest) -> AsyncIterator[Scene]:
    """The middle node holds the content under what "mirror" names, and "files" names it under another."""
    async with data_network(root) as network:
        middle = await network.node("middle")
        edge = await network.node("edge", role=Role.MIRROR, shares=("files",))
        for share in ("files", "mirror"):
            await network.share(share)
        await network.publish(middle, "mirror", copy=mirrored)
        await middle.add(CONTENT)
        await middle.catalog.hold_under(mirrored)
        await network.publish(middle, "files", big=named)
        read: list[Digest] = []
        measure = middle.store.measure

        async def noted(content: Digest, *, pace: Pace = unpaced) -> Manifest:
            read.append(content)
            return await measure(content, pace=pace)

        monkeypatch.setattr(middle.store, "measure", noted)
        yield Scene(network, middle, edge, read)


CASES = {
    "with states, held without": (TRUE, TRUE.bare, 1),
    "without states, held with": (TRUE.bare, TRUE, 0),
    "with states, held with false digests": (TRUE, FALSE, 1),
    "without states, held with false digests": (TRUE.bare, FALSE, 1),
}


@pytest.mark.parametrize(("named", "mirrored", "readings"), CASES.values(), ids=CASES)
async def test_what_is_held_under_one_manifest_is_found_under_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: Manifest, mirrored: Manifest, readings: int
) -> None:
    async with scene(tmp_path, monkeypatch, named=named, mirrored=mirrored) as here:
        assert await here.middle.catalog.held_manifest(TRUE.content) == mirrored
        await here.network.link(here.middle, here.edge)
        await here.edge.wait_for(named)
        assert here.edge.store.path_of(named.content).read_bytes() == CONTENT
        assert len(here.read) == readings
        assert not here.edge.blamed
        if mirrored != FALSE:
            assert await here.middle.fetch.provider.servable(here.target(mirrored)) != (0, 0), "the one before is served as well"


async def test_false_manifests_cost_one_reading_and_what_nobody_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path, monkeypatch, named=FALSE, mirrored=TRUE) as here:
        provider, lie = here.middle.fetch.provider, replace(FALSE, states=b"")
        for manifest, readings in ((lie, 0), (FALSE, 1), (lie, 1), (FALSE, 1)):
            with pytest.raises(NotFoundError):
                await provider.manifest(here.edge.id, here.target(manifest))
            await until(lambda: not provider.measuring._asked, what="the answer")
            assert len(here.read) == readings
        assert await provider.manifest(here.edge.id, here.target(TRUE)) == TRUE
        await here.middle.catalog.lose(TRUE.content)
        await until(lambda: not provider.measuring._measured, what="the news of it")


async def test_questions_and_what_is_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "ASKED_MAX", 2)
    monkeypatch.setattr(measuring, "MEASURED_MAX", 1)
    async with scene(tmp_path, monkeypatch, named=FALSE, mirrored=TRUE) as here:
        provider = here.middle.fetch.provider
        other = await here.middle.add(OTHER)
        liar = replace(other, chunks=TRUE.chunks)
        await here.network.publish(here.middle, "files", other=liar)
        for number in range(3):
            provider.measuring.ask(Target(TRUE.content, Digest(bytes([number]) * 32)))
        assert len(provider.measuring._asked) == 2
        await until(lambda: not provider.measuring._asked, what="the answers")
        for manifest in (FALSE, liar, FALSE):
            provider.measuring.ask(here.target(manifest))
            await until(lambda: not provider.measuring._asked, what="the answer")
        assert here.read == [TRUE.content, other.content, TRUE.content]


async def test_what_cannot_be_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    measuring.log._seldom.clear()
    async with scene(tmp_path, monkeypatch, named=TRUE, mirrored=TRUE.bare) as here:
        provider = here.middle.fetch.provider
        flip(here.middle.store.path_of(TRUE.content), at=7)
        provider.measuring.ask(here.target(TRUE))
        await until(lambda: not provider.measuring._asked, what="the answer")
        assert "a content cannot be read for its manifest" in caplog.text
        assert await here.middle.catalog.held_manifest(TRUE.content) == TRUE.bare
        await here.middle.catalog.lose(TRUE.content)
        await until(lambda: not provider.measuring._measured, what="the news of it")
        await here.middle.add(CONTENT)
        await here.network.link(here.middle, here.edge)
        await here.edge.wait_for(TRUE)
