"""The pump: links, hub and clock in, effects out. Owns every task of fetching and serving; one Task group, nothing left behind.

Assembly opens it before the links run, so that no message finds no handler. If ``run`` fails and is started again, the plan begins afresh: what the disk has is found again, and the peers are asked
anew what they have.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.events import ContentHeld, ContentLost, EntriesChanged, TrustChanged
from replicad.net.client import PeerClient
from replicad.net.pace import Paces
from replicad.protocol.fetch import supply
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.events import Blame, Crew, Event, Halt, Here, Open, Opened, PeerDown, Rival, Say, Target, Tick, Told
from replicad.protocol.fetch.jobs import ContentJob, chunks_of
from replicad.protocol.fetch.plan import Plan, Statistics
from replicad.protocol.wire import Have, HaveMore, Hold, Interest, Seek, Send, SendMany, Small, Unsent
from replicad.services.fetch.awaiting import Awaiting
from replicad.services.fetch.buffers import Buffers
from replicad.services.fetch.getting import Getting
from replicad.services.fetch.giving import Giving
from replicad.services.fetch.inbox import Inbox
from replicad.services.fetch.limiting import Limiting
from replicad.services.fetch.partials import Partials
from replicad.services.fetch.performing import FULL_S, Performing
from replicad.services.fetch.provider import Provider
from replicad.services.fetch.rights import Rights
from replicad.services.fetch.smalls import Smalls
from replicad.services.fetch.speaking import Speaking
from replicad.services.fetch.wanting import Wanting
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from replicad.catalog import Catalog
    from replicad.model.events import Event as HubEvent
    from replicad.model.ids import Digest, NodeId
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.services.hub import Hub, Subscription
    from replicad.store.blobs import BlobStore

log = get(__name__)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One large content on its way: ``sources`` are asked for parts of it now, ``rate`` is what they bring in bytes per second."""

    content: Digest
    size: int
    done_bytes: int
    sources: list[NodeId]
    rate: float


class Fetch:
    """Fetching and serving of one node. Made by ``open``."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        links: LinkTable,
        *,
        hub: Hub,
        config: FetchConfig,
        client: PeerClient,
        paces: Paces,
        rights: Rights,
    ) -> None:
        self._catalog = catalog
        self._links = links
        self._hub = hub
        self._config = config
        self._rights = rights
        self._dice = random.Random()  # noqa: S311 - no secret, and the system's lets other threads run at each pick
        self._plan = Plan(catalog.node, config, self._dice.randrange)
        self._partials = Partials(catalog, store, shrunk=self._shrunk)
        self._buffers = Buffers(config.bytes_in_flight_max)
        self.inbox = Inbox()
        self._smalls = Smalls(catalog, store, changed=self._smalls_changed)
        self.provider = Provider(
            config, catalog=catalog, store=store, partials=self._partials, smalls=self._smalls, rights=self._rights, paces=paces, say=self._say
        )
        self.wanting = Wanting(catalog, self._smalls, clock_ms=rights.clock_ms, report=self._tell, idle=self._buffers.clear)
        self.clients = Awaiting(catalog, store, self._partials, self.provider, rights, report=self._tell, given_up=self.wanting.refresh)
        self._getting = Getting(links, client, self.inbox, paces, urgent=self.wanting.urgent)
        self._giving = Giving(self.provider, client)
        self.limiting = Limiting(paces, links, self._tell)
        self._performing = Performing(
            catalog=catalog,
            store=store,
            getting=self._getting,
            partials=self._partials,
            smalls=self._smalls,
            buffers=self._buffers,
            report=self._tell,
            progressed=self._progressed,
        )
        self._group: asyncio.TaskGroup | None = None
        self._speaking = Speaking(links, rights, self._getting)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._arming = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        catalog: Catalog,
        store: BlobStore,
        links: LinkTable,
        *,
        hub: Hub,
        config: FetchConfig | None = None,
        paces: Paces | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        present: Callable[[NodeId], bool] = lambda _node: False,
    ) -> AsyncIterator[Fetch]:
        """Ready to serve and to ``run``; its messages are routed. ``present`` says which members run, linked or not. Closes its connections at the end."""
        async with PeerClient() as client:
            rights = Rights(catalog, clock_ms=clock_ms, present=present)
            fetch = cls(catalog, store, links, hub=hub, config=config or FetchConfig(), client=client, paces=paces or Paces(), rights=rights)
            fetch._route()
            yield fetch

    # -- what others ask of it

    def transfers(self) -> list[Transfer]:
        """Large contents being fetched, oldest first."""
        found = []
        for job in self._plan.jobs():
            if isinstance(job, ContentJob):
                sources = self._plan.sources(job)
                found.append(Transfer(job.target.content, job.wanted.size, job.wanted.size - job.size_of(job.missing), list(sources), sum(sources.values())))
        return found

    def percent(self, content: Digest) -> int:
        """How much of a content that is not held is here: 0 to 99."""
        job = self._plan.job(content)
        return 0 if job is None else min(99, 100 * (job.count - job.missing.bit_count()) // job.count)

    def statistics(self) -> Statistics:
        """Counters for telemetry."""
        return self._plan.statistics()

    # -- running

    async def run(self) -> None:
        """Fetch and serve until cancelled."""
        self._plan = Plan(self._catalog.node, self._config, self._dice.randrange)
        await self._partials.clear_out()
        try:
            with self._hub.subscribe(EntriesChanged, TrustChanged, ContentHeld, ContentLost) as news:
                await self._run(news)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._smalls.commit()
            await self._partials.close_all()

    async def _run(self, news: Subscription) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            for work in (
                self._speaking.run(),
                self.wanting.run(self.clients.wanted),
                self.provider.measuring.run(),
                self._partials.commit_forever(),
                self._smalls.commit_forever(),
            ):
                group.create_task(work)
            for link in self._links.all():
                self.limiting.up(link.node)
            self.clients.repeat()
            self.wanting.refresh()
            try:
                await self._listen(news)
            finally:
                self._group = None  # a group that ends takes no more tasks, and links still end after it

    async def _listen(self, news: Subscription) -> None:
        while True:
            events = await news.wait()
            missed, news.missed = news.missed, 0
            if missed or any(isinstance(event, TrustChanged) for event in events):
                self._rights.forget()
            if missed or any(isinstance(event, EntriesChanged | TrustChanged | ContentLost) for event in events):
                await self.clients.judge()
                self.wanting.refresh()
            await self._take(events)

    async def _take(self, events: list[HubEvent]) -> None:
        held = [one for event in events if isinstance(event, ContentHeld) for one in event.contents]
        for content, size in held:
            if size > CHUNK_SIZE_MIN:
                self._tell(Here(content))
            self.wanting.held(content)
            self.clients.changed(content)
        await self.provider.now_held(held)
        for event in events:
            if isinstance(event, ContentLost):
                self.provider.lost(event.content)
                self.wanting.lost(event.content)

    # -- events and effects

    def _tell(self, event: Event) -> None:
        """Give the plan an event, do what it says. Without a running service nothing is done."""
        if self._group is None:
            return
        for effect in self._plan.handle(event, asyncio.get_running_loop().time()):
            if isinstance(effect, Say):
                self._say([effect])
            elif isinstance(effect, Open):
                self._group.create_task(self._open(effect))
            elif isinstance(effect, Blame):
                self._group.create_task(self._blame(effect))
            else:
                self._performing.start(self._group, effect)
        self._arm()

    def _say(self, says: list[Say]) -> None:
        self._speaking.say(says)
        self._arm()

    def _arm(self) -> None:
        """One timer for whatever is due next, looked at once however much happens in a turn of the loop."""
        if not self._arming:
            self._arming = True
            asyncio.get_running_loop().call_soon(self._arm_now)

    def _arm_now(self) -> None:
        self._arming = False
        times = [time_s for time_s in (self._plan.next_deadline(), self.provider.supply.next_deadline()) if time_s is not None]
        if self._timer is not None:
            if times and self._timer_s == min(times):
                return
            self._timer.cancel()
            self._timer = None
        if times:
            self._timer_s = min(times)
            self._timer = asyncio.get_running_loop().call_at(self._timer_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self.provider.tell(supply.Due())
        self._tell(Tick())

    async def _blame(self, blame: Blame) -> None:
        log.warning("a peer misbehaved", peer=blame.node.short, offence=blame.offence, detail=blame.detail)
        try:
            await self._catalog.blame(blame.node, blame.offence, blame.detail, self._rights.clock_ms())
        except ReplicadError as error:
            log.warning("an offence could not be noted", peer=blame.node.short, reason=error.message)

    def _smalls_changed(self, contents: Sequence[Small], *, held: bool) -> None:
        self.provider.tell(supply.SmallHeld(tuple(contents), held))
        if not held:
            self._tell(Halt(FULL_S))
            self.wanting.refresh()

    def _shrunk(self, target: Target) -> None:
        self._tell(Opened(target, manifest=True, verified=self._partials.verified(target)))
        self._progressed(target)

    async def _open(self, effect: Open) -> None:
        """Say first with whom the chunks are divided."""
        own, content = self._catalog.node, effect.target.content
        nodes = await self._rights.crew(own, content, linked=lambda node: self._links.get(node) is not None)
        self._tell(Crew(effect.target, nodes))
        if self._group is not None:
            self._performing.start(self._group, effect)

    def _progressed(self, target: Target) -> None:
        self.provider.progressed(target)
        self.clients.changed(target.content)

    # -- links

    def _route(self) -> None:
        self._links.route(Interest, self._on_interest)
        self._links.route(Seek, self._on_seek)
        self._links.route(Have, self._on_have)
        self._links.route(HaveMore, self._on_have)
        self._links.route(Hold, self._on_hold)
        self._links.route(Send, self._on_send)
        self._links.route(SendMany, self._on_send)
        self._links.route(Unsent, self._on_unsent)
        self._links.on_up(lambda link: self.limiting.up(link.node))
        self._links.on_down(self._on_down)

    def _on_down(self, link: Link, _reason: str) -> None:
        if self._links.get(link.node) is None:
            self.provider.tell(supply.Left(link.node))
            self._getting.forget(link.node)
            self._tell(PeerDown(link.node))

    async def _on_interest(self, link: Link, message: Interest) -> None:
        target = Target(message.content, message.manifest)
        self._tell(Rival(link.node, target, message.active))
        await self.provider.watch(link.node, target, active=message.active)

    async def _on_seek(self, link: Link, message: Seek) -> None:
        if message.active:
            self._tell(Rival(link.node, None, active=True))
        await self.provider.seek(link.node, message.contents, active=message.active)
        self._tell(Rival(link.node, None, self.provider.supply.seeks(link.node)))

    def _on_have(self, link: Link, message: Have | HaveMore) -> None:
        self._tell(Told(link.node, message))
        target = Target(message.content, message.manifest)
        partial = self._partials.get(target)
        if partial is not None:
            self.provider.tell(supply.Has(link.node, target, chunks_of(message, partial.manifest.count), whole=isinstance(message, Have)))

    def _on_hold(self, link: Link, message: Hold) -> None:
        self._tell(Told(link.node, message))
        if message.held:
            self.provider.tell(supply.Sought(link.node, message.contents, (), active=False))
            self._tell(Rival(link.node, None, self.provider.supply.seeks(link.node)))

    def _on_send(self, link: Link, message: Send | SendMany) -> None:
        if self._group is None:
            link.send(Unsent(message.transfer, "busy"))
        else:
            self._group.create_task(self._giving.give(link, message))

    def _on_unsent(self, link: Link, message: Unsent) -> None:
        self.inbox.unsent(link.node, message.transfer, message.code)
