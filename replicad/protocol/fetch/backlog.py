"""What is wanted, by class and age, and which of it is looked for, opened and fetched now.

Large contents: the first ``SEEKING_MAX`` are looked for; as soon as somebody has one, and a client waits for it or fewer than ``contents_max`` of its class or a better one are being fetched, it is opened. Small contents
fill the window of one pack. What comes later and is of a better class takes the place of what is only looked for. Names of contents which exist nowhere do not block those which do (``places``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice, takewhile

from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId
from replicad.model.manifest import Manifest
from replicad.protocol.fetch import places
from replicad.protocol.fetch.config import AWAITED_MAX, LOOKED_S, PACK_MAX, RENEW_S, SEEKING_MAX, STALLED_S, FetchConfig
from replicad.protocol.fetch.events import Awaits, Close, Effect, Open, Priority, Say, Target, Wants, key_of, small_of
from replicad.protocol.fetch.jobs import ContentJob, State
from replicad.protocol.fetch.pack import Job, PackJob
from replicad.protocol.wire import SEEK_PER_MESSAGE_MAX, Have, HaveMore, Hold, Interest, Seek, Small, parts

SHUNNED_S = 3600.0
"""What cannot be true is not tried again for so long."""
RIVALRIES_MAX = 1024
"""Contents of which it is remembered who else fetches them."""

DropRequests = Callable[[ContentJob], None]


class Backlog:
    """Wants become jobs here. ``emit`` takes effects, ``peers`` yields who may be asked now, ``drop_requests`` cancels what is under way for a job."""

    def __init__(
        self, config: FetchConfig, pack: PackJob, *, emit: Callable[[Effect], None], peers: Callable[[], Iterable[NodeId]], drop_requests: DropRequests
    ) -> None:
        self._config = config
        self._emit = emit
        self._peers = peers
        self._drop_requests = drop_requests
        self.jobs: dict[Target, ContentJob] = {}
        self.pack = pack
        self._large: dict[Target, Wanted] = {}
        self._small: dict[Small, Wanted] = {}
        self._benched: dict[Target | Small, float] = {}
        self._rivals: dict[Target, set[NodeId]] = {}
        self._wants = Wants(())
        self._awaits: dict[Target | Small, Awaits] = {}
        self._unsought: list[Small] = []
        self._changed = True
        self._renewed = 0.0
        self._rotated = 0.0

    # -- what is wanted

    def want(self, event: Wants, now: float) -> None:
        """Replace the list; if it is cut it only holds the first, so nothing is dropped for being absent."""
        self._wants = event
        keyed = [(key_of(one), one) for one in event.wanted]
        large = {key: one for key, one in keyed if isinstance(key, Target)}
        small = {key: one for key, one in keyed if isinstance(key, Small)}
        if not event.cut:
            self._drop_unwanted(large, small)
        self._benched = {key: until for key, until in self._benched.items() if until > now or key in large or key in small}
        for target in self.jobs.keys() & large.keys():
            self.jobs[target].priority = event.priority(large[target])
        self._large = {target: one for target, one in large.items() if target not in self.jobs}
        self._small = {key: one for key, one in small.items() if not self._in_pack(key)}
        self._sort()

    def await_(self, event: Awaits) -> None:
        """Clients wait for it, or do not any more. Beyond ``AWAITED_MAX`` contents they wait in the content's usual class."""
        wanted = event.wanted
        key = key_of(wanted)
        if not event.chunks:
            self._awaits.pop(key, None)
        elif key in self._awaits or len(self._awaits) < AWAITED_MAX:
            self._awaits[key] = event
        chunks = self._awaits[key].chunks if key in self._awaits else ()
        if isinstance(key, Small):
            if self._in_pack(key):
                self.pack.rank(self.pack.units_of([key]), self._priority(wanted))
            elif chunks:
                self._small = {key: wanted, **self._small}
        elif key in self.jobs:
            self.jobs[key].awaited = chunks
        elif chunks:
            self._large = {key: wanted, **self._large}
        self._changed = True

    def _priority(self, wanted: Wanted) -> Priority:
        return Priority.AWAITED if self._awaits and key_of(wanted) in self._awaits else self._wants.priority(wanted)

    def _sort(self) -> None:
        in_turns = partial(places.in_turns, benched=self._benched, priority=self._priority)
        self._large = in_turns(self._large, [job.wanted for job in self._sought()], SEEKING_MAX)
        self._small = in_turns(self._small, self.pack.wanted_of(self.pack.unheld), PACK_MAX)
        self._changed = True

    def _sought(self) -> list[ContentJob]:
        """The large ones that nobody has."""
        return [job for job in self.jobs.values() if job.state is State.SEEKING and not job.reachable]

    def _in_pack(self, key: Small) -> bool:
        return bool(self.pack.places.get(key, 0) & self.pack.missing)

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
        """Tell a peer that may be asked from now on what is looked for, what goes first before the rest: the answers come in that order."""
        for job in sorted(self.jobs.values(), key=lambda job: job.order):
            self._emit(Say(node, Interest(*job.target)))
        self._seek(node, [small_of(wanted) for wanted in self.pack.wanted_of(self.pack.missing)])

    def forget(self, node: NodeId) -> None:
        """The peer may not be asked any more."""
        for job in (*self.jobs.values(), self.pack):
            job.forget(node)

    def rival(self, node: NodeId, target: Target | None, *, active: bool) -> None:
        """A peer fetches the same content, or does not any more; without ``target``, small contents."""
        if target is None:
            (self.pack.rivals.add if active else self.pack.rivals.discard)(node)
            return
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
        self.rival(node, None, active=False)
        for target in [target for target, nodes in self._rivals.items() if node in nodes]:
            self.rival(node, target, active=False)

    def told(self, node: NodeId, message: Have | HaveMore | Hold) -> bool:
        """A peer says what it has; True if something of it is missing here."""
        if isinstance(message, Hold):
            units = self.pack.units_of(message.contents)
            if message.held:
                return bool(self.pack.learn(node, units))
            self.pack.unlearn(node, units)
            return False
        job = self.jobs.get(Target(message.content, message.manifest))
        return job is not None and job.told(node, message)

    # -- what is done about it

    def advance(self, now: float) -> list[ContentJob]:
        """Fill the windows, open what can be fetched. Returns the jobs for which somebody may be asked now, oldest first."""
        self._rotate(now)
        self._fill(now)
        self._fill_pack(now)
        self._renew(now)
        self._flush_unsought(force=not self.pack.missing)
        self._changed = False
        underway = [job for job in self.jobs.values() if job.state is not State.SEEKING]
        if len(underway) < len(self.jobs):
            self._open(underway, now)
        return sorted((job for job in underway if job.state in {State.NAMELESS, State.ACTIVE}), key=lambda job: job.order)

    def _open(self, underway: list[ContentJob], now: float) -> None:
        """Begin with what somebody has, as long as fewer than ``contents_max`` of its class or a better one are under way, or a client waits for it."""
        classes = [job.order[0] for job in underway]
        worst = max(classes) if len(classes) >= self._config.contents_max else Priority.HEAL + 1
        seeking = (job for job in self.jobs.values() if job.state is State.SEEKING and (job.awaited or job.order[0] < worst))
        for job in sorted((job for job in seeking if job.benched_until <= now and job.reachable), key=lambda job: job.order):
            if not job.awaited and sum(other <= job.order[0] for other in classes) >= self._config.contents_max:
                return
            classes.append(job.order[0])
            job.state = State.OPENING
            self._emit(Open(job.target))

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
        times = [job.due for job in self.jobs.values() if job.due]
        if self.jobs or self.pack.missing:
            times.append(self._rotated + LOOKED_S if self._large or self._small else self._renewed + RENEW_S)
        return min(times, default=None)

    def _fill(self, now: float) -> None:
        if len(self.jobs) >= SEEKING_MAX and not self._changed:
            return
        for target in list(islice((target for target in self._large if self._benched.get(target, 0.0) <= now), SEEKING_MAX)):
            wanted = self._large[target]
            if len(self.jobs) >= SEEKING_MAX and not self._make_room(wanted):
                return
            del self._large[target]
            job = self.jobs[target] = ContentJob(wanted)
            job.since = now
            job.priority = self._wants.priority(wanted)
            job.awaited = self._awaits[target].chunks if target in self._awaits else ()
            job.rivals = self._rivals.get(target, set())
            self._tell_all(Interest(*target))

    def _make_room(self, wanted: Wanted) -> bool:
        """Whether something of a worse class that is only looked for gave up its place."""
        priority = self._priority(wanted)
        may_oust = places.may_oust(wanted, priority, [job.wanted for job in self._sought()], SEEKING_MAX)
        seeking = (job for job in self.jobs.values() if job.state is State.SEEKING and may_oust(job.wanted))
        last = max(seeking, key=lambda job: job.order, default=None)
        if last is None or last.order[0] <= priority:
            return False
        self.abandon(last, discard=False)
        self._large[last.target] = last.wanted
        return True

    def _fill_pack(self, now: float) -> None:
        roomy = self.pack.room >= min(len(self._small), SEEK_PER_MESSAGE_MAX // 4)
        if not self._small or not (roomy or self._changed):
            return
        room = self.pack.room
        chosen = list(islice((key for key in self._small if self._benched.get(key, 0.0) <= now), room if roomy else PACK_MAX))
        chosen = chosen[:room] + self._oust(chosen[room:])
        classes: dict[Priority, dict[Small, Wanted]] = {}
        for key in chosen:
            wanted = self._small.pop(key)
            if Manifest.implied_id(wanted.content, wanted.size) != wanted.manifest:  # such a small content can have no other
                self._benched[key] = now + SHUNNED_S
                continue
            classes.setdefault(self._priority(wanted), {})[key] = wanted
        for priority, added in classes.items():
            self.pack.add(added, now, priority)
        for node in self._peers():
            self._seek(node, [key for added in classes.values() for key in added])

    def _oust(self, ready: list[Small]) -> list[Small]:
        """The first, a turn at most and as far as they are of one class, take the places of worse ones that nobody brings now; returns as many as got one."""
        if not ready:
            return ready
        first = self._small[ready[0]]
        best = self._priority(first)
        may_oust = places.may_oust(first, best, self.pack.wanted_of(self.pack.unheld), PACK_MAX)
        ready = list(takewhile(lambda key: self._priority(self._small[key]) == best, ready[: PACK_MAX // places.TURNS]))
        ousted = list(islice(filter(may_oust, self.pack.wanted_of(self.pack.behind(best))), len(ready)))
        self._small.update((small_of(wanted), wanted) for wanted in ousted)
        self._let_go([small_of(wanted) for wanted in ousted])
        return ready[: len(ousted)]

    def _rotate(self, now: float) -> None:
        """Give the places of what nobody has to what waits."""
        if now - self._rotated < LOOKED_S:
            return
        self._rotated = now
        waiting = any(job.state is State.SEEKING and job.reachable and job.benched_until <= now for job in self.jobs.values())
        for job in list(self.jobs.values()):
            if job.reachable or job.state not in {State.SEEKING, State.NAMELESS, State.ACTIVE} or job.flying.counted:
                job.since = now
            elif job.state is not State.SEEKING and waiting and now - job.since >= STALLED_S:
                self.bench(job, now)
        giving_way = partial(places.giving_way, benched=self._benched, priority=self._priority, now=now)
        for wanted in giving_way(self._large, [(job.wanted, job.since) for job in self._sought()], SEEKING_MAX):
            target = Target(wanted.content, wanted.manifest)
            self._benched[target] = now + STALLED_S
            self.abandon(self.jobs[target], discard=False)
            self._large[target] = wanted
        stalled = {small_of(wanted): wanted for wanted in giving_way(self._small, self.pack.since_of(self.pack.unheld), PACK_MAX)}
        self._benched.update(dict.fromkeys(stalled, now + STALLED_S))
        self._small.update(stalled)
        self._let_go(list(stalled))
        self._sort()

    def _renew(self, now: float) -> None:
        """Repeat interest in what nobody has: the other side may have learned of it, or of our rights, since."""
        if now - self._renewed < RENEW_S:
            return
        self._renewed = now
        for job in self.jobs.values():
            if not job.reachable:
                self._tell_all(Interest(*job.target))
        unheld = [small_of(wanted) for wanted in self.pack.wanted_of(self.pack.unheld)]
        for node in self._peers():
            self._seek(node, unheld)

    def _tell_all(self, message: Interest) -> None:
        for node in self._peers():
            self._emit(Say(node, message))

    def _seek(self, node: NodeId, contents: list[Small], *, active: bool = True) -> None:
        for part in parts(contents):
            self._emit(Say(node, Seek(part, active)))

    def _flush_unsought(self, *, force: bool) -> None:
        if self._unsought and (force or len(self._unsought) >= SEEK_PER_MESSAGE_MAX // 4):
            gone = [key for key in self._unsought if key not in self.pack.places]
            self._unsought.clear()
            for node in self._peers():
                self._seek(node, gone, active=False)
