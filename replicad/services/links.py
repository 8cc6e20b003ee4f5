"""Keeps links to the other members: dials whoever should be linked and is not, finds out whose peer door answers, closes links of nodes that are members no more.

Up to ``FULL_MESH_MAX`` members everybody links with everybody; beyond, ``LINKS_NEAR`` at the site and ``LINKS_FAR`` outside (``protocol.gossip.neighbours``), besides two among the members of each share that not
everybody has (its records pass only among those), and others instead of those that cannot be reached. Addresses
come from the members' own heads and from the configuration (``connect``). Whoever cannot be reached is tried again after a pause that doubles up to ``RetryConfig.pause_max_s``; a new address, a
link from the other side or a change of members forgets the pause.

A linked member's door is asked now and then whether it answers us (``ping``, under the link's session): then data can be fetched from it directly, whoever opened the link.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.model.events import HeadsChanged, LinkDown, LinkUp, TrustChanged
from replicad.protocol.gossip.neighbours import Circle, circles, is_full_mesh
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from replicad.model.ids import Digest, NodeId
    from replicad.model.members import Member
    from replicad.net.dialer import Dialer
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.protocol.handshake import Identity
    from replicad.services.hub import Hub, Subscription

log = get(__name__)

DIALS_MAX = 16
PATIENCE_S = 0.25
"""The node with the larger id waits this long before it dials: mostly the other one is there already, and no second link is opened in vain."""


@dataclass(frozen=True)
class RetryConfig:
    """Pauses between attempts. First and last are guesses: a restarted neighbour is back within seconds and dials by itself; a dead one should cost nothing. Jittered down to half."""

    pause_first_s: float = 0.5
    pause_max_s: float = 240.0
    ping_again_s: float = 60.0
    connect_again_s: float = 5.0


@dataclass
class _Attempt:
    """What is known about reaching one member, or one configured address."""

    urls: tuple[str, ...] = ()
    pause_s: float = 0.0
    next_s: float = 0.0
    error: str = ""
    busy: bool = False

    def failed(self, error: str, config: RetryConfig, *, now_s: float, dice: float) -> None:
        self.error = error
        self.pause_s = min(max(config.pause_first_s, 2 * self.pause_s), config.pause_max_s)
        self.next_s = now_s + self.pause_s * (0.5 + 0.5 * dice)

    def forget(self) -> None:
        self.pause_s = self.next_s = 0.0


@dataclass
class _Probe:
    """Whether a linked member's door answers."""

    urls: tuple[str, ...] = ()
    next_s: float = 0.0
    busy: bool = False


@dataclass
class Links:
    """``identity``, ``members`` and ``address`` (base URLs and fingerprint of a member's peer door) are asked afresh each time. ``connect``: further peer doors of unknown members."""

    table: LinkTable
    dialer: Dialer
    hub: Hub
    identity: Callable[[], Identity]
    members: Callable[[], Mapping[NodeId, Member]]
    address: Callable[[NodeId], tuple[tuple[str, ...], Digest | None]]
    dice: Callable[[], float]
    connect: tuple[str, ...] = ()
    own_urls: tuple[str, ...] = ()
    config: RetryConfig = field(default_factory=RetryConfig)
    _attempts: dict[NodeId, _Attempt] = field(default_factory=dict)
    _probes: dict[NodeId, _Probe] = field(default_factory=dict)
    _seeds: dict[str, _Attempt] = field(default_factory=dict)
    _skews: dict[NodeId, int] = field(default_factory=dict)
    _chosen: tuple[Mapping[NodeId, Member], tuple[Circle, ...]] = ({}, ())
    _group: asyncio.TaskGroup | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._seeds = {url: _Attempt((url,)) for url in self.connect if url not in self.own_urls}
        self.table.on_up(self._up)
        self.table.on_down(self._down)
        self.table.on_adopt(self._adopt)

    def trouble(self, node: NodeId) -> str:
        """Why there is no link with that member, for people: ``connection refused at 10.4.0.9:8440; next try in 4 min``. Empty if there is one or nothing is known."""
        attempt = self._attempts.get(node)
        if attempt is None or not attempt.error or self.table.get(node) is not None:
            return ""
        left_s = max(0, attempt.next_s - time.monotonic())
        return f"{attempt.error}; next try in {left_s / 60:.0f} min" if left_s >= 90 else f"{attempt.error}; next try in {left_s:.0f} s"

    def skews(self) -> Mapping[NodeId, int]:
        """Milliseconds by which linked members' clocks were ahead of ours when their doors were last asked."""
        return {node: skew for node, skew in self._skews.items() if self.table.get(node) is not None}

    async def run(self) -> None:
        """Keep links until cancelled."""
        try:
            with self.hub.subscribe(TrustChanged, HeadsChanged) as news:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._listen(news))
                    while True:
                        self._wake.clear()
                        self._begin(group)
                        await self._rest()
        finally:
            self._group = None
            self.table.close_all("this node stops")

    async def _listen(self, news: Subscription) -> None:
        while True:
            events = await news.wait()
            if news.missed or any(isinstance(event, TrustChanged) for event in events):
                self._members_changed()
            self._wake.set()

    async def _rest(self) -> None:
        now_s = time.monotonic()
        times = [attempt.next_s for attempt in self._due_later()]
        try:
            async with asyncio.timeout(max(0.01, min(times, default=now_s + self.config.ping_again_s) - now_s)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _due_later(self) -> Iterable[_Attempt | _Probe]:
        targets = self._targets()
        yield from (attempt for node, attempt in self._attempts.items() if node in targets and attempt.urls and not attempt.busy)
        yield from (probe for node, probe in self._probes.items() if probe.urls and not probe.busy and self.table.get(node) is not None)
        yield from (seed for seed in self._seeds.values() if not seed.busy and not self._linked_through(seed.urls))

    # -- who should be linked -----------------------------------------------------------------------------------------------------------------------

    def _targets(self) -> set[NodeId]:
        """Members to dial: those that should be linked and are not."""
        members = self.members()
        own = self.table.own
        others = members.keys() - {own}
        if own in members and not is_full_mesh(members):
            if self._chosen[0] is not members:
                self._chosen = members, circles(own, members)
            others = set()
            for circle in self._chosen[1]:
                others.update(circle.neighbours)
                if sum(link.node in circle.members for link in self.table.all()) < len(circle.neighbours):
                    others |= circle.of(own, {node: member for node, member in circle.members.items() if node == own or self._may_answer(node)})
        return {node for node in others if self.table.get(node) is None}

    def _may_answer(self, node: NodeId) -> bool:
        """Whether a member is linked or could be: it has an address, and the last attempt did not fail."""
        attempt = self._attempts.get(node)
        return self.table.get(node) is not None or (bool(self._door(node)) and not (attempt and attempt.error))

    def _members_changed(self) -> None:
        members = self.members()
        for link in self.table.all():
            if link.node not in members:
                self.table.dismiss(link)
        for known in (self._attempts, self._probes, self._skews):
            for gone in known.keys() - members.keys():
                del known[gone]
        for attempt in self._attempts.values():
            attempt.forget()

    def _up(self, link: Link) -> None:
        if (attempt := self._attempts.get(link.node)) is not None:
            attempt.forget()
            attempt.error = ""
        self.hub.publish(LinkUp(link.node))
        self._wake.set()

    def _down(self, link: Link, reason: str) -> None:
        if self.table.get(link.node) is None:
            self._probes.pop(link.node, None)
            self.hub.publish(LinkDown(link.node, reason))
            self._wake.set()

    def _adopt(self, link: Link) -> None:
        if self._group is None:
            link.close("links are not kept now")
        else:
            self._group.create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        await self.table.run(link)

    # -- what to begin now --------------------------------------------------------------------------------------------------------------------------

    def _begin(self, group: asyncio.TaskGroup) -> None:
        now_s = time.monotonic()
        running = sum(attempt.busy for attempt in (*self._attempts.values(), *self._seeds.values()))
        for node in sorted(self._targets()):
            attempt = self._attempt_for(node, now_s)
            if attempt.urls and not attempt.busy and attempt.next_s <= now_s and running < DIALS_MAX:
                attempt.busy, running = True, running + 1
                group.create_task(self._dial(attempt, node))
        for seed in self._seeds.values():
            if not seed.busy and seed.next_s <= now_s and running < DIALS_MAX and not self._linked_through(seed.urls):
                seed.busy, running = True, running + 1
                group.create_task(self._dial(seed, None))
        for link in self.table.all():
            probe = self._probe_for(link)
            if probe.urls and not probe.busy and probe.next_s <= now_s:
                probe.busy = True
                group.create_task(self._ping(link, probe))

    def _attempt_for(self, node: NodeId, now_s: float) -> _Attempt:
        """The member's attempt, with its addresses as they are now."""
        attempt = self._attempts.setdefault(node, _Attempt())
        urls = self._door(node)
        if urls != attempt.urls:
            attempt.urls = urls
            attempt.forget()
            attempt.next_s = now_s if self.table.own < node else now_s + PATIENCE_S
        return attempt

    def _probe_for(self, link: Link) -> _Probe:
        probe = self._probes.setdefault(link.node, _Probe())
        known = self._door(link.node)
        urls = known if link.peer_url is None or link.peer_url in known else (link.peer_url, *known)
        if urls != probe.urls:
            probe.urls, probe.next_s = urls, 0.0
        return probe

    def _door(self, node: NodeId) -> tuple[str, ...]:
        return tuple(url for url in self.address(node)[0] if url not in self.own_urls)

    def _linked_through(self, urls: tuple[str, ...]) -> bool:
        return any(link.peer_url in urls or set(urls) & set(self._door(link.node)) for link in self.table.all())

    # -- dialling -----------------------------------------------------------------------------------------------------------------------------------

    async def _dial(self, attempt: _Attempt, node: NodeId | None) -> None:
        """Try one member's (or one configured) addresses in turn; serve the first link that works until it ends."""
        try:
            link = await self._first_link(attempt, node)
        finally:
            attempt.busy = False
            self._wake.set()
        if link is None:
            return
        if node is None:
            attempt.next_s = time.monotonic() + self.config.connect_again_s
        reason = await self.table.run(link)
        if node is not None and self.table.get(node) is None:
            attempt.failed(reason, self.config, now_s=time.monotonic(), dice=self.dice())
        self._wake.set()

    async def _first_link(self, attempt: _Attempt, node: NodeId | None) -> Link | None:
        errors = []
        for url in attempt.urls:
            if node is not None and self.table.get(node) is not None:
                return None
            try:
                return await self.dialer.link(url, self.identity(), expect=node)
            except ReplicadError as error:
                errors.append(error.message)
                log.debug("dialling failed", url=url, reason=error.message)
        attempt.failed("; ".join(errors), self.config, now_s=time.monotonic(), dice=self.dice())
        return None

    async def _ping(self, link: Link, probe: _Probe) -> None:
        """Find out whether the door of a linked member answers us, and how late its clock is. ``LinkUp`` is published again when it turns out to be reachable."""
        urls = probe.urls
        try:
            for url in urls:
                if not link.outgoing:
                    link.certificate = self.address(link.node)[1]
                try:
                    answer = await self.dialer.ping(link, url)
                except ReplicadError as error:
                    log.debug("door does not answer", peer=link.node.short, url=url, reason=error.message)
                    continue
                self._skews[link.node] = answer.clock_ms - int((time.time() - answer.elapsed_s / 2) * 1000)
                is_news = not link.reachable
                link.peer_url, link.reachable = url, True
                if is_news:
                    self.hub.publish(LinkUp(link.node))
                return
            link.reachable = False
        finally:
            probe.busy = False
            if probe.urls == urls:
                probe.next_s = time.monotonic() + self.config.ping_again_s * (0.5 + 0.5 * self.dice())
            self._wake.set()
