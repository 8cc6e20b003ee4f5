"""Drives the gossip core (``protocol.gossip``): links and hub in, effects out, and the clock.

Storing what peers send and answering their pulls runs beside the core, one after the other per peer and ``STORES_AT_ONCE`` peers at once. A peer that sends faster than its records can be stored
is not read from until they are (``BACKLOG_BYTES``). Heads are saved every ``SAVE_S`` seconds, and at once when somebody has a new address, so that a restarted node knows where the others are.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import PeerError, ReplicadError
from replicad.model.events import ContentHeld, ContentLost, HeadsChanged, RecordsCommitted, Synchronised, TrustChanged
from replicad.model.ids import NETWORK_SHARE, Digest, NodeId, Stamp
from replicad.protocol.chains import Admission
from replicad.protocol.gossip import heads
from replicad.protocol.gossip.core import GOSSIP_MESSAGES, Gossip
from replicad.protocol.gossip.events import (
    Accuse,
    Agreed,
    Chain,
    Committed,
    Describe,
    Described,
    Effect,
    Event,
    Heard,
    Holdings,
    HoldingsChanged,
    LinkClosed,
    LinkOpened,
    News,
    Now,
    Read,
    RightsChanged,
    Store,
    Stored,
    Tell,
    Tick,
)
from replicad.protocol.gossip.heads import Missing, Presence
from replicad.protocol.gossip.standing import Kept
from replicad.protocol.wire import RECORDS_BYTES_PER_MESSAGE
from replicad.services.gossip.backlog import Backlog
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from replicad.catalog import Catalog
    from replicad.catalog.answers import Refusal
    from replicad.crypto.keys import SigningKey
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.protocol.gossip.standing import Standing
    from replicad.protocol.replica import Replica
    from replicad.protocol.wire import Message
    from replicad.services.hub import Hub, Subscription

log = get(__name__)

STORES_AT_ONCE = 4
READS_AT_ONCE = 4
BACKLOG_BYTES = 8 << 20
BLAMELESS = frozenset({Admission.FUTURE, Admission.STRANGER, Admission.FULL})
"""Refusals that clocks, and grants that arrive here later than there, explain."""
SAVE_S = 60.0
_UNHEARD_MS = 1 << 42
"""Age given to heads read from the catalog: nobody counts as linked because of them."""


@dataclass
class GossipService:
    """``percent`` says how far a content that is not held has come; ``presence`` what this node says about itself (``links`` and ``load_percent`` are filled in here)."""

    catalog: Catalog
    links: LinkTable
    standing: Standing
    hub: Hub
    key: SigningKey
    percent: Callable[[Digest], int]
    presence: Callable[[], Presence]
    dice: Callable[[], float]
    clock_ms: Callable[[], int]
    _core: Gossip | None = None
    _replica: Replica | None = None
    _group: asyncio.TaskGroup | None = None
    _backlogs: dict[NodeId, Backlog] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _store_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STORES_AT_ONCE))
    _read_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))
    _saved: dict[tuple[NodeId, str], tuple[int, int]] = field(default_factory=dict)
    _saved_addresses: dict[NodeId, object] = field(default_factory=dict)
    _save_now: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for message in GOSSIP_MESSAGES:
            self.links.route(message, self._heard)
        self.links.on_up(lambda link: self._handle(LinkOpened(link.node)))
        self.links.on_down(self._link_down)

    async def run(self) -> None:
        """Gossip until cancelled."""
        await self._load_heads()
        try:
            with self.hub.subscribe(RecordsCommitted, TrustChanged, ContentHeld, ContentLost) as news:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    self._renew_core()
                    group.create_task(self._listen(news))
                    group.create_task(self._save_often())
                    try:
                        await self._keep_time()
                    finally:
                        self._group = None  # a group that ends takes no more tasks, and links still have things to say
        finally:
            self._core = self._replica = None
            self._backlogs.clear()
            await self.save_heads()

    # -- the core and its clock ---------------------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Tell the core what happened, and do what it says. Nothing happens while the service does not run: links are taken up at its start."""
        if self._group is None:
            return
        if self._replica is not self.catalog.replica:
            self._renew_core()
        if self._core is not None:
            self._perform(self._core.handle(event, self._now()))
            self._wake.set()

    def _renew_core(self) -> None:
        """A core for the network that this node belongs to now."""
        self._replica = replica = self.catalog.replica
        now = self._now()
        own = [kept.head.incarnation for kept in self.standing.kept() if kept.head.node == self.key.id]
        incarnation = max(Stamp.of(now.wall_ms), Stamp(max(own, default=0) + 1))
        self._core = Gossip(key=self.key, replica=replica, standing=self.standing, incarnation=incarnation, dice=self.dice, now=now)
        for link in self.links.all():
            self._perform(self._core.handle(LinkOpened(link.node), now))
        self._wake.set()

    async def _keep_time(self) -> None:
        while self._core is not None:
            self._wake.clear()
            left_s = (self._core.deadline_ms() - self._now().monotonic_ms) / 1000
            try:
                async with asyncio.timeout(max(0.001, left_s)):
                    await self._wake.wait()
            except TimeoutError:
                self._handle(Tick())

    async def _listen(self, news: Subscription) -> None:
        missed = 0
        while True:
            events = await news.wait()
            for event in events:
                if isinstance(event, RecordsCommitted):
                    self._handle(Committed(event.records, event.source))
                elif isinstance(event, TrustChanged):
                    self._handle(RightsChanged())
            lost, missed = news.missed != missed, news.missed
            if lost:
                self._handle(RightsChanged())
            if lost or any(isinstance(event, ContentHeld | ContentLost) for event in events):
                self._handle(HoldingsChanged())

    def _now(self) -> Now:
        return Now(int(time.monotonic() * 1000), self.clock_ms())

    # -- links --------------------------------------------------------------------------------------------------------------------------------------

    def _link_down(self, link: Link, reason: str) -> None:
        if link.offence:
            self._begin(self._blame(link.node, link.offence, reason))
        if self.links.get(link.node) is None:
            self._backlogs.pop(link.node, None)
            self._handle(LinkClosed(link.node))

    def _heard(self, link: Link, message: Message) -> Awaitable[None] | None:
        self._handle(Heard(link.node, message))
        backlog = self._backlogs.get(link.node)
        return None if backlog is None or backlog.size_bytes <= BACKLOG_BYTES else self._wait_for_room(backlog)

    @staticmethod
    async def _wait_for_room(backlog: Backlog) -> None:
        if backlog.working and backlog.size_bytes > BACKLOG_BYTES:
            backlog.room.clear()
            await backlog.room.wait()

    # -- effects ------------------------------------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(node, message):
                    if (link := self.links.get(node)) is not None:
                        link.send(message)
                case Store():
                    self._queue(effect)
                case Read():
                    self._begin(self._read(effect))
                case Describe(share):
                    self._begin(self._describe(share))
                case News(node):
                    self._news(node)
                case Agreed(node):
                    self.hub.publish(Synchronised(node))
                case Accuse():
                    self._accuse(effect)

    def _news(self, node: NodeId) -> None:
        self.hub.publish(HeadsChanged(node))
        if self.standing.address(node) != self._saved_addresses.get(node):
            self._save_now.set()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        if self._group is None:
            work.close()
        else:
            self._group.create_task(work)

    def _accuse(self, effect: Accuse) -> None:
        log.seldom(("accused", effect.node), "peer broke the protocol", peer=effect.node.short, offence=effect.offence, detail=effect.detail)
        if (link := self.links.get(effect.node)) is not None:
            link.close(effect.detail, code=effect.offence)
        self._begin(self._blame(effect.node, effect.offence, effect.detail))

    async def _blame(self, node: NodeId, offence: str, detail: str) -> None:
        try:
            await self.catalog.blame(node, offence, detail, self.clock_ms())
        except ReplicadError as error:
            log.warning("an offence could not be noted", peer=node.short, reason=error.message)

    def _queue(self, store: Store) -> None:
        backlog = self._backlogs.setdefault(store.node, Backlog())
        backlog.put(store)
        if not backlog.working:
            backlog.working = True
            self._begin(self._work_off(backlog))

    async def _work_off(self, backlog: Backlog) -> None:
        """Store what one peer sent, in order."""
        try:
            while backlog.stores:
                async with self._store_slots:
                    store, size_bytes = backlog.next()
                    await self._store(store)
                backlog.size_bytes -= size_bytes
                if backlog.size_bytes <= BACKLOG_BYTES:
                    backlog.room.set()
        finally:
            backlog.working = False
            backlog.room.set()

    async def _store(self, store: Store) -> None:
        """What cannot be stored is let go, without an answer to the core: it gives up the pull in time, and what is missing shows in the next exchange."""
        try:
            received = await self.catalog.receive(store.envelopes, source=store.node)
        except ReplicadError as error:
            log.seldom("news", "news cannot be stored and is not taken; it is asked for again", reason=error.message)
            return
        self._judge(store.node, received.refused)
        self._handle(Stored(store, frozenset(record.header.origin for record in received.new), received.gaps))

    def _judge(self, node: NodeId, refused: Sequence[Refusal]) -> None:
        """Whoever stores only what it verified sends nothing that is forged or contradicts its predecessor."""
        for refusal in refused:
            log.seldom((node, refusal.code), "record refused", peer=node.short, code=refusal.code, detail=refusal.detail)
        offence = next((refusal for refusal in refused if refusal.code not in BLAMELESS), None)
        link = self.links.get(node)
        if offence is not None and link is not None and not link.closed:
            self._accuse(Accuse(node, offence.code, offence.detail))

    async def _read(self, effect: Read) -> None:
        pull = effect.pull
        async with self._read_slots:
            envelopes, more = await self.catalog.records_for_pull(pull.share, pull.origin, pull.have, bytes_max=RECORDS_BYTES_PER_MESSAGE)
        self._handle(Chain(effect.node, pull, tuple(envelopes), more))

    async def _describe(self, share: str) -> None:
        """What is held is looked at after the core noted the frontier: a head may claim too little, never too much."""
        if share == NETWORK_SHARE:
            presence = msgspec.structs.replace(
                self.presence(),
                links=tuple(link.node for link in self.links.all())[: heads.LINKS_MAX],
                load_percent=int(100 * os.getloadavg()[0] / (os.cpu_count() or 1)),
            )
            self._handle(Described(share, Holdings(0, 0, None, ()), presence))
            return
        found = await self.catalog.missing(share, heads.MISSING_MAX)
        newest = tuple(Missing(content, min(99, max(0, self.percent(content)))) for content in found.newest)
        self._handle(Described(share, Holdings(found.count, found.size_bytes, found.oldest, newest), None))

    # -- heads on disk ------------------------------------------------------------------------------------------------------------------------------

    async def _load_heads(self) -> None:
        for row in await self.catalog.heads():
            try:
                head = heads.peek(row.envelope)
            except PeerError:
                continue
            self.standing.add(Kept(head, row.envelope, self._now().monotonic_ms - _UNHEARD_MS))
            self._saved[head.node, head.share] = head.order
            if head.share == NETWORK_SHARE:
                self._saved_addresses[head.node] = self.standing.address(head.node)
                self.hub.publish(HeadsChanged(head.node))

    async def _save_often(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SAVE_S):
                    await self._save_now.wait()
            except TimeoutError:
                pass
            self._save_now.clear()
            await self.save_heads()

    async def save_heads(self) -> None:
        """Write heads that are newer than what the catalog has; if that fails, the next time."""
        newer = [kept for kept in self.standing.kept() if self._saved.get((kept.head.node, kept.head.share)) != kept.head.order]
        if not newer:
            return
        try:
            await self.catalog.save_heads([(kept.head.node, kept.head.share, kept.envelope) for kept in newer])
        except ReplicadError as error:
            log.seldom("heads", "what others say about themselves cannot be saved; it will be tried again", reason=error.message)
            return
        self._saved.update({(kept.head.node, kept.head.share): kept.head.order for kept in newer})
        self._saved_addresses.update({kept.head.node: self.standing.address(kept.head.node) for kept in newer})
