"""What is wanted, in order of age, and which of it is looked for, opened and fetched now.

Large contents: the oldest ``SEEKING_MAX`` are looked for; as soon as somebody has one, and fewer than ``contents_max`` are being fetched, it is opened. Small contents fill the window of one
pack. What nobody has for ``STALLED_S`` gives its place to others that wait, so that names of contents which exist nowhere never block those which do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId
from replicad.model.manifest import Manifest
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import RENEW_S, SEEKING_MAX, STALLED_S, FetchConfig
from replicad.protocol.fetch.events import Close, Effect, Open, Say, Target
from replicad.protocol.fetch.jobs import ContentJob, Job, PackJob, State, small_of
from replicad.protocol.wire import SEEK_PER_MESSAGE_MAX, Have, HaveMore, Hold, Interest, Seek, Small

SHUNNED_S = 3600.0
"""What cannot be true is not tried again for so long."""
RIVALRIES_MAX = 1024
"""Contents of which it is remembered who else fetches them."""


class Backlog:
    """Wants become jobs here. ``emit`` takes effects, ``peers`` yields who may be asked now, ``drop_requests`` cancels what is under way for a job."""

    def __init__(
        self,
        config: FetchConfig,
        own: NodeId,
        *,
        emit: Callable[[Effect], None],
        peers: Callable[[], Iterable[NodeId]],
        drop_requests: Callable[[ContentJob], None],
    ) -> None:
        self._config = config
        self._emit = emit
        self._peers = peers
        self._drop_requests = drop_requests
        self.jobs: dict[Target, ContentJob] = {}
        self.pack = PackJob(own)
        self._large: dict[Target, Wanted] = {}
        self._small: dict[Small, Wanted] = {}
        self._benched: dict[Target | Small, float] = {}
        self._rivals: dict[Target, set[NodeId]] = {}
        self._unsought: list[Small] = []
        self._renewed = 0.0
        self._rotated = 0.0

    # -- what is wanted

    def want(self, wanted: Iterable[Wanted], now: float, *, cut: bool) -> None:
        """Replace the list; ``cut``: it only holds the oldest, so nothing is dropped for being absent."""
        large: dict[Target, Wanted] = {}
        small: dict[Small, Wanted] = {}
        for one in wanted:
            if one.size > CHUNK_SIZE_MIN:
                large[Target(one.content, one.manifest)] = one
            else:
                small[small_of(one)] = one
        if not cut:
            self._drop_unwanted(large, small)
        self._benched = {key: until for key, until in self._benched.items() if until > now}
        self._large = {target: one for target, one in large.items() if target not in self.jobs}
        self._small = {key: one for key, one in small.items() if not self._in_pack(key)}

    def _in_pack(self, key: Small) -> bool:
        place = self.pack.places.get(key)
        return place is not None and bool(self.pack.missing >> place & 1)

    def _drop_unwanted(self, large: dict[Target, Wanted], small: dict[Small, Wanted]) -> None:
        for job in [job for target, job in self.jobs.items() if target not in large and job.state is not State.FINISHING]:
            self.abandon(job, discard=True)
        self._let_go([key for key in self.pack.places if key not in small])

    def here(self, content: Digest) -> None:
        """The content is held now: whatever was done for it ends."""
        for job in [job for job in self.jobs.values() if job.target.content == content and job.state is not State.FINISHING]:
            self.abandon(job, discard=True)
        for target in [target for target in self._large if target.content == content]:
            del self._large[target]

    def small_here(self, units: int) -> None:
        """These places of the pack were filled. Nobody is told that they are sought no more: whoever seeks them hears that they are here, and whoever has them will not need to say so again."""
        self.pack.drop(units)

    def _let_go(self, keys: list[Small]) -> None:
        self.pack.drop(self.pack.units_of(keys))
        self._unsought += keys

    # -- peers

    def greet(self, node: NodeId) -> None:
        """Tell a peer that may be asked from now on what is looked for."""
        for job in self.jobs.values():
            self._emit(Say(node, Interest(*job.target)))
        self._seek(node, [small_of(wanted) for wanted in self.pack.wanted_of(self.pack.missing)])

    def forget(self, node: NodeId) -> None:
        """The peer may not be asked any more."""
        for job in (*self.jobs.values(), self.pack):
            job.forget(node)

    def rival(self, node: NodeId, target: Target, *, active: bool) -> None:
        """A peer fetches the same content, or does not any more."""
        if active:
            if target not in self._rivals and len(self._rivals) >= RIVALRIES_MAX:
                del self._rivals[next(iter(self._rivals))]
            self._rivals.setdefault(target, set()).add(node)
        elif target in self._rivals:
            self._rivals[target].discard(node)
            if not self._rivals[target]:
                del self._rivals[target]
        if (job := self.jobs.get(target)) is not None:
            job.rivals = self._rivals.get(target, set())

    def no_rival(self, node: NodeId) -> None:
        """The peer is gone: it fetches nothing."""
        for target in [target for target, nodes in self._rivals.items() if node in nodes]:
            self.rival(node, target, active=False)

    def sought(self, node: NodeId, message: Seek, now: float) -> None:
        """A peer looks for small contents, or does not any more."""
        if message.active:
            self.pack.claims.seek(node, ((small, self.pack.places.get(small)) for small in message.contents), now)
        else:
            self.pack.claims.found(node, message.contents, self.pack.units_of(message.contents), now)

    def told(self, node: NodeId, message: Have | HaveMore | Hold, now: float) -> bool:
        """A peer says what it has; True if something of it is missing here."""
        if isinstance(message, Hold):
            units = self.pack.units_of(message.contents)
            if message.held:
                self.pack.claims.found(node, message.contents, units, now)
                return bool(self.pack.learn(node, units))
            self.pack.unlearn(node, units)
            return False
        job = self.jobs.get(Target(message.content, message.manifest))
        return job is not None and _told(job, node, message)

    # -- what is done about it

    def advance(self, now: float) -> list[ContentJob]:
        """Fill the windows, open what can be fetched. Returns the jobs for which somebody may be asked now, oldest first."""
        self._rotate(now)
        self._fill(now)
        self._fill_pack(now)
        self._renew(now)
        self._flush_unsought(force=not self.pack.missing)
        underway = [job for job in self.jobs.values() if job.state is not State.SEEKING]
        if len(underway) < self._config.contents_max:
            ready = sorted(
                (job for job in self.jobs.values() if job.state is State.SEEKING and job.benched_until <= now and job.reachable), key=lambda job: job.order
            )
            for job in ready[: self._config.contents_max - len(underway)]:
                job.state = State.OPENING
                self._emit(Open(job.target))
        return sorted((job for job in underway if job.state in {State.NAMELESS, State.ACTIVE}), key=lambda job: job.order)

    def in_order(self, ready: list[ContentJob]) -> list[Job]:
        """The same with the pack in its place."""
        if not self.pack.missing:
            return list(ready)
        return sorted((*ready, self.pack), key=lambda job: job.order)

    def abandon(self, job: ContentJob, *, discard: bool) -> None:
        """End a job for good; a content that is being finished is not disturbed (``Finish`` closes it)."""
        self._drop_requests(job)
        del self.jobs[job.target]
        self._tell_all(Interest(*job.target, active=False))
        if job.state is not State.FINISHING and (discard or job.state in {State.NAMELESS, State.ACTIVE}):
            self._emit(Close(job.target, discard))

    def opened(self, target: Target) -> ContentJob | None:
        """The job whose partial is ready; None, and the partial is closed, if it ended meanwhile."""
        job = self.jobs.get(target)
        if job is None or job.state is State.SEEKING:
            self._emit(Close(target, discard=target not in self._large and job is None))
            return None
        return job

    def bench(self, job: ContentJob, until: float) -> None:
        """Fetch nothing of it for a while, but keep what is here."""
        self._drop_requests(job)
        if job.state in {State.NAMELESS, State.ACTIVE}:
            self._emit(Close(job.target, discard=False))
        job.state = State.SEEKING
        job.benched_until = until

    def done(self, job: ContentJob, now: float, *, sound: bool) -> None:
        """It was finished. If its manifest turned out to lie, it is not begun again soon."""
        if not sound:
            self._benched[job.target] = now + SHUNNED_S
        self.abandon(job, discard=True)

    def next_deadline(self) -> float | None:
        """When windows must be looked at again although nothing happened."""
        times = [job.benched_until for job in self.jobs.values() if job.state is State.SEEKING and job.benched_until]
        if self.jobs or self.pack.missing:
            times.append(self._renewed + RENEW_S)
        if self.pack.missing and (patience := self.pack.claims.next_deadline()) is not None:
            times.append(patience)
        return min(times, default=None)

    # -- windows

    def _fill(self, now: float) -> None:
        if len(self.jobs) >= SEEKING_MAX or not self._large:
            return
        ready = (target for target in self._large if self._benched.get(target, 0.0) <= now)
        for target in list(islice(ready, SEEKING_MAX - len(self.jobs))):
            job = self.jobs[target] = ContentJob(self._large.pop(target))
            job.since = now
            job.rivals = self._rivals.get(target, set())
            self._tell_all(Interest(*target))

    def _fill_pack(self, now: float) -> None:
        if not self._small or self.pack.room < min(len(self._small), SEEK_PER_MESSAGE_MAX // 4):
            return
        ready = (key for key in self._small if self._benched.get(key, 0.0) <= now)
        chosen = list(islice(ready, self.pack.room))
        added = [key for key in chosen if _is_implied(self._small[key])]
        self._benched.update((key, now + SHUNNED_S) for key in chosen)
        for key in added:
            del self._benched[key]
            self.pack.add(self._small[key], now)
        for key in chosen:
            del self._small[key]
        for node in self._peers():
            self._seek(node, added)

    def _rotate(self, now: float) -> None:
        """Give the places of what nobody has to what waits."""
        if now - self._rotated < STALLED_S / 4:
            return
        self._rotated = now
        waiting = [job for job in self.jobs.values() if job.state is State.SEEKING and job.reachable and job.benched_until <= now]
        for job in list(self.jobs.values()):
            if job.reachable or job.state not in {State.SEEKING, State.NAMELESS, State.ACTIVE} or job.flying.counted:
                job.since = now
            elif now - job.since >= STALLED_S:
                if job.state is not State.SEEKING:
                    if waiting:
                        self.bench(job, now)
                elif self._large:
                    self._benched[job.target] = now + STALLED_S
                    self.abandon(job, discard=False)
                    self._large[job.target] = job.wanted
        if self._small:
            stalled = self.pack.wanted_of(self.pack.unheld(now, STALLED_S))
            for wanted in stalled:
                self._benched[small_of(wanted)] = now + STALLED_S
                self._small[small_of(wanted)] = wanted
            self._let_go([small_of(wanted) for wanted in stalled])

    def _renew(self, now: float) -> None:
        """Repeat interest in what nobody has: the other side may have learned of it, or of our rights, since."""
        if now - self._renewed < RENEW_S:
            return
        self._renewed = now
        for job in self.jobs.values():
            if not job.reachable:
                self._tell_all(Interest(*job.target))
        unheld = [small_of(wanted) for wanted in self.pack.wanted_of(self.pack.missing & ~self.pack.rarity.counted)]
        for node in self._peers():
            self._seek(node, unheld)

    # -- messages

    def _tell_all(self, message: Interest) -> None:
        for node in self._peers():
            self._emit(Say(node, message))

    def _seek(self, node: NodeId, contents: list[Small], *, active: bool = True) -> None:
        for part in _parts(contents):
            self._emit(Say(node, Seek(part, active)))

    def _flush_unsought(self, *, force: bool) -> None:
        if self._unsought and (force or len(self._unsought) >= SEEK_PER_MESSAGE_MAX // 4):
            gone = [key for key in self._unsought if key not in self.pack.places]
            self._unsought.clear()
            for node in self._peers():
                self._seek(node, gone, active=False)


def _told(job: ContentJob, node: NodeId, message: Have | HaveMore) -> bool:
    """Take up what a peer has of one content."""
    everything = sets.full(job.count)
    if isinstance(message, HaveMore):
        job.suggest(node, sets.of(message.suggest) & everything)
        return bool(job.learn(node, sets.of(message.chunks) & everything)) or bool(job.suggested.get(node, 0) & job.missing)
    now_has = everything if message.complete else sets.from_bitmap(message.bitmap, job.count)
    job.unlearn(node, ~now_has & everything)
    return bool(job.learn(node, now_has))


def _is_implied(wanted: Wanted) -> bool:
    """Whether the entry names the only manifest that such a small content can have."""
    manifest = Manifest.implied(wanted.content, wanted.size)
    return manifest is not None and manifest.id == wanted.manifest


def _parts(contents: list[Small]) -> Iterator[tuple[Small, ...]]:
    for start in range(0, len(contents), SEEK_PER_MESSAGE_MAX):
        yield tuple(contents[start : start + SEEK_PER_MESSAGE_MAX])
