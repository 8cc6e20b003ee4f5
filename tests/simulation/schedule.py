"""A mixed schedule: a thousand things that happen to a network, honest and hostile, from one seed; then peace, and the question whether everybody agrees.

    run(seed)                      one schedule; raises ``Violation`` with the invariant that does not hold

Run as a program it replays one seed or many: ``python schedule.py SEED...``.
"""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.protocol.gossip.core import ROUND_MS
from simulation.attacks import ATTACKS
from simulation.people import People
from simulation.watch import Violation
from simulation.wire import Link, Weather, once_for_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.node import Node

ROUNDS_MAX = 10
"""I2: anti-entropy rounds until all agree, once nothing is broken any more."""
EVENTS = 1000
NODES = 20
LINKS_EACH = 4
BURST = 50
"""Events within a second of virtual time; then a pause, so that heads and rounds get their turn."""
DIALS = 10
"""Links that open within ``DIAL_MS`` once nothing is broken any more."""
DIAL_MS = 1_000
HEADS_MAX = 200
YEAR_AND_A_DAY_MS = 366 * 86_400_000
WEATHERS = (
    Weather(),
    Weather(latency_ms=(5, 400), reorder=True),
    Weather(loss=0.2, duplicate=0.1),
    Weather(latency_ms=(1, 100), loss=0.05, duplicate=0.2, reorder=True),
)
SURVIVED = frozenset({"crash", "restore", "clone", "clock", *(f"attack: {name}" for name in ATTACKS)})
"""What must have happened, or nothing is shown."""


@dataclass
class Outcome:
    """What a run was like: how often what was done, messages, rounds until agreement."""

    done: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    records: int = 0
    rounds: float = 0.0
    checks: Counter[str] = field(default_factory=Counter)
    accusations: Counter[str] = field(default_factory=Counter)
    messages: int = 0

    @property
    def looked(self) -> int:
        """How often at least each invariant that holds all the time was looked at."""
        return min(self.checks[name] for name in ("stored", "settled", "overheard"))


class Schedule:
    """One network and its fate."""

    def __init__(self, seed: int, *, nodes: int = NODES, events: int = EVENTS, favourite: str | None = None) -> None:
        self.people = People(seed, nodes=nodes)
        self.people.old_heads = []
        self.dice = self.people.dice
        self.wires = self.people.wires
        self.events = events
        self.favourite = favourite
        self.outcome = Outcome()
        self.actions: list[tuple[int, str, Callable[[], object]]] = [
            (34, "publish", lambda: self.people.publish(self._anybody())),
            (8, "delete", lambda: self.people.delete(self._anybody())),
            (8, "promote", lambda: self.people.promote(self._anybody())),
            (10, "connect", self._connect),
            (8, "disconnect", self._disconnect),
            (3, "partition", self._partition),
            (3, "half a link", self._block),
            (3, "weather", self._weather),
            (3, "crash", self._crash),
            (5, "restart", self._restart),
            (0.7, "restore", self._restore),
            (0.7, "clone", self._clone),
            (0.7, "retire", self._retire),
            (1.5, "clock", self._clock),
            (2, "sync", self._sync),
            (0.7, "narrow", lambda: self.people.narrow(self._admin(), self._somebody())),
            (0.7, "widen", lambda: self.people.widen(self._admin(), self._somebody())),
            (0.3, "remove", lambda: self.people.remove(self._admin(), self._somebody(liars=True))),
            (0.3, "revoke", lambda: self.people.revoke(self.people.founder, self._somebody(liars=True))),
            (1.0, "admit", lambda: self.people.admit(self._admin(), self._somebody())),
            (0.5, "share", lambda: self.people.change_share(self._admin())),
            (0.5, "takedown", lambda: self.people.take_down(self._admin())),
            (0.6, "unknown type", self._unknown),
            (14, "attack", self._attack),
        ]
        older, newer = self.dice.sample(self.people.honest[3:], 2)
        older.dialect, newer.dialect = "older", "newer"

    # -- the run ------------------------------------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        for _ in range(NODES * LINKS_EACH // 2):
            self._connect()
        burst = 0
        while self.outcome.done.total() < self.events:
            self.step()
            burst += 1
            if burst % BURST == 0:
                self.wires.run(self.dice.choice((500, 2_000, 10_000, 35_000)))
                self.people.watch.check(self.dice.choice(self.people.honest))
        self.peace()
        return self.outcome

    def step(self) -> None:
        """One thing happens."""
        name, action = self.dice.choices([(name, action) for _, name, action in self.actions], [weight for weight, _, _ in self.actions])[0]
        if happened := action():
            self.outcome.done[happened if isinstance(happened, str) else name] += 1
        self.wires.run(self.dice.choice((0, 5, 20, 60)))

    def peace(self) -> None:
        """Nothing is broken any more and no attack goes on; clocks are right, and long enough later nothing is from the future."""
        people, wires = self.people, self.wires
        for twin in list(people.clones):
            people.retire(twin)
        for node in people.nodes:
            people.restart(node)
            node.offset_ms = 0
            node.withhold = None if node.honest else node.withhold
        wires.weather = Weather()
        wires.skipped_ms += YEAR_AND_A_DAY_MS
        for node in people.nodes:
            for link in node.peers.values():
                link.blocked.clear()
        begun, patience = wires.now_ms, ROUNDS_MAX * ROUND_MS
        agreed = wires.run(patience, until=self._agreed, every_ms=DIAL_MS)
        self.outcome.rounds = (wires.now_ms - begun) / ROUND_MS
        if not agreed:
            raise Violation("I2", None, f"no agreement about {people.watch.differing(self._members())} after {ROUNDS_MAX} rounds")
        people.watch.final(self._members(), [node for node in (*people.nodes, *people.retired) if node.honest])
        self.outcome.steps = wires.steps
        self.outcome.records = len(people.founder.stored)
        self.outcome.checks, self.outcome.accusations = people.watch.checks, people.watch.accusations
        self.outcome.messages = wires.cost.messages.total()

    def _agreed(self) -> bool:
        """Whoever is not linked dials, as ``services.links`` does; then: do all agree?"""
        nodes = [node for node in self.people.nodes if node.alive]
        missing = [(one, other) for index, one in enumerate(nodes) for other in nodes[index + 1 :] if other.id not in one.peers]
        self.dice.shuffle(missing)
        linked = [self.wires.link(one, other) for one, other in missing[:DIALS]]
        return not any(linked) and self.people.watch.agree(self._members())

    def _members(self) -> list[Node]:
        return [node for node in self.people.honest if self.people.founder.admits(node.id)]

    # -- who ----------------------------------------------------------------------------------------------------------------------------------------

    def _anybody(self) -> Node:
        """Somebody who publishes: a few more often than others, clones too."""
        honest = [*self.people.honest, *self.people.clones]
        return self.dice.choice(honest[:6] if self.dice.random() < 0.3 else honest)

    def _admin(self) -> Node:
        return self.dice.choice((self.people.founder, self.people.admin, self.people.junior))

    def _somebody(self, *, liars: bool = False) -> Node:
        """Who may be narrowed or expelled: no admin of ours."""
        pool = [node for node in self.people.nodes[3:] if node.honest or liars]
        return self.dice.choice(pool)

    # -- links --------------------------------------------------------------------------------------------------------------------------------------

    def _links(self) -> list[Link]:
        return list({id(link): link for node in (*self.people.nodes, *self.people.clones) for link in node.peers.values()}.values())

    def _connect(self) -> bool | None:
        """A node without enough links dials."""
        nodes = [*self.people.nodes, *self.people.clones]
        lonely = [node for node in nodes if node.alive and len(node.peers) < LINKS_EACH]
        if not lonely:
            return None
        one = self.dice.choice(lonely)
        return self.wires.link(one, self.dice.choice(nodes)) or None

    def _disconnect(self) -> bool | None:
        links = self._links()
        if not links:
            return None
        self.wires.unlink(self.dice.choice(links))
        return True

    def _partition(self) -> bool | None:
        """Everything between two halves ends; or, in one direction, is swallowed."""
        side = {node.name for node in self.people.nodes if self.dice.random() < 0.5}
        swallow = self.dice.random() < 0.5
        for link in self._links():
            if (link.first.name in side) != (link.second.name in side):
                if swallow:
                    link.blocked.add((link.first if link.first.name in side else link.second).name)
                else:
                    self.wires.unlink(link)
        return True

    def _block(self) -> bool | None:
        """One direction of a link is dead until the next of these, or the pings that nobody answers end it."""
        links = self._links()
        for link in links:
            if link.blocked and self.dice.random() < 0.5:
                self.wires.unlink(link)
        chosen = self.dice.choice(links) if links else None
        if chosen is None or chosen.first.peers.get(chosen.second.id) is not chosen:
            return None
        chosen.blocked.add(chosen.first.name)
        return True

    def _weather(self) -> bool:
        self.wires.weather = self.dice.choice(WEATHERS)
        return True

    # -- machines -----------------------------------------------------------------------------------------------------------------------------------

    def _crash(self) -> bool:
        node = self.dice.choice(self.people.honest)
        node.crash(self.dice.random())
        return True

    def _restart(self) -> bool | None:
        down = [node for node in self.people.nodes if not node.alive]
        if not down:
            return None
        self.people.restart(self.dice.choice(down))
        return True

    def _restore(self) -> bool:
        node = self.dice.choice(self.people.honest)
        self.people.restore(node)
        self.people.restart(node)
        return True

    def _clone(self) -> bool | None:
        if len(self.people.clones) >= 2:
            return None
        node = self.dice.choice([node for node in self.people.honest if node is not self.people.founder])
        self.people.clone(node, in_memory=self.dice.random() < 0.3)
        return True

    def _retire(self) -> bool | None:
        if not self.people.clones:
            return None
        self.people.retire(self.dice.choice(self.people.clones))
        return True

    def _clock(self) -> bool:
        node = self.dice.choice(self.people.nodes)
        node.offset_ms = self.dice.choice((0, 0, 700, -1_500, 40_000, -200_000, 900_000, -1_200_000, 86_400_000, -86_400_000))
        return True

    def _sync(self) -> bool:
        """Disks catch up; heads are noted for later replay."""
        for node in self.people.honest:
            if self.dice.random() < 0.3:
                node.sync()
        heads = self.people.old_heads
        heads += [kept.envelope for kept in self.people.founder.standing.kept()][: max(0, HEADS_MAX - len(heads))] if self.people.founder.alive else []
        return True

    def _unknown(self) -> bool | None:
        """A record of a type that only a later version knows, where anything of this node can count at all."""
        node = self._anybody()
        shares = [share for share in node.shares() if node.replica.trust.knows(node.id, share)]
        if not shares:
            return None
        header = node.next_header(self.dice.choice(shares))
        record = node.sign_unknown(header)
        node._add(record)
        node._committed([record], None)
        node.acknowledged.append(record)
        return True

    def _attack(self) -> str:
        name = self.favourite if self.favourite and self.dice.random() < 0.5 else self.dice.choice(list(ATTACKS))
        ATTACKS[name](self.people, self.dice.choice(self.people.liars))
        return f"attack: {name}"


def run(seed: int, *, nodes: int = NODES, events: int = EVENTS, favourite: str | None = None) -> Outcome:
    """One schedule from its seed. ``favourite``: the attack that liars prefer. Memory is not looked through for cycles meanwhile: there are few, and many objects."""
    gc.disable()
    try:
        with once_for_all():
            return Schedule(seed, nodes=nodes, events=events, favourite=favourite).run()
    finally:
        gc.enable()
