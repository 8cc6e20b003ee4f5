"""Whole swarms in the simulator: how long until the last node has it, who gets blamed, which bounds hold."""

from __future__ import annotations

from itertools import count

import pytest
from fetch_simulator import Node, Swarm, wanted

from replicad.model.entries import Wanted
from replicad.protocol.fetch.config import BAN_S, EXTENT_S, OVERDUE_S_MIN, PACK_MAX, SEEKING_MAX, FetchConfig
from replicad.protocol.fetch.events import GetExtent, Limited, Wants
from replicad.protocol.gossip.neighbours import FULL_MESH_MAX

MIB = 1 << 20
RATE = 25e6
"""200 Mbit/s, as in the measurements that the targets come from."""


def _all_have(nodes: list[Node], contents: list[Wanted]) -> bool:
    return all(len(node.complete) >= len(contents) for node in nodes)


def _swarm(
    seed: int, *, peers: int, contents: list[Wanted], config: FetchConfig | None = None, lies: tuple[str, ...] = ()
) -> tuple[Swarm, Node, list[Node], list[Node]]:
    """One honest seed, liars that claim to hold everything, peers that want everything."""
    swarm = Swarm(seed)
    source = swarm.add(up=RATE, down=RATE, config=config)
    swarm.hold(source, contents)
    liars = [swarm.add(up=RATE, down=RATE, lie=lie, config=config) for lie in lies]
    for liar in liars:
        swarm.hold(liar, contents)
    nodes = [swarm.add(up=RATE, down=RATE, config=config) for _ in range(peers)]
    for node in nodes:
        swarm.want(node, contents)
    return swarm, source, liars, nodes


@pytest.mark.parametrize(
    ("peers", "mib", "bound_factor", "copies_max"), [(1, 256, 1.02, 1.001), (3, 256, 1.11, 1.04), (8, 256, 1.11, 1.02), (32, 256, 1.35, 1.07)]
)
def test_the_last_node_has_it_soon_after_the_first_copy(seed: int, peers: int, mib: int, bound_factor: float, copies_max: float) -> None:
    """Of 32 nodes one seed in fifty lets the source send a tenth more, hence two."""
    content, sent_bytes = wanted(1, mib * MIB), []
    for run in range(2 if peers == 32 else 1):
        swarm, source, _, nodes = _swarm(seed + run, peers=peers, contents=[content])
        took_s = swarm.run(lambda nodes=nodes: _all_have(nodes, [content]), limit_s=120)
        assert took_s <= bound_factor * content.size / RATE
        sent_bytes.append(source.sent_bytes)
    assert min(sent_bytes) <= copies_max * content.size


def test_what_is_asked_for_at_once_grows_only_when_a_peer_was_fast_for_a_while(seed: int) -> None:
    """The first answers come through empty queues: whoever asked for much because of them would keep it from the others."""
    content = wanted(1, 512 * MIB)
    swarm = Swarm(seed)
    source, node = swarm.add(up=20 * RATE, down=RATE), swarm.add(up=RATE, down=20 * RATE)
    swarm.hold(source, [content])
    swarm.want(node, [content])
    swarm.run(lambda: swarm.now >= EXTENT_S / 2)
    asked = [request for request, _ in node.asked.values()]
    assert asked
    assert all(isinstance(request, GetExtent) and request.extent.count == 1 for request in asked)
    swarm.run(lambda: swarm.now >= 2 * EXTENT_S)
    assert max(request.extent.count for request, _ in node.asked.values() if isinstance(request, GetExtent)) == 8


@pytest.mark.parametrize(("peers", "bound_factor", "copies_max"), [(4, 1.12, 1.08), (8, 1.14, 1.1), (16, 1.22, 1.15)])
def test_many_small_contents_cost_few_requests_and_spread_among_the_peers(seed: int, peers: int, bound_factor: float, copies_max: float) -> None:
    contents = [wanted(number, 65536, age=number) for number in range(2000)]
    swarm, source, _, nodes = _swarm(seed, peers=peers, contents=contents)
    took_s = swarm.run(lambda: _all_have(nodes, contents), limit_s=60)
    size = 2000 * 65536
    assert took_s <= bound_factor * size / RATE
    assert source.sent_bytes <= copies_max * size
    assert all(node.plan.statistics().requests <= 300 for node in nodes)


@pytest.mark.parametrize("count", [30, 300])
def test_in_a_large_network_the_only_holder_of_small_contents_sends_each_about_once_and_nobody_waits_in_vain(seed: int, count: int) -> None:
    contents = [wanted(number, 30_000, age=number) for number in range(count)]
    swarm = Swarm(seed)
    source, *nodes = [swarm.add(up=RATE, down=RATE, linked=False) for _ in range(FULL_MESH_MAX + 8)]
    swarm.hold(source, contents)
    swarm.link_like_the_product()
    for node in nodes:
        swarm.want(node, contents)
    assert swarm.run(lambda: _all_have(nodes, contents), limit_s=60) < OVERDUE_S_MIN
    assert source.sent_bytes <= 1.3 * count * 30_000


def test_nobody_waits_for_those_who_are_linked_with_the_holder_only(seed: int) -> None:
    """Six seek small contents; each is linked with their holder and with three who do not want them, none with another of the six."""
    contents = [wanted(number, 65536, age=number) for number in range(30)]
    swarm = Swarm(seed)
    source, *idle = (swarm.add(up=RATE, down=RATE) for _ in range(4))
    swarm.hold(source, contents)
    nodes = [swarm.add(up=RATE, down=RATE, linked=False) for _ in range(6)]
    for node in nodes:
        for other in (source, *idle):
            swarm.link(node, other)
        swarm.want(node, contents)
    took_s = swarm.run(lambda: _all_have(nodes, contents), limit_s=60)
    assert took_s <= 1.1 * len(nodes) * len(contents) * 65536 / RATE


def test_one_to_one_small_contents_take_tens_of_requests(seed: int) -> None:
    contents = [wanted(number, 4096) for number in range(10_000)]
    swarm, _, _, nodes = _swarm(seed, peers=1, contents=contents)
    swarm.run(lambda: _all_have(nodes, contents), limit_s=60)
    assert nodes[0].plan.statistics().requests <= 80


@pytest.mark.parametrize("lie", ["flip", "short", "absent"])
def test_a_liar_is_banned_and_the_content_comes_from_the_honest_peer(seed: int, lie: str) -> None:
    content = wanted(1, 64 * MIB)
    swarm, _, (liar,), nodes = _swarm(seed, peers=2, contents=[content], lies=(lie,))
    if lie == "absent":
        liar.held.clear()
    swarm.run(lambda: _all_have(nodes, [content]), limit_s=60)
    offences = {"flip": "bad-chunk", "short": "short-body", "absent": "false-have"}
    for node in nodes:
        assert {offence for _, offence in node.blamed} <= {offences[lie], "banned"}
        assert {blamed for blamed, _ in node.blamed} <= {liar.id}
    if lie != "short":  # a body that ends early is an offence only when its link outlives it for two seconds
        assert any(node.blamed[liar.id, "banned"] for node in nodes)


def test_one_honest_holder_is_enough_when_all_others_lie(seed: int) -> None:
    content, small = wanted(1, 64 * MIB), [wanted(number, 1000) for number in range(2, 300)]
    lies = ("flip", "short", "busy", "hang", "manifest", "flip", "short", "hang")
    swarm, _, liars, nodes = _swarm(seed, peers=1, contents=[content, *small], lies=lies)
    took_s = swarm.run(lambda: _all_have(nodes, [content, *small]), limit_s=120)
    assert took_s <= 3 * content.size / RATE + 8
    honest = {liar.id for liar in liars if liar.lie in {"busy", "hang"}}
    assert not {blamed for blamed, _ in nodes[0].blamed} & honest


def test_half_of_the_peers_lying_costs_less_than_three_times_the_honest_time(seed: int) -> None:
    content = wanted(1, 128 * MIB)
    times = []
    for lies in ((), ("flip",) * 8):
        swarm, _, _, nodes = _swarm(seed, peers=8, contents=[content], lies=lies)
        times.append(swarm.run(lambda nodes=nodes: _all_have(nodes, [content]), limit_s=120))
    assert times[1] <= 3 * times[0]


def test_a_banned_peer_is_asked_again_after_an_hour(seed: int) -> None:
    content = wanted(1, 8 * MIB)
    swarm = Swarm(seed)
    liar = swarm.add(up=RATE, down=RATE, lie="flip")
    swarm.hold(liar, [content])
    node = swarm.add(up=RATE, down=RATE)
    swarm.want(node, [content])
    swarm.run(lambda: bool(node.blamed[liar.id, "banned"]), limit_s=60)
    liar.lie = ""
    banned_at = swarm.now
    swarm.run(lambda: _all_have([node], [content]), limit_s=2 * BAN_S)
    assert BAN_S <= swarm.now - banned_at <= BAN_S + 60


@pytest.mark.parametrize("trouble", ["slow", "frozen", "resets", "lossy"])
@pytest.mark.parametrize("holds", [False, True], ids=["fetching", "holding"])
def test_a_peer_in_trouble_costs_the_others_less_than_half_of_their_time_more(seed: int, trouble: str, holds: bool) -> None:
    content = wanted(1, 96 * MIB)
    took_s = {}
    for case in ("", trouble):
        swarm = Swarm(seed)
        source, bad = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE)
        nodes = [swarm.add(up=RATE, down=RATE) for _ in range(3)]
        swarm.hold(source, [content])
        if holds:
            swarm.hold(bad, [content])
        for node in nodes if holds else (bad, *nodes):
            swarm.want(node, [content])
        if case:
            swarm.later(0.5 if case in {"frozen", "resets"} else 0.0, lambda swarm=swarm, bad=bad: swarm.afflict(bad, trouble))  # type: ignore[misc]
        elif holds:
            swarm.crash(bad)
        took_s[case] = swarm.run(lambda nodes=nodes: _all_have(nodes, [content]), limit_s=300)  # type: ignore[misc]
        assert not any(node.blamed for node in nodes), "trouble is no offence"
    assert took_s[trouble] <= 1.5 * took_s[""]


def test_a_slow_receiver_does_not_hold_up_the_fast_ones(seed: int) -> None:
    content = wanted(1, 64 * MIB)
    swarm = Swarm(seed)
    source = swarm.add(up=RATE, down=RATE, config=FetchConfig(uploads_max=2))
    swarm.hold(source, [content])
    slow = [swarm.add(up=RATE, down=RATE / 500) for _ in range(4)]
    fast = swarm.add(up=RATE, down=RATE)
    for node in (*slow, fast):
        swarm.want(node, [content])
    assert swarm.run(lambda: _all_have([fast], [content]), limit_s=600) <= 3 * content.size / RATE


def test_a_link_that_breaks_is_not_an_offence_and_the_rest_comes_from_others(seed: int) -> None:
    content = wanted(1, 64 * MIB)
    swarm, source, (second,), nodes = _swarm(seed, peers=1, contents=[content], lies=("",))
    swarm.later(1.0, lambda: swarm.unlink(source, nodes[0]))
    swarm.run(lambda: _all_have(nodes, [content]), limit_s=60)
    assert not nodes[0].blamed
    assert second.sent_bytes > 0


@pytest.mark.parametrize("run", [4, 5, 6])
def test_when_the_only_holder_crashes_nothing_stays_under_way_with_it(run: int) -> None:
    """Whoever waits for a turn there gets it when another's link breaks, and hears that others have it already."""
    content = wanted(1, 64 * MIB)
    swarm, source, _, nodes = _swarm(run, peers=11, contents=[content])
    swarm.run(lambda: swarm.now >= 0.5)
    swarm.crash(source)
    assert not source.outs
    assert not any(request.node == source.id for node in nodes for request, _ in node.asked.values())


def test_answers_that_break_off_among_others_that_come_whole_are_no_offence(seed: int) -> None:
    content = wanted(1, 64 * MIB)
    swarm, source, _, nodes = _swarm(seed, peers=1, contents=[content])
    answers = count()
    swarm.break_off = lambda: next(answers) % 3 == 1
    swarm.run(lambda: _all_have(nodes, [content]), limit_s=120)
    assert source.sent_bytes > content.size
    assert not nodes[0].blamed


def test_bounds_hold_under_any_load(seed: int) -> None:
    config = FetchConfig(contents_max=2, requests_per_peer=3, bytes_in_flight_max=6 * MIB, extent_bytes_max=4 * MIB)
    contents = [wanted(number, 20 * MIB, age=number) for number in range(10)] + [wanted(100 + number, 50_000, age=number) for number in range(500)]
    swarm, _, _, nodes = _swarm(seed, peers=3, contents=contents, config=config, lies=("", ""))
    swarm.run(lambda: _all_have(nodes, contents), limit_s=300)
    for node in nodes:
        assert node.most_in_flight <= config.bytes_in_flight_max
        assert node.most_contents <= config.contents_max
        assert node.most_per_peer <= config.requests_per_peer
    assert max(node.most_contents for node in nodes) == config.contents_max
    assert max(node.most_per_peer for node in nodes) == config.requests_per_peer


def test_a_bound_smaller_than_a_chunk_lets_one_chunk_through_at_a_time(seed: int) -> None:
    content = wanted(1, 8 * MIB)
    swarm, _, _, nodes = _swarm(seed, peers=1, contents=[content], config=FetchConfig(bytes_in_flight_max=1000))
    swarm.run(lambda: _all_have(nodes, [content]), limit_s=60)
    assert nodes[0].most_in_flight == MIB


def test_older_contents_come_first_and_a_big_one_does_not_starve_a_small_one(seed: int) -> None:
    old, small = wanted(1, 512 * MIB), [wanted(number, 10_000, age=10) for number in range(2, 50)]
    young = wanted(60, 64 * MIB, age=20)
    swarm, _, _, nodes = _swarm(seed, peers=1, contents=[old, young, *small], config=FetchConfig(contents_max=1))
    swarm.run(lambda: _all_have(nodes, [old, young, *small]), limit_s=120)
    done = nodes[0].complete
    assert done[old.content] < done[young.content]
    assert max(done[one.content] for one in small) < done[old.content] / 4


def test_contents_that_exist_nowhere_do_not_block_those_that_do(seed: int) -> None:
    phantoms = [wanted(number, 5 * MIB, age=number) for number in range(3 * SEEKING_MAX)] + [
        wanted(1000 + number, 500, age=number) for number in range(2 * PACK_MAX)
    ]
    real = [wanted(9000, 8 * MIB, age=9000), wanted(9001, 800, age=9000)]
    swarm = Swarm(seed)
    source = swarm.add(up=RATE, down=RATE)
    swarm.hold(source, real)
    node = swarm.add(up=RATE, down=RATE)
    swarm.want(node, [*phantoms, *real])
    swarm.run(lambda: _all_have([node], real), limit_s=600)


def test_a_manifest_that_lies_about_a_foreign_hash_only_wastes_its_authors_time(seed: int) -> None:
    honest = wanted(1, 32 * MIB, age=5)
    false = Wanted(honest.content, 16 * MIB, wanted(2, 16 * MIB).manifest, honest.hlc)
    swarm = Swarm(seed)
    source, author, node = (swarm.add(up=RATE, down=RATE) for _ in range(3))
    swarm.hold(author, [false])
    swarm.hold(source, [honest])
    swarm.want(node, [false, honest])
    swarm.wanted[honest.content] = honest
    swarm.run(lambda: honest.content in node.complete, limit_s=60)
    assert not node.blamed, "every chunk was what the manifest said: no peer is to blame"


def test_a_small_entry_whose_size_lies_accuses_nobody(seed: int) -> None:
    honest = wanted(1, 4000)
    false = Wanted(honest.content, 3000, wanted(1, 3000).manifest, honest.hlc)
    swarm = Swarm(seed)
    source, node = (swarm.add(up=RATE, down=RATE) for _ in range(2))
    swarm.hold(source, [honest])
    swarm.want(node, [false, honest])
    swarm.run(lambda: honest.content in node.complete, limit_s=60)
    assert not node.blamed


def test_the_same_seed_replays_the_same_run(seed: int) -> None:
    content = wanted(1, 32 * MIB)
    runs = []
    for _ in range(2):
        swarm, source, _, nodes = _swarm(seed, peers=4, contents=[content])
        runs.append((swarm.run(lambda nodes=nodes: _all_have(nodes, [content])), swarm.events, swarm.messages, source.sent_bytes))
    assert runs[0] == runs[1]


def test_a_node_that_limits_itself_gets_there_and_holds_up_nobody(seed: int) -> None:
    """Its limit is known to its plan: nothing is late, asked for twice, or held against a peer, also when the limit is set in the middle; the others are as fast as without it."""
    content = wanted(1, 64 * MIB)
    swarm, _, _, nodes = _swarm(seed, peers=8, contents=[content])
    limited, others = nodes[0], nodes[1:]
    swarm.run(lambda: limited.plan.statistics().units >= 4, limit_s=60)
    limited.down = 0.004 * RATE
    swarm.tell(limited, Limited(total=int(limited.down)))
    asked = limited.plan.statistics().repeated
    swarm.run(lambda: _all_have(others, [content]), limit_s=60)
    assert swarm.now <= 1.6 * content.size / RATE
    swarm.run(lambda: _all_have(nodes, [content]), limit_s=2000)
    assert swarm.now <= 1.1 * content.size / limited.down
    assert limited.plan.statistics().repeated == asked
    assert not limited.blamed


def test_with_a_limit_of_zero_only_urgent_contents_are_asked_for(seed: int) -> None:
    contents = [wanted(1, 16 * MIB), *(wanted(number, 5000, age=number) for number in range(2, 40))]
    hasty = [wanted(100, 16 * MIB, age=100), *(wanted(number, 5000, age=number) for number in range(101, 140))]
    swarm, source, _, (node,) = _swarm(seed, peers=1, contents=contents)
    swarm.hold(source, hasty)
    swarm.tell(node, Limited(nodes={source.id: 0}))
    begun = node.plan.statistics().requests
    swarm.tell(node, Wants((*contents, *hasty), urgent=frozenset(one.content for one in hasty)))
    swarm.run(lambda: len(node.complete) >= len(hasty), limit_s=60)
    assert set(node.complete) == {one.content for one in hasty}
    assert node.plan.statistics().requests - begun <= 40
    swarm.tell(node, Limited())
    swarm.run(lambda: _all_have([node], [*contents, *hasty]), limit_s=60)


def test_of_a_peer_with_a_limit_no_more_is_asked_than_it_lets_through_soon(seed: int) -> None:
    content = wanted(1, 64 * MIB)
    swarm, source, _, (node,) = _swarm(seed, peers=1, contents=[content])
    swarm.run(lambda: node.plan.statistics().bytes >= 16 * MIB, limit_s=60)
    assert node.plan.statistics().in_flight_bytes > 4 * MIB
    swarm.tell(node, Limited(nodes={source.id: 2 * MIB}))
    assert node.plan.statistics().in_flight_bytes <= 8 * MIB, "what was asked for without the limit is still awaited"
    begun = node.plan.statistics().bytes
    swarm.run(lambda: node.plan.statistics().bytes - begun >= 12 * MIB, limit_s=60)
    assert node.plan.statistics().in_flight_bytes <= 3 * MIB
