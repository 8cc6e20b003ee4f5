"""What the node wants, read from the catalog when it may have changed, in classes: urgent, new, older, lost here (``protocol.fetch.events.Priority``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.protocol.fetch.events import Event, Wants

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.catalog import Catalog
    from replicad.model.entries import Wanted
    from replicad.model.ids import Digest
    from replicad.services.fetch.smalls import Smalls

WANTED_MAX = 10_000
NEW_MAX = 1_000
"""Of the new ones at most so many, the newest, are looked at besides, when more is wanted than ``WANTED_MAX``."""
NEW_MS = 3_600_000
"""Published less than an hour ago is new; older, and still wanted, is what this node missed (a guess)."""
MARKED_MAX = 10_000
"""Contents remembered as lost."""
REFRESH_S = 0.2
"""What is wanted is read again at most so often: a publication of thousands of files commits in many steps."""
WANTED_S = 0.000_25
"""And for each content that was wanted it can wait so long more, because there is that much to do: reading it takes a fiftieth of that."""
CUT_REFRESH_S = 5.0
CUT_REFRESH_S_MAX = 60.0
"""While more is wanted than is looked at, it is looked at again so often, and what follows it more and more seldom if nothing of it came, because then nobody has it: 10,000 rows are 50 ms."""


class Wanting:
    """``report`` takes ``Wants``; ``idle`` is called when nothing is wanted. What ``smalls`` has is only not durable yet."""

    def __init__(self, catalog: Catalog, smalls: Smalls, *, clock_ms: Callable[[], int], report: Callable[[Event], None], idle: Callable[[], None]) -> None:
        self._catalog = catalog
        self._smalls = smalls
        self._clock_ms = clock_ms
        self._report = report
        self._idle = idle
        self._urgent: frozenset[Digest] = frozenset()
        self._lost: dict[Digest, None] = {}
        self._refresh = asyncio.Event()

    def refresh(self) -> None:
        """It may have changed."""
        self._refresh.set()

    def lost(self, content: Digest) -> None:
        """It was here. Others have what they never had first."""
        _mark(self._lost, content)
        self.refresh()

    def held(self, content: Digest) -> None:
        """It is here."""
        self._lost.pop(content, None)

    def urgent(self, content: Digest) -> bool:
        """Whether this content, which is wanted, is urgent."""
        return content in self._urgent

    async def run(self, awaited: Callable[[], list[Wanted]]) -> None:
        """Report until cancelled. ``awaited`` names what clients wait for, which is wanted, too, whether a name stands for it still or not."""
        pause_s: float | None = None
        after: dict[bytes, int] = {}
        wanted: list[Wanted] = []
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._refresh.wait()
            except TimeoutError:
                pass
            self._refresh.clear()
            new_since = self._clock_ms() - NEW_MS << 16
            fresh = self._smalls.contents()
            stuck = pause_s is not None and not any(self._catalog.is_held(one.content) for one in wanted)
            if stuck:
                after |= {one.origin: one.hlc for one in wanted}
            wanted = await self._catalog.wanted(WANTED_MAX, after=after)
            self._urgent = await self._catalog.urgent(WANTED_MAX)
            cut = len(wanted) == WANTED_MAX
            new = await self._catalog.newly_wanted(NEW_MAX, since=new_since) if cut else []
            pause_s = min(2 * pause_s, CUT_REFRESH_S_MAX) if cut and pause_s and stuck else CUT_REFRESH_S if cut else None
            if not cut:
                after = {}
            fresh |= self._smalls.contents()
            missing = tuple([one for one in (*new, *wanted, *awaited()) if one.content not in fresh])
            self._report(Wants(missing, cut, new_since, self._urgent, frozenset(self._lost)))
            if not (wanted or missing):
                self._idle()
            await asyncio.sleep(max(REFRESH_S, WANTED_S * len(wanted)))


def _mark(marked: dict[Digest, None], content: Digest) -> None:
    marked[content] = None
    if len(marked) > MARKED_MAX:
        del marked[next(iter(marked))]
