"""A content to 8 ... 1,000 simulated nodes, to several sites, among liars and beside nodes in trouble: the product's scheduler in virtual time. Writes bench/results/swarm-simulation.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from replicad.model.entries import Wanted

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "fetch"))

from fetch_simulator import Node, Swarm, wanted  # noqa: E402 - see above

RESULTS = HERE / "results" / "swarm-simulation"
MIB = 1 << 20
RATE = 25e6
LATENCY_S = 0.02
LIMIT_S = 3600.0
TROUBLES = ("slow", "frozen", "resets", "lossy")


def main(arguments: list[str]) -> None:
    """Run what is named, add it to the table."""
    parser = argparse.ArgumentParser(prog="bench swarm_simulation", description=__doc__)
    parser.add_argument("what", nargs="*", default=["swarm", "sites", "liars", "troubles"], help="swarm, sites, liars, troubles (default: all)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 32, 64, 255, 1000], help="sizes of the plain swarm")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    runs = {
        "swarm": lambda: [plain(nodes, mib=options.mib, seed=options.seed) for nodes in options.nodes],
        "sites": lambda: [sites(crashes=crashes, mib=min(options.mib, 128), seed=options.seed) for crashes in (False, True)],
        "liars": lambda: [liars(mib=options.mib, seed=options.seed)],
        "troubles": lambda: [troubles(trouble, mib=options.mib, seed=options.seed) for trouble in TROUBLES],
    }
    rows: dict[str, list[str]] = json.loads(RESULTS.with_suffix(".json").read_text()) if RESULTS.with_suffix(".json").exists() else {}
    for what in options.what:
        rows |= {row[0]: row for row in runs[what]()}
        RESULTS.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(page(rows))


def timed(label: str, swarm: Swarm, waited_for: list[Node], content: Wanted, *, versus_s: float, more: str = "") -> list[str]:
    """Run until these nodes have it; one row: their median, 99th percentile and last time, each over ``versus_s``."""
    begun, left = time.process_time(), list(waited_for)

    def done() -> bool:
        while left and (left[-1].complete or not left[-1].alive):
            left.pop()
        return not left

    swarm.run(done, limit_s=LIMIT_S)
    times = sorted(node.complete[content.content] / versus_s for node in waited_for if node.alive)
    at = (len(times) // 2, int(len(times) * 0.99), -1)
    copies = max(node.sent_bytes for node in swarm.nodes.values()) / content.size
    abroad = max(swarm.abroad.values(), default=0.0) / content.size
    row = [label, *(f"{times[place]:.2f}" for place in at), f"{copies:.2f}", f"{abroad:.2f}" if swarm.abroad else "", more]
    print(" | ".join(row), f"| {time.process_time() - begun:.0f} CPU-s", flush=True)
    return row


def build(seed: int, count: int, content: Wanted, *, site_of: int = 0, lies: int = 0) -> tuple[Swarm, list[Node]]:
    """One source and ``count`` others, linked as the product links; ``site_of`` nodes a site (0: no sites). ``lies`` more hold everything and send wrong bytes."""
    swarm = Swarm(seed, latency_s=LATENCY_S if site_of else 0.002)
    nodes = [swarm.add(up=RATE, down=RATE, linked=False, site=f"site{number // site_of}" if site_of else "") for number in range(count + 1)]
    liars = [swarm.add(up=RATE, down=RATE, linked=False, lie="flip") for _ in range(lies)]
    for node in (nodes[0], *liars):
        swarm.hold(node, [content])
    swarm.link_like_the_product()
    for node in nodes[1:]:
        swarm.want(node, [content])
    return swarm, nodes[1:]


def plain(count: int, *, mib: int, seed: int) -> list[str]:
    """The swarm itself against the bound F / u."""
    content = wanted(1, mib * MIB)
    swarm, nodes = build(seed, count, content)
    return timed(f"{count} nodes, {mib} MiB", swarm, nodes, content, versus_s=content.size / RATE, more="x F/u")


def sites(*, crashes: bool, mib: int, seed: int) -> list[str]:
    """Ten sites of ten; with crashes two owners of each of the other sites die in the middle."""
    content = wanted(1, mib * MIB)
    swarm, nodes = build(seed, 99, content, site_of=10)
    for number, victim in enumerate([node for at, node in enumerate(nodes) if crashes and at >= 9 and (at + 1) % 10 in {1, 2}]):
        swarm.later(0.5 + 0.2 * number, lambda victim=victim: swarm.crash(victim))  # type: ignore[misc]
    return timed(f"10 sites x 10, {mib} MiB" + (", 18 crash" if crashes else ""), swarm, nodes, content, versus_s=content.size / RATE, more="x F/u")


def liars(*, mib: int, seed: int) -> list[str]:
    """Sixteen peers, half of them sending wrong bytes, against the same without them."""
    content = wanted(1, mib * MIB)
    honest, nodes = build(seed, 8, content)
    versus_s = honest.run(lambda: all(node.complete for node in nodes), limit_s=LIMIT_S)
    swarm, nodes = build(seed, 8, content, lies=8)
    return timed(f"8 nodes and 8 liars, {mib} MiB", swarm, nodes, content, versus_s=versus_s, more="x without liars")


def troubles(trouble: str, *, mib: int, seed: int) -> list[str]:
    """Eight nodes, one of them in trouble: the others against the same run without it."""
    content = wanted(1, mib * MIB)
    whole, nodes = build(seed, 8, content)
    versus_s = whole.run(lambda: all(node.complete for node in nodes), limit_s=LIMIT_S)
    swarm, nodes = build(seed, 8, content)
    swarm.later(1.0 if trouble in {"frozen", "resets"} else 0.0, lambda: swarm.afflict(nodes[0], trouble))
    return timed(f"8 nodes, one {trouble}, {mib} MiB", swarm, nodes[1:], content, versus_s=versus_s, more="the others, x without trouble")


def page(rows: dict[str, list[str]]) -> str:
    """The table for people."""
    return "\n".join(
        [
            "# The swarm in the simulator",
            "",
            "`make bench BENCH=swarm_simulation`: the product's own plan, supply and turns (`protocol/fetch`) in virtual time, over links as `protocol.gossip.neighbours` chooses them, 200 Mbit/s up and down for each",
            "node, fluid transfers. F/u is the time of one copy at that rate, the bound for any number of nodes. *Copies*: the most that one node sent. *WAN*: the most that one site got from others.",
            "",
            "| run | median | 99 % | last | copies | WAN | times are |",
            "|---|---|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows.values()),
            "",
        ]
    )
