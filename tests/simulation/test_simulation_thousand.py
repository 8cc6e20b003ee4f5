"""A network too large for a full mesh: new entries cross it in a few hops, and a healed partition is forgotten within ten rounds. ``bench/simulation.py`` does the same with a thousand nodes."""

from __future__ import annotations

from simulation.thousand import Grown, entry

NODES = 80


def test_news_crosses_a_large_network_in_few_hops_and_a_healed_partition_is_forgotten() -> None:
    with Grown(NODES, entries=200) as grown:
        grown.steady()
        assert grown.agree()
        made = grown.nodes[NODES // 2].author("munki", entry("new"))[0]
        assert grown.rounds_until_agreement(2) <= 2
        assert grown.hops(made, 0.99) <= 5
        half = grown.dice.sample(grown.nodes, NODES // 2)
        others = [node for node in grown.nodes if node not in half]
        grown.partition(half)
        for number in range(5):
            grown.dice.choice(half).author("munki", entry(f"left/{number}"))
            grown.dice.choice(others).author("munki", entry(f"right/{number}"))
        grown.wires.run(2_000)
        assert not grown.agree()
        assert grown.heal(10) <= 10
        assert grown.agree()
