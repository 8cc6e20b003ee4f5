"""Limits on real transfers between nodes in this process. Nothing here depends on how fast the machine is (``bench limits`` measures that)."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.protocol.throttle import BUCKET_S, SHARERS_MIN, Stream, Throttle
from support.data_node import data_network
from support.storing import random_bytes
from support.waiting import until

MIB = 1 << 20
RATE = 8 * MIB


class Counting(Throttle):
    """Counts what it gives leave for."""

    granted = 0
    most = 0

    def due(self, now: float) -> list[tuple[Stream, int]]:
        found = super().due(now)
        self.granted += sum(granted for _, granted in found)
        self.most = max([self.most, *(granted for _, granted in found)])
        return found


@pytest.mark.sockets
async def test_every_byte_that_is_received_has_leave(tmp_path: Path) -> None:
    await _exchange(tmp_path, tls=True, limited="sink", reachable=(True, True))


@pytest.mark.parametrize(
    ("tls", "limited", "reachable"),
    [
        pytest.param(False, "source", (True, True), id="giving by GET"),
        pytest.param(False, "sink", (False, True), id="receiving by PUT"),
        pytest.param(True, "source", (False, True), id="giving by PUT, TLS"),
    ],
)
async def test_every_byte_has_leave(tmp_path: Path, tls: bool, limited: str, reachable: tuple[bool, bool]) -> None:
    await _exchange(tmp_path, tls=tls, limited=limited, reachable=reachable)


async def _exchange(tmp_path: Path, *, tls: bool, limited: str, reachable: tuple[bool, bool]) -> None:
    """What leave is given for is the throttle's business, and has its laws; here nothing goes without."""
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        await network.link(sink, source, reachable=reachable)
        bodies = [random_bytes(3 * MIB // 2), *(random_bytes(32 << 10, seed=number) for number in range(16))]
        manifests = [await source.add(body) for body in bodies]
        gate, peer = (sink.paces.down, source) if limited == "sink" else (source.paces.up, sink)
        throttle = gate.throttle = Counting()
        gate.set({"": RATE, "site:": 2 * RATE, str(peer.id): 2 * RATE})
        sink.fetch.limiting.changed()
        await network.publish(source, "files", **{f"f{number}": manifest for number, manifest in enumerate(manifests)})
        await sink.wait_for(*manifests)
        assert throttle.granted >= sum(map(len, bodies))
        assert throttle.most <= RATE * BUCKET_S / SHARERS_MIN
        assert not sink.blamed


async def test_a_limit_counts_for_what_is_on_its_way_and_lifting_it_too(tmp_path: Path) -> None:
    """Everything is asked for at once while there is no limit; then hardly anything may come, then anything. Whatever had to wait is nobody's fault."""
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=True), await network.node("sink", tls=True)
        await network.share("files")
        await network.link(sink, source)
        manifest = await source.add(random_bytes(8 * MIB))
        sink.paces.down.set({"": 16 << 10})
        await network.publish(source, "files", big=manifest)
        await until(lambda: sink.fetch.statistics().in_flight_bytes > 0, what="a request")
        assert not sink.holds(manifest)
        sink.paces.down.set({})
        sink.fetch.limiting.changed()
        await sink.wait_for(manifest)
        assert not sink.blamed
        assert source.fetch.provider.sent_bytes == manifest.size, "what was on its way was asked for again"


async def test_urgent_content_passes_where_nothing_else_does(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        await network.link(sink, source)
        sink.paces.down.set({"": 0})
        sink.fetch.limiting.changed()
        usual = [await source.add(random_bytes(size, seed=size)) for size in (2 * MIB, 1000)]
        await network.publish(source, "files", usual=usual[0], little=usual[1])
        urgent = [await source.add(random_bytes(size, seed=size)) for size in (3 * MIB, 2000)]
        source.paces.up.set({str(sink.id): 0})
        await network.publish(source, "files", urgent=True, hasty=urgent[0], quick=urgent[1])
        await sink.wait_for(*urgent)
        assert not sink.holds(usual[0])
        assert not sink.holds(usual[1])
        source.paces.up.set({})
        sink.paces.down.set({})
        sink.fetch.limiting.changed()
        await sink.wait_for(*usual)


@pytest.mark.parametrize("by", ["asker", "holder"])
async def test_nothing_is_exchanged_with_a_paused_peer(tmp_path: Path, by: str) -> None:
    """The sink is linked with the source and gets everything by way of a third node."""
    async with data_network(tmp_path) as network:
        source, other, sink = [await network.node(name) for name in ("source", "other", "sink")]
        await network.share("files")
        if by == "asker":
            sink.paces.paused = frozenset({source.id})
        else:
            source.paces.paused = frozenset({sink.id})
        for one, another in ((source, other), (other, sink), (source, sink)):
            await network.link(one, another)
        manifests = [await source.add(random_bytes(size, seed=size)) for size in (2 * MIB, 1000)]
        await network.publish(source, "files", urgent=True, big=manifests[0], small=manifests[1])
        await sink.wait_for(*manifests)
        assert source.fetch.provider.sent_bytes == 2 * MIB + 1000 + 1, "the source sent more than the copies for the third node"
        assert not sink.blamed
