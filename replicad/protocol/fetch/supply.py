"""The serving side of the swarm: who is told what this node has.

A peer that fetches a content says so (``Interest``); it hears at once what can be served (``Have``), then what is added (``HaveMore``): soon what nobody else has whom we know to want it, later what others tell as well.
If several fetch the same, each is also told which chunks were sent least, so that they take different ones and spread them among themselves: a random pick alone makes the source send a third more. Small contents are sought and
told in lists (``Seek``, ``Hold``); each is given to one at a site first, who passes it on. The supply refuses to know rights: the service asks for them before it passes a watch on, and again before a message leaves.

``handle(event, now) -> effects``, ``next_deadline()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from replicad.model.chunks import Extent
from replicad.model.ids import Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import FRESH_S, HAVE_S, HOLD_S, PACK_MAX, SEEKING_MAX
from replicad.protocol.fetch.events import Say, Target
from replicad.protocol.fetch.firsts import Firsts
from replicad.protocol.fetch.watched import Watched, Watcher
from replicad.protocol.wire import HaveMore, Hold, Small, parts

WATCHES_PER_PEER_MAX = 2 * SEEKING_MAX
SEEKS_PER_PEER_MAX = 2 * PACK_MAX
"""What one peer may make us remember; beyond it the oldest is forgotten (an honest peer stays at half of it, and repeats what it still wants)."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A peer fetches this content, of which ``servable`` of ``count`` chunks can be served now. ``count`` 0: nothing is known of it here. ``near``: it stands at this node's site; those of other sites
    divide the chunks among themselves and get no suggestions.
    """

    node: NodeId
    target: Target
    count: int
    servable: int
    near: bool = True


@dataclass(frozen=True, slots=True)
class Unwatch:
    """It does not fetch it any more."""

    node: NodeId
    target: Target


@dataclass(frozen=True, slots=True)
class Sought:
    """A peer looks for these small contents, of which ``held`` are here. ``active`` False: not any more, or it has them."""

    node: NodeId
    contents: tuple[Small, ...]
    held: tuple[Small, ...]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Servable:
    """What can be served of a content now: all of it, not only what is new (it may also shrink)."""

    target: Target
    count: int
    chunks: int


@dataclass(frozen=True, slots=True)
class SmallHeld:
    """These small contents can be served now, or cannot any more."""

    contents: tuple[Small, ...]
    held: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """A peer asked for these chunks and is being sent them."""

    node: NodeId
    target: Target
    extent: Extent


@dataclass(frozen=True, slots=True)
class AskedSmall:
    """A peer of that ``site`` asked for these small contents and is being sent them."""

    node: NodeId
    contents: tuple[Small, ...]
    site: str = ""


@dataclass(frozen=True, slots=True)
class UndeliveredSmall:
    """What a peer of that ``site`` was being sent broke off: others need not wait for it."""

    node: NodeId
    contents: tuple[Small, ...]
    site: str = ""


@dataclass(frozen=True, slots=True)
class Has:
    """A peer that we may also serve says what it has of a content, or (not ``whole``) has as well: no need to suggest that, or to tell it that we have the same."""

    node: NodeId
    target: Target
    chunks: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Left:
    """The link to this peer is gone."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Due:
    """Nothing happened, but the deadline has come."""


SupplyEvent = Watch | Unwatch | Sought | Servable | SmallHeld | Asked | AskedSmall | UndeliveredSmall | Has | Left | Due


class Supply:
    """What this node tells its peers about what it has."""

    def __init__(self, randrange: sets.RandRange) -> None:
        self._randrange = randrange
        self._watched: dict[Target, Watched] = {}
        self._watches: dict[NodeId, dict[Target, None]] = {}
        self._seeks: dict[NodeId, dict[Small, bool]] = {}
        self._news: dict[NodeId, list[Small]] = {}
        self._firsts = Firsts(self._seeks)
        self._stale: dict[Target, None] = {}
        self._fresh = False
        self._due: float | None = None
        self._flushed = -HAVE_S
        self._now = 0.0
        self._handlers: dict[type, Callable[[Any], list[Say]]] = {
            Watch: self._on_watch,
            Unwatch: lambda event: self._unwatch(event.node, event.target),
            Sought: self._on_sought,
            Servable: self._on_servable,
            SmallHeld: self._on_small_held,
            Asked: self._on_asked,
            AskedSmall: self._on_asked_small,
            UndeliveredSmall: self._on_undelivered_small,
            Has: self._on_has,
            Left: self._on_left,
            Due: lambda _event: [],
        }

    def handle(self, event: SupplyEvent, now: float) -> list[Say]:
        """Take one event in; returns the messages to send."""
        self._now = now
        effects = self._handlers[type(event)](event)
        if self._stale or self._news:
            self._due = max(now, self._flushed + self._gathered_s)
        if self._due is not None and now >= self._due:
            self._due, self._flushed = None, now
            effects += self._flush()
        return effects

    @property
    def _gathered_s(self) -> float:
        if self._fresh:
            return FRESH_S
        return HOLD_S if self._news else HAVE_S

    def next_deadline(self) -> float | None:
        """When ``handle(Due())`` must be called if nothing happens before."""
        return self._due

    def is_watched(self, target: Target) -> bool:
        """Whether somebody would like to know when more of it can be served."""
        return target in self._watched

    def watched_targets(self, content: Digest) -> list[Target]:
        """Under which manifests somebody watches this content."""
        return [target for target in self._watched if target.content == content]

    @property
    def watching(self) -> int:
        """How many peers fetch something that they may look for here."""
        return len({node for sought in (self._watches, self._seeks) for node, some in sought.items() if some})

    def seeks(self, node: NodeId) -> bool:
        """Whether this peer looks for any small content."""
        return bool(self._seeks.get(node))

    def spreads(self, node: NodeId, target: Target, extent: Extent, now: float) -> bool:
        """Whether this peer will soon have these chunks from another that just got them: then it is not given them as well (``Watched.spreads``)."""
        watched = self._watched.get(target)
        return watched is not None and watched.spreads(node, extent, now)

    def spreads_small(self, node: NodeId, contents: Iterable[Small], now: float, *, site: str = "") -> frozenset[Small]:
        """Those that another peer of this one's ``site`` was given first, so short a time ago that this one will soon have them from there."""
        return self._firsts.spread(node, contents, site=site, now=now)

    # -- large contents

    def _on_watch(self, event: Watch) -> list[Say]:
        watches = self._watches.setdefault(event.node, {})
        effects: list[Say] = []
        if event.target not in watches and len(watches) >= WATCHES_PER_PEER_MAX:
            effects += self._unwatch(event.node, next(iter(watches)))
        watches[event.target] = None
        watched = self._watched.setdefault(event.target, Watched(event.count, event.servable))
        watched.count, watched.servable = event.count, event.servable
        watcher = watched.watchers.setdefault(event.node, Watcher())
        watcher.told, watcher.near = watched.servable, event.near
        self._stale[event.target] = None
        return [*effects, Say(event.node, watched.have(event.target))]

    def _unwatch(self, node: NodeId, target: Target) -> list[Say]:
        self._watches.get(node, {}).pop(target, None)
        watched = self._watched.get(target)
        if watched is not None and (watcher := watched.watchers.pop(node, None)) is not None:
            watched.given.remove(watcher.suggested)
            if not watched.watchers:
                del self._watched[target]
                self._stale.pop(target, None)
        return []

    def _on_servable(self, event: Servable) -> list[Say]:
        watched = self._watched.get(event.target)
        if watched is None:
            return []
        lost = watched.servable & ~event.chunks
        self._fresh |= bool(event.chunks & ~watched.servable & ~watched.owned)
        watched.count, watched.servable = event.count, event.chunks
        self._stale[event.target] = None
        if not lost:
            return []
        for watcher in watched.watchers.values():
            watcher.told = watched.servable
        return [Say(node, watched.have(event.target)) for node in watched.watchers]

    def _on_asked(self, event: Asked) -> list[Say]:
        watched = self._watched.get(event.target)
        if watched is not None:
            chunks = sets.run(event.extent.first, event.extent.count)
            watcher = watched.watchers.get(event.node)
            watched.given.add(chunks & ~watcher.suggested if watcher is not None else chunks)
            if watcher is not None:
                watcher.suggested &= ~chunks
                watcher.owns |= chunks
                watched.gave(event.node, event.extent, self._now)
                self._stale[event.target] = None
        return []

    def _on_has(self, event: Has) -> list[Say]:
        watched = self._watched.get(event.target)
        watcher = watched.watchers.get(event.node) if watched is not None else None
        if watched is not None and watcher is not None:
            lost = watcher.owns & ~event.chunks if event.whole else 0
            if lost & watcher.told:
                self._stale[event.target] = None
            watcher.told &= ~lost
            watcher.owns = watcher.owns & ~lost | event.chunks
            watched.given.remove(watcher.suggested & event.chunks)
            watcher.suggested &= ~event.chunks
        return []

    # -- small contents

    def _on_sought(self, event: Sought) -> list[Say]:
        seeks = self._seeks.setdefault(event.node, {})
        if not event.active:
            for small in event.contents:
                seeks.pop(small, None)
            return []
        seeks.update(dict.fromkeys(event.contents, False) | dict.fromkeys(event.held, True))
        while len(seeks) > SEEKS_PER_PEER_MAX:
            del seeks[next(iter(seeks))]
        return [Say(event.node, Hold(part)) for part in parts(event.held)]

    def _on_small_held(self, event: SmallHeld) -> list[Say]:
        effects: list[Say] = []
        before = not event.held
        for node, seeks in self._seeks.items():
            concerned = [small for small in event.contents if seeks.get(small) is before]
            if not concerned:
                continue
            seeks.update(dict.fromkeys(concerned, event.held))
            if event.held:
                self._news.setdefault(node, []).extend(concerned)
            else:
                effects += [Say(node, Hold(part, held=False)) for part in parts(concerned)]
        return effects

    def _on_asked_small(self, event: AskedSmall) -> list[Say]:
        self._firsts.gave(event.node, event.contents, site=event.site, now=self._now)
        return []

    def _on_undelivered_small(self, event: UndeliveredSmall) -> list[Say]:
        self._firsts.broke(event.node, event.contents, site=event.site)
        return []

    def _on_left(self, event: Left) -> list[Say]:
        for target in list(self._watches.get(event.node, ())):
            self._unwatch(event.node, target)
        for table in (self._watches, self._seeks, self._news):
            table.pop(event.node, None)
        return []

    # -- what is told

    def _flush(self) -> list[Say]:
        effects: list[Say] = []
        for target in self._stale:
            watched = self._watched[target]
            for node, watcher in watched.watchers.items():
                effects += self._news_for(node, watcher, target=target, watched=watched)
        self._stale.clear()
        self._fresh = False
        for node, contents in self._news.items():
            seeks = self._seeks[node]
            effects += [Say(node, Hold(part)) for part in parts([small for small in contents if seeks.get(small)])]
        self._news.clear()
        return effects

    def _news_for(self, node: NodeId, watcher: Watcher, *, target: Target, watched: Watched) -> list[Say]:
        news = watched.servable & ~watcher.told
        suggest = watched.suggest(watcher, self._randrange) if watcher.near and len(watched.watchers) > 1 else 0
        watcher.told = watched.servable
        if news and watched.complete:
            effects: list[Say] = [Say(node, watched.have(target))]
            news = 0
        else:
            effects = []
            news &= ~watcher.owns
        if news or suggest:
            effects.append(Say(node, HaveMore(*target, chunks=tuple(sets.members(news)), suggest=tuple(sets.members(suggest)))))
        return effects
