"""Gossip among 10, 100 and 1,000 simulated nodes: hops and rounds of a new entry, bytes per node, copies of each record, and what a healed partition costs. Writes bench/results/simulation.md."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import Counter
from pathlib import Path

from simulation.thousand import AUTHORS, LATENCY_MS, SITES, Grown, entry

RESULTS = Path(__file__).parent / "results"
BURST = 20
EACH_SIDE = 10
ROUNDS_MAX = 10


def main(arguments: list[str]) -> None:
    """Measure each size, print, write."""
    parser = argparse.ArgumentParser(prog="bench simulation", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--entries", type=int, default=2_000)
    parser.add_argument(
        "--heads-up-to",
        type=int,
        default=100,
        metavar="NODES",
        help="in larger networks nobody makes heads: with them 1,000 nodes take a quarter of an hour and 4 GiB",
    )
    options = parser.parse_args(arguments)
    rows = []
    for size in options.sizes:
        rows.append(measure(size, entries=options.entries, heads=size <= options.heads_up_to))
        print(json.dumps(rows[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "simulation.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "simulation.md").write_text(page(rows, entries=options.entries))


def measure(size: int, *, entries: int, heads: bool) -> dict[str, object]:
    """One network through a single publication, a burst, a partition and its end."""
    begun = time.process_time()
    with Grown(size, entries=entries) as grown:
        grown.steady(heads=heads)
        assert grown.agree()
        single = spread(grown, 1)
        burst = spread(grown, BURST)
        half = grown.dice.sample(grown.nodes, size // 2)
        others = [node for node in grown.nodes if node not in half]
        grown.partition(half)
        grown.wires.run(2_000)
        for number in range(EACH_SIDE):
            grown.dice.choice(half).author("munki", entry(f"left/{number}"))
            grown.dice.choice(others).author("munki", entry(f"right/{number}"))
        grown.wires.run(2_000)
        assert not grown.agree()
        before = grown.wires.cost.bytes.copy()
        rounds = grown.heal(ROUNDS_MAX)
        healed = per_node(grown, before)
        links = len(grown.pairs) * 2 / size
    return {
        "nodes": size,
        "heads": heads,
        "links_per_node": round(links, 1),
        "single": single,
        "burst": burst,
        "heal": {"rounds": rounds, "bytes_per_node": healed},
        "cpu_s": round(time.process_time() - begun),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def spread(grown: Grown, count: int) -> dict[str, object]:
    """Entries published at once by one node in the middle of nowhere: until all have them, and then 25 seconds for heads."""
    grown.watch.copies.clear()
    before = grown.wires.cost.bytes.copy()
    made = [record for number in range(count) for record in grown.dice.choice(grown.nodes).author("munki", entry(f"new/{grown.wires.now_ms}/{number}"))][:count]
    rounds = grown.rounds_until_agreement(ROUNDS_MAX)
    hops = [grown.hops(record, 0.99) for record in made]
    grown.wires.run(25_000)
    copies = sum(grown.watch.copies[record.id] for record in made) / len(made) / (len(grown.nodes) - 1)
    return {"rounds": rounds, "hops_99": max(hops), "copies": round(copies, 2), "bytes_per_node": per_node(grown, before)}


def per_node(grown: Grown, before: Counter[str]) -> dict[str, int]:
    """Bytes sent since then, per node: records, heads, and everything else of gossip."""
    sent = grown.wires.cost.bytes - before
    other = sum(count for name, count in sent.items() if name not in {"Records", "Heads"})
    return {name: count // len(grown.nodes) for name, count in (("records", sent["Records"]), ("heads", sent["Heads"]), ("other", other))}


def page(rows: list[dict], *, entries: int) -> str:  # type: ignore[type-arg]
    """The table for people."""
    lines = [
        "# Gossip in the simulator",
        "",
        f"`make bench BENCH=simulation`: the product's core and codec in virtual time. {entries} entries by up to {AUTHORS} authors that all have; {SITES} sites; links as `protocol.gossip.neighbours` chooses them (full",
        f"mesh up to 32), {LATENCY_MS} ms each. *Hops*: links that a record crossed until 99 % of the nodes had it. *Copies*: how often a record was sent for each node that got it. A *round* is 30 s. Bytes are those sent",
        f"per node. A single entry; then {BURST} entries of as many authors in one moment; then the network is cut in two random halves, {EACH_SIDE} entries are published on each side, and the links come back.",
        "Bytes of the first two include the 25 seconds of heads that tell of the change (a dash: no heads were made in this run), up to 2.5 kB each with the ends of 20 authors; the first publication is also",
        "the one from which the nodes learn along which links heads need not come (before that each comes over every link).",
        "",
        "| nodes | links each | | rounds until all agree | hops to 99 % | copies | records | heads | other |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name in ("single", "burst", "heal"):
            part = row[name]
            sent = part["bytes_per_node"]
            said = f"{sent['heads']:,}" if row["heads"] else "-"
            lines.append(
                f"| {row['nodes']} | {row['links_per_node']} | {name} | {part['rounds']:.3f} | {part.get('hops_99', '')} | {part.get('copies', '')} | {sent['records']:,} | {said} | {sent['other']:,} |"
            )
    lines += ["", ", ".join(f"{row['nodes']} nodes: {row['cpu_s']} s of CPU, {row['peak_mib']} MiB at most" for row in rows) + ".", ""]
    return "\n".join(lines)
