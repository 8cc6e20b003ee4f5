"""Scrub: every blob is read again once in ``interval_s``, slowly, and what the disk does not have any more as it was verified is served no more, set aside, and fetched again.

Nobody else judges: who meets a content that cannot be read says so (``ContentDoubted``), and it has its turn at once.

When a blob has its turn follows from its digest: the hand of a clock goes once around all digests in ``interval_s``, and a blob is read when the hand passes it. Digests are evenly spread, so the work is,
too, and one number is all that must be remembered: the time up to which the hand was followed. After days without power the hand is followed at ``rate``; more than one round is never owed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from replicad.catalog import Catalog, Damage
from replicad.errors import ReplicadError
from replicad.model.events import ContentDoubted, ContentHeld
from replicad.model.ids import SIZE_BYTES, Digest
from replicad.model.manifest import Manifest
from replicad.services.hub import Hub, Subscription
from replicad.store.blobs import BlobStore
from replicad.store.care import ScrubConfig
from replicad.store.reading import Pace, unpaced
from replicad.telemetry.log import get

log = get(__name__)

STATE = "scrub"
STEPS = 10_000
"""The hand is looked at so often a round: every 4 minutes of 30 days."""
SAVE_FILES = 100
"""How far it was followed is remembered after so many files, each time a transaction."""
LATE_PART = 1 / 6
"""Of a round: more than 5 days behind in one of 30, blobs are read less often than promised."""
FAILED_S = 60.0


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one pass looked at, and what of it was damaged."""

    files: int
    size_bytes: int
    damaged: tuple[Damage, ...]


class Scrub:
    """Reads again, and takes care of what is found. ``clock_ms`` is the wall clock, milliseconds since 1970."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        *,
        hub: Hub,
        config: ScrubConfig,
        clock_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._hub = hub
        self._config = config
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._interval_ms = int(config.interval_s * 1000)
        self._followed_ms: int | None = None
        self._asked = asyncio.Event()
        self._pass: asyncio.Future[Scrubbed] | None = None

    async def run(self) -> None:
        """Follow the hand, do whole passes that are asked for, look at what somebody could not read, and clear up behind what was healed, until cancelled."""
        with self._hub.subscribe(ContentHeld) as held, self._hub.subscribe(ContentDoubted) as doubted:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._judge_forever(doubted))
                if self._config.enabled:
                    group.create_task(self._follow_forever())
                group.create_task(self._pass_forever())
                while True:
                    await held.wait()
                    self._clear_up()

    def _clear_up(self) -> None:
        """What was set aside of contents that are held again is not needed any more."""
        for content in [content for content in self._store.aside if self._catalog.is_held(content)]:
            if self._store.drop_aside(content):
                log.info("a damaged file is whole again", content=content.short)

    async def _judge_forever(self, doubted: Subscription) -> None:
        """Looks at each once, however many could not read it."""
        while True:
            for content in {event.content for event in await doubted.wait() if isinstance(event, ContentDoubted)}:
                try:
                    await self.check(content)
                except ReplicadError as error:
                    log.seldom("judge", "a file that could not be read cannot be looked at", content=content.short, reason=error.message)

    # -- the hand

    async def _follow_forever(self) -> None:
        while True:
            try:
                await self.follow()
            except ReplicadError as error:
                log.seldom("scrub", "files cannot be read again; it will be tried again", reason=error.message)
                await self._sleep(FAILED_S)
            await self._sleep(self._config.interval_s / STEPS)

    async def follow(self) -> None:
        """Read what the hand has passed since it was followed last."""
        now_ms = self._clock_ms()
        since_ms, files = await self._since(now_ms), 0
        for after, until in passed(since_ms, now_ms, self._interval_ms):
            async for content, _ in self._catalog.held_contents(after=after, until=until):
                await self.check(content, pace=self._pace)
                files += 1
                if files % SAVE_FILES == 0:
                    await self._save(passed_at(content, since_ms, self._interval_ms))
        if files:
            await self._save(now_ms)
        self._followed_ms = now_ms

    async def _since(self, now_ms: int) -> int:
        """Up to when the hand was followed: never more than one round ago, and not in the future (somebody set the clock)."""
        if self._followed_ms is None:
            stored = await self._catalog.meta(STATE)
            if stored is None:
                await self._save(now_ms)
            self._followed_ms = now_ms if stored is None else int(stored)
        return min(now_ms, max(self._followed_ms, now_ms - self._interval_ms))

    async def _save(self, at_ms: int) -> None:
        self._followed_ms = at_ms
        await self._catalog.set_meta(STATE, str(at_ms))

    async def _pace(self, size_bytes: int) -> None:
        await self._sleep(size_bytes / self._config.rate)

    @property
    def late_s(self) -> float:
        """How far the reading is behind the hand beyond what the promise allows; 0 if it is not."""
        if not self._config.enabled or self._followed_ms is None:
            return 0.0
        behind_s = (self._clock_ms() - self._followed_ms) / 1000
        return behind_s if behind_s > self._config.interval_s * LATE_PART else 0.0

    # -- a whole pass

    async def whole(self, sample: float = 1.0) -> Scrubbed:
        """Read everything, or about that part of all files, as fast as the disk gives it. Reading everything is done by the running service: it goes on when the caller is cancelled, and who asks
        meanwhile waits for the same pass.
        """
        if sample < 1.0:
            return await self._read(sample)
        if self._pass is None:
            self._pass = asyncio.get_running_loop().create_future()
            self._asked.set()
        return await asyncio.shield(self._pass)

    async def _pass_forever(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._pass is not None:
                await self._fulfil(self._pass)

    async def _fulfil(self, asked: asyncio.Future[Scrubbed]) -> None:
        try:
            asked.set_result(await self._read(1.0))
        except ReplicadError as error:
            asked.set_exception(error)
            asked.exception()  # perhaps nobody waits any more
        finally:
            self._pass = None
            asked.cancel()

    async def _read(self, sample: float) -> Scrubbed:
        files = size_bytes = 0
        damaged: list[Damage] = []
        async for content, size in self._sampled(sample):
            files, size_bytes = files + 1, size_bytes + size
            if (damage := await self.check(content)) is not None:
                damaged.append(damage)
        return Scrubbed(files, size_bytes, tuple(damaged))

    async def _sampled(self, sample: float) -> AsyncIterator[tuple[Digest, int]]:
        """Evenly among all contents, beginning anywhere; at least one if there is any."""
        due = random.random()  # noqa: S311 - which files are looked at is no secret
        skipped: tuple[Digest, int] | None = None
        taken = False
        async for content, size in self._catalog.held_contents():
            due += sample
            if due >= 1.0:
                due, taken = due - 1.0, True
                yield content, size
            else:
                skipped = content, size
        if not taken and skipped is not None:
            yield skipped

    # -- one content

    async def check(self, content: Digest, *, pace: Pace = unpaced) -> Damage | None:
        """Read one content again; what was found, and dealt with, if it is damaged."""
        manifest = await self._catalog.held_manifest(content)
        if manifest is None:
            return None
        fault = await self._store.examine(manifest, pace=pace)
        if not fault or (manifest.states and await self._is_whole(manifest, fault, pace)):
            return None
        return await self._damage(content, fault)

    async def _is_whole(self, manifest: Manifest, fault: str, pace: Pace) -> bool:
        """Whether the content is right although chunks are not what the manifest says: only what its receiver could look at was proven, states or digests. Then it is held under what was measured."""
        try:
            measured = await self._store.measure(manifest.content, pace=pace)
        except ReplicadError:
            return False
        await self._catalog.hold_under(measured)
        log.warning(
            "chunks of a held content looked wrong and the whole is right: it is held under the manifest that reading it gave",
            content=manifest.content.short,
            fault=fault,
        )
        return True

    async def _damage(self, content: Digest, fault: str) -> Damage | None:
        """The disk does not have the content as it should be: it is not held from now on, what is left of it is set aside, and it is fetched again if it is wanted. None if it was not held."""
        damage = await self._catalog.damage(content, fault)
        if damage is None:
            return None
        if not self._catalog.is_held(content):  # nobody has brought it meanwhile
            try:
                self._store.set_aside(content, damage.size)
            except ReplicadError as error:
                log.warning("a damaged file cannot be set aside", content=content.short, reason=error.message)
        name = "/".join(await self._catalog.name_of(content) or ())
        log.error("a file on this disk is damaged and is not served until a peer has given it again", name=name, content=content.short, fault=fault)
        return damage


def passed(since_ms: int, until_ms: int, interval_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """The ranges of digests (after, until] that the hand passes between two times at most one round apart."""
    start, stop = (_place(at_ms, interval_ms) for at_ms in (since_ms, until_ms))
    if until_ms - since_ms >= interval_ms:
        yield b"", b"\xff" * SIZE_BYTES
    elif start <= stop:
        yield start, stop
    else:
        yield start, b"\xff" * SIZE_BYTES
        yield b"", stop


def passed_at(content: Digest, since_ms: int, interval_ms: int) -> int:
    """When the hand passes a digest first after ``since_ms``."""
    turn_ms = (int.from_bytes(content, "big") * interval_ms) >> (8 * SIZE_BYTES)
    return since_ms + (turn_ms - since_ms) % interval_ms


def _place(at_ms: int, interval_ms: int) -> bytes:
    """Where the hand stands: from no byte to all ones."""
    return (((at_ms % interval_ms) << (8 * SIZE_BYTES)) // interval_ms).to_bytes(SIZE_BYTES, "big")
