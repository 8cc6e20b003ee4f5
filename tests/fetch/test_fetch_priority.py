"""What goes first: clients who wait, then haste, then what is new, what is old, what was lost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from fetch_simulator import Node, Swarm, wanted

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.entries import Wanted
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import MAKE_WAY_S, PACK_MAX, SEEKING_MAX, FetchConfig

MIB = 1 << 20
RATE = 25e6
SLOW = MIB / 2
"""One chunk takes two seconds."""
ONE = FetchConfig(contents_max=1, requests_per_peer=1)


def _pair(seed: int, contents: list[Wanted], *, config: FetchConfig = ONE, rate: float = RATE, latency_s: float = 0.002) -> tuple[Swarm, Node]:
    swarm = Swarm(seed, latency_s=latency_s)
    source, node = swarm.add(up=rate, down=rate), swarm.add(up=rate, down=rate, config=config)
    swarm.hold(source, contents)
    swarm.link(source, node)
    return swarm, node


def _wait(swarm: Swarm, node: Node, content: Wanted, *chunks: int) -> None:
    swarm.tell(node, ev.Awaits(content, chunks))


def _stream(swarm: Swarm, node: Node, content: Wanted) -> Callable[[], int]:
    """A client that takes the content as it arrives; returns how many chunks it has."""
    target, at = ev.Target(content.content, content.manifest), -1

    def chunks() -> int:
        have = sets.full(node.counts[target]) if content.content in node.complete else node.held.get(target, 0)
        return sets.run_length(have, have.bit_length())

    def read() -> None:
        nonlocal at
        if content.content in node.complete:
            _wait(swarm, node, content)
            return
        if chunks() != at:
            at = chunks()
            _wait(swarm, node, content, at)
        swarm.later(0.01, read)

    read()
    return chunks


def _all(node: Node, *contents: Wanted) -> bool:
    return all(content.content in node.complete for content in contents)


@pytest.mark.parametrize("size", [8 * MIB, 1_000_000], ids=["large", "small"])
def test_the_classes_come_in_order_and_within_one_the_oldest_first(seed: int, size: int) -> None:
    contents = [wanted(number, size, age=number) for number in range(8)]
    lost, old, older_new, new, urgent, younger_urgent, awaited, _ = contents
    swarm, node = _pair(seed, contents)
    ordered = tuple(contents[:-1])
    swarm.wanted.update((one.content, one) for one in ordered)
    swarm.tell(node, ev.Wants(ordered, new_since=older_new.hlc, urgent=frozenset({urgent.content, younger_urgent.content}), healing=frozenset({lost.content})))
    _wait(swarm, node, awaited, 0)
    swarm.run(lambda: _all(node, *ordered), limit_s=60)
    finished = sorted(ordered, key=lambda one: node.complete[one.content])
    if size > CHUNK_SIZE_MIN:
        assert finished == [awaited, urgent, younger_urgent, older_new, new, old, lost]
    else:  # those of one batch arrive together
        times = [[node.complete[one.content] for one in group] for group in ([awaited], [urgent, younger_urgent], [older_new, new], [old], [lost])]
        assert all(max(before) <= min(after) for before, after in pairwise(times))
        assert node.complete[awaited.content] < node.complete[lost.content]


@pytest.mark.parametrize("size", [2 * MIB, 500_000], ids=["large", "small"])
def test_a_better_class_gets_through_although_every_place_is_taken(seed: int, size: int) -> None:
    backlog = [wanted(number, size, age=number) for number in range(SEEKING_MAX + 10 if size > CHUNK_SIZE_MIN else PACK_MAX + 10)]
    late = wanted(100_000, size, age=100_000)
    swarm, node = _pair(seed, [*backlog, late])
    everything = (*backlog, late)
    swarm.wanted.update((one.content, one) for one in everything)
    swarm.tell(node, ev.Wants(tuple(backlog), cut=True, new_since=late.hlc))
    swarm.run(lambda: len(node.complete) >= 3, limit_s=60)
    swarm.tell(node, ev.Wants(tuple(one for one in everything if one.content not in node.complete), new_since=late.hlc))
    swarm.run(lambda: _all(node, late), limit_s=60)
    assert len(node.complete) <= len(backlog) // 4
    swarm.run(lambda: _all(node, *backlog), limit_s=600)


def test_a_waiting_client_gets_its_chunks_in_order_from_where_it_reads(seed: int) -> None:
    content, other = wanted(1, 64 * MIB, age=1), wanted(2, 64 * MIB, age=0)
    swarm, node = _pair(seed, [content, other], config=FetchConfig(requests_per_peer=1))
    swarm.want(node, [content, other])
    swarm.run(lambda: bool(node.held), limit_s=60)
    target = ev.Target(content.content, content.manifest)
    _wait(swarm, node, content, 40)
    before = swarm.now
    arrived: list[int] = []
    for chunk in range(40, 64):
        swarm.run(lambda chunk=chunk: bool(node.held.get(target, 0) >> chunk & 1), limit_s=60)
        arrived.append(node.held[target])
        _wait(swarm, node, content, chunk)
    assert all(not have >> chunk + 17 for chunk, have in zip(range(40, 64), arrived, strict=True)), "in order, up to one extent ahead"
    assert swarm.now - before <= 1.3 * 24 * MIB / RATE + 0.5
    _wait(swarm, node, content)
    swarm.run(lambda: _all(node, content, other), limit_s=60)


def test_a_client_may_wait_for_what_is_beyond_the_list(seed: int) -> None:
    listed, beyond = wanted(1, 8 * MIB), wanted(2, 8 * MIB, age=9)
    swarm, node = _pair(seed, [listed, beyond])
    swarm.wanted[beyond.content] = beyond
    swarm.want(node, [listed], cut=True)
    _wait(swarm, node, beyond, 3)
    swarm.want(node, [listed, beyond], cut=True)
    swarm.run(lambda: _all(node, beyond), limit_s=60)
    assert not _all(node, listed)


def test_what_a_client_needs_now_does_not_wait_for_what_is_under_way(seed: int) -> None:
    """Four requests of a quarter of a second each are under way; the chunk is here after its own time, not theirs. But not again and again: the fetch itself must go on."""
    content = wanted(1, 256 * MIB)
    swarm, node = _pair(seed, [content], config=FetchConfig())
    swarm.want(node, [content])
    swarm.run(lambda: node.held.get(ev.Target(content.content, content.manifest), 0).bit_count() > 40, limit_s=60)
    target = ev.Target(content.content, content.manifest)
    waits = []
    for chunk in (200, 150):
        before = swarm.now
        _wait(swarm, node, content, chunk)
        swarm.run(lambda chunk=chunk: bool(node.held[target] >> chunk & 1), limit_s=60)
        waits.append((swarm.now - before) / (MIB / RATE))
    assert waits[0] <= 2
    assert waits[1] > 2
    _wait(swarm, node, content)
    swarm.run(lambda: _all(node, content), limit_s=60)


@pytest.mark.parametrize("rate", [SLOW / 4, SLOW, RATE], ids=["slowest", "slow", "fast"])
@pytest.mark.parametrize("age", [0, 9], ids=["older", "younger"])
@pytest.mark.parametrize(("size", "chunks"), [(300_000, 2), (3 * MIB, 3)], ids=["small", "large"])
def test_a_client_that_waits_gets_something_soon_although_another_streams(seed: int, rate: float, age: int, size: int, chunks: int) -> None:
    """The chunk that is on its way, and its own."""
    large, other = wanted(1, 200 * MIB, age=5), wanted(2, size, age=age)
    swarm, node = _pair(seed, [large, other], config=FetchConfig(), rate=rate)
    swarm.want(node, [large])
    streamed = _stream(swarm, node, large)
    swarm.run(lambda: streamed() >= 3, limit_s=60)
    swarm.want(node, [large, other])
    before = swarm.now
    read = _stream(swarm, node, other) if size > CHUNK_SIZE_MIN else lambda: int(_all(node, other))
    _wait(swarm, node, other, 0)
    swarm.run(lambda: read() >= 1, limit_s=600)
    assert swarm.now - before <= chunks * MIB / rate + 0.1
    swarm.run(lambda: _all(node, other) and streamed() >= 6, limit_s=before + 10 * MIB / rate + 0.5)


@pytest.mark.parametrize("rate", [SLOW, RATE], ids=["slow", "fast"])
@pytest.mark.parametrize("count", [2, 6])
def test_clients_of_several_contents_share_the_line_and_it_is_never_idle(seed: int, rate: float, count: int) -> None:
    """Also if they are more than are fetched at once without clients."""
    contents = [wanted(number, 40 * MIB, age=number) for number in range(count)]
    swarm, node = _pair(seed, contents, config=FetchConfig(), rate=rate, latency_s=0.02)
    swarm.want(node, contents)
    streams = [_stream(swarm, node, one) for one in contents]
    swarm.run(lambda: sum(read() for read in streams) >= 20 * count, limit_s=600)
    assert min(read() for read in streams) >= 12
    swarm.run(lambda: _all(node, *contents), limit_s=600)
    assert swarm.now <= 1.2 * count * 40 * MIB / rate + 0.5


def test_many_small_contents_that_clients_wait_for_leave_a_stream_its_turn(seed: int) -> None:
    large, small = wanted(1, 200 * MIB), [wanted(number, 900_000) for number in range(2, 12)]
    swarm, node = _pair(seed, [large, *small], config=ONE, rate=SLOW)
    swarm.want(node, [large, *small])
    streamed = _stream(swarm, node, large)
    for one in small:
        _wait(swarm, node, one, 0)
    swarm.run(lambda: _all(node, *small), limit_s=60)
    assert streamed() >= len(small) - 2


@pytest.mark.parametrize(("size", "chunks"), [(300_000, 1), (3 * MIB, 3)], ids=["small", "large"])
@pytest.mark.parametrize("known", [True, False])
def test_what_a_client_waits_for_is_not_delayed_by_what_others_may_have_later(seed: int, size: int, chunks: int, *, known: bool) -> None:
    """Four requests are under way, eight seconds of the line: all that is waited for is that one of them leaves its place to the manifest, if one is needed."""
    backlog = [wanted(number, 60 * MIB if size > CHUNK_SIZE_MIN else 500_000, age=number) for number in range(1, 100)]
    old = wanted(0, size)
    swarm, node = _pair(seed, [*backlog, old], config=FetchConfig(), rate=SLOW)
    swarm.tell(node, ev.Wants((old, *backlog) if known else tuple(backlog), new_since=backlog[0].hlc))
    swarm.run(lambda: swarm.now >= 15, limit_s=60)
    if not known:
        swarm.tell(node, ev.Wants((old, *(one for one in backlog if not _all(node, one))), new_since=backlog[0].hlc))
    before = swarm.now
    _wait(swarm, node, old, 0)
    swarm.run(lambda: _all(node, old) or bool(node.held.get(ev.Target(old.content, old.manifest), 0) & 1), limit_s=60)
    assert swarm.now - before <= chunks * MIB / SLOW + 0.1


def test_clients_who_come_again_and_again_leave_most_of_a_slow_line_to_the_rest(seed: int) -> None:
    """What they need is a tenth of it. What is given up each time is several seconds of it, so that is not done each time."""
    large, small = wanted(1, 200 * MIB), [wanted(number, 50_000, age=number) for number in range(2, 22)]
    swarm, node = _pair(seed, [large, *small], config=FetchConfig(), rate=SLOW)
    swarm.want(node, [large])
    swarm.run(lambda: swarm.now >= 10, limit_s=60)
    target = ev.Target(large.content, large.manifest)
    before, began, waits = node.held[target].bit_count(), swarm.now, []
    for one in small:
        asked = swarm.now
        swarm.want(node, [large, one])
        _wait(swarm, node, one, 0)
        swarm.run(lambda one=one: _all(node, one), limit_s=600)
        _wait(swarm, node, one)
        waits.append(swarm.now - asked)
        swarm.run(lambda until=swarm.now + MAKE_WAY_S + 0.5: swarm.now >= until, limit_s=600)
    assert (node.held[target].bit_count() - before) * MIB >= 0.7 * SLOW * (swarm.now - began)
    assert max(waits) <= 10


def test_what_a_silent_peer_was_asked_for_is_asked_of_another_long_before_the_end(seed: int) -> None:
    content = wanted(1, 512 * MIB)
    swarm = Swarm(seed)
    source, silent, node = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE, lie="hang"), swarm.add(up=RATE, down=RATE)
    for holder in (silent, source):
        swarm.hold(holder, [content])
    swarm.want(node, [content])
    target = ev.Target(content.content, content.manifest)
    swarm.run(lambda: node.held.get(target, 0).bit_count() >= 16, limit_s=10)
    swarm.run(lambda: node.held[target] & 0xFFFF == 0xFFFF, limit_s=10)
    assert swarm.now <= content.size / RATE / 2
    assert not node.blamed
