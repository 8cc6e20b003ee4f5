"""Pulls: fetch missing parts of chains from linked peers, each chain from one peer at a time (from a second one when the first is late), the network's own chains first, in bounded resumable batches.

An answer that brings nothing, or only records whose predecessors are missing, means that the peer's branch leaves ours earlier than we claimed: the pull is repeated claiming less, doubling up to
``STEP_BACK_MAX``; then the offer is dropped. Everything is forgotten with the link: what is still missing shows up in the next exchange.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.model.ids import NETWORK_SHARE, RecordId
from replicad.protocol.gossip.events import Effect, Tell
from replicad.protocol.wire import Pull

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.model.ids import NodeId
    from replicad.protocol.gossip.rights import Rights
    from replicad.protocol.replica import Replica
    from replicad.protocol.wire import End

PULLS_PER_PEER = 8
"""Pulls under way with one peer: an answer is at most half a MiB, so they fit into its send queue."""
PULL_PATIENCE_MS = 3_000
"""A pull that takes longer is late: then whoever else offers the chain is asked for it as well. Longer than a batch needs at 1.5 Mbit/s."""
PULL_TIMEOUT_MS = 30_000
"""Then it is given up."""
STEP_BACK_MAX = 512
"""Records. With it an answer still fits into one batch, so that it shows more than what is here already."""


_Lines = dict["NodeId", tuple["End", ...]]


@dataclass
class _Active:
    """A pull under way: the chain, the ends that it should bring."""

    share: str
    origin: NodeId
    ends: tuple[End, ...]
    deadline_ms: int = 0
    step_back: int = 0
    late: bool = False


@dataclass
class _Side:
    """One linked peer. ``wanted``: lines it offers of chains not begun, per share; ``parked``: the same, while another peer is being asked. Neither ever holds an empty share."""

    wanted: dict[str, _Lines] = field(default_factory=dict)
    parked: dict[str, _Lines] = field(default_factory=dict)
    active: dict[int, _Active] = field(default_factory=dict)

    def has(self, share: str) -> bool:
        return share in self.wanted or share in self.parked or any(active.share == share for active in self.active.values())

    def asked(self, share: str, origin: NodeId) -> bool:
        return any((active.share, active.origin) == (share, origin) for active in self.active.values())


class Pulls:
    """What is wanted from whom."""

    def __init__(self, rights: Rights, replica: Replica) -> None:
        self._rights = rights
        self._replica = replica
        self._sides: dict[NodeId, _Side] = {}
        self._busy: dict[tuple[str, NodeId], NodeId] = {}
        self._number = 0

    def open(self, node: NodeId) -> None:
        """A link begins."""
        self._sides[node] = _Side()

    def close(self, node: NodeId, now_ms: int, out: list[Effect]) -> None:
        """A link ended: others take over what was under way with it."""
        side = self._sides.pop(node, None)
        for active in side.active.values() if side else ():
            self._free(node, active, now_ms, out)

    def want(self, node: NodeId, share: str, lines: Mapping[NodeId, tuple[End, ...]]) -> bool:
        """Note which chains the peer's lines show to be longer than ours; True if any. Chains of strangers are ignored."""
        side = self._sides[node]
        known = {origin: ends for origin, ends in lines.items() if self._replica.trust.knows(origin, share)}
        lacking = self._lacking(share, known)
        for origin in lacking:
            _take(side.parked, share, origin)
            side.wanted.setdefault(share, {})[origin] = known[origin]
        return bool(lacking)

    def idle(self, node: NodeId, share: str) -> bool:
        """Whether nothing is left to be pulled from the peer in that share."""
        side = self._sides.get(node)
        return side is None or not side.has(share)

    def awaits(self, node: NodeId, number: int) -> bool:
        """Whether a pull of that number is under way with the peer."""
        side = self._sides.get(node)
        return side is not None and number in side.active

    def pump(self, node: NodeId, now_ms: int, out: list[Effect]) -> None:
        """Begin as many pulls as may run at once. Nothing of another share while chains of the network are wanted from this peer: rights decide what counts."""
        side = self._sides.get(node)
        while side and side.wanted and len(side.active) < PULLS_PER_PEER:
            share = NETWORK_SHARE if NETWORK_SHARE in side.wanted else next(iter(side.wanted))
            if share != NETWORK_SHARE and side.has(NETWORK_SHARE):
                break
            origin = next(iter(side.wanted[share]))
            ends = _take(side.wanted, share, origin)
            if (share, origin) in self._busy or side.asked(share, origin):
                side.parked.setdefault(share, {})[origin] = ends
            elif self._rights.may_share(node, share) and self._lacking(share, {origin: ends}):
                self._busy[share, origin] = node
                self._ask(node, side, _Active(share, origin, ends), now_ms, out)

    def answered(self, node: NodeId, number: int, *, more: bool, fresh: int, gaps: int, now_ms: int, out: list[Effect]) -> None:
        """An answer was stored: go on, try further back, or be done with this chain."""
        side = self._sides.get(node)
        active = side.active.pop(number, None) if side else None
        if side is None or active is None:
            return
        more_there = self._rights.may_share(node, active.share) and self._lacking(active.share, {active.origin: active.ends})
        if more_there and active.step_back < STEP_BACK_MAX:
            again = more or gaps > 0 if fresh else not more
            active.step_back = 0 if fresh and not gaps else max(1, active.step_back * 2)
            if again and self._busy.setdefault((active.share, active.origin), node) == node:
                self._ask(node, side, active, now_ms, out)
                return
        self._free(node, active, now_ms, out)
        self.pump(node, now_ms, out)

    def due(self, now_ms: int, out: list[Effect]) -> None:
        """Let others be asked for what is late. Give up what is later still, and what the same peer offered of those chains since: others come first."""
        ripe = [(node, number) for node, side in self._sides.items() for number, active in side.active.items() if active.deadline_ms <= now_ms]
        for node, number in ripe:
            side = self._sides[node]
            active = side.active[number]
            if active.late:
                del side.active[number]
                _take(side.wanted, active.share, active.origin)
                _take(side.parked, active.share, active.origin)
            active.late, active.deadline_ms = True, active.deadline_ms + PULL_TIMEOUT_MS - PULL_PATIENCE_MS
            self._free(node, active, now_ms, out)
            self.pump(node, now_ms, out)

    def deadline_ms(self) -> int | None:
        """When ``due`` has something to do."""
        return min((active.deadline_ms for side in self._sides.values() for active in side.active.values()), default=None)

    def _ask(self, node: NodeId, side: _Side, active: _Active, now_ms: int, out: list[Effect]) -> None:
        self._number += 1
        active.late, active.deadline_ms = False, now_ms + PULL_PATIENCE_MS
        side.active[self._number] = active
        have = self._replica.chains.have(active.origin, active.share, step_back=active.step_back)
        out.append(Tell(node, Pull(self._number, active.share, active.origin, have)))

    def _free(self, node: NodeId, active: _Active, now_ms: int, out: list[Effect]) -> None:
        """Nothing is expected of this peer for the chain any more: whoever else offers it may be asked."""
        if self._busy.get((active.share, active.origin), node) != node:
            return
        self._busy.pop((active.share, active.origin), None)
        for other, side in self._sides.items():
            if active.origin in side.parked.get(active.share, ()):
                side.wanted.setdefault(active.share, {})[active.origin] = _take(side.parked, active.share, active.origin)
                self.pump(other, now_ms, out)

    def _lacking(self, share: str, lines: Mapping[NodeId, tuple[End, ...]]) -> list[NodeId]:
        """The origins of whom these lines show records that are not here. An end within one of our runs counts as known, unless the line names its incarnation twice: then it is a fork."""
        chains = self._replica.chains
        known = chains.unsure(share, lines)
        return chains.behind(lines, known - _forked(lines) if known else frozenset())


def _take(lines: dict[str, _Lines], share: str, origin: NodeId) -> tuple[End, ...]:
    """Remove and return a line (empty if there is none), and the share with its last one."""
    ends = lines.get(share, {}).pop(origin, ())
    if share in lines and not lines[share]:
        del lines[share]
    return ends


def _forked(lines: Mapping[NodeId, tuple[End, ...]]) -> set[RecordId]:
    found: set[RecordId] = set()
    for ends in lines.values():
        if len(ends) > 1:
            times = Counter(end.incarnation for end in ends)
            found.update(end.id for end in ends if times[end.incarnation] > 1)
    return found
