"""What this node tells others about contents, in order, to those who may know of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from replicad.protocol.wire import Interest, Seek
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.net.links import LinkTable
    from replicad.protocol.fetch.events import Say
    from replicad.services.fetch.getting import Getting
    from replicad.services.fetch.rights import Rights

log = get(__name__)

OUTBOX_MAX = 50_000


class Speaking:
    """``say`` from anywhere, while ``run`` sends it."""

    def __init__(self, links: LinkTable, rights: Rights, getting: Getting) -> None:
        self._links = links
        self._rights = rights
        self._getting = getting
        self._outbox: deque[Say] = deque()
        self._more = asyncio.Event()

    def say(self, says: list[Say]) -> None:
        """Send these after what waits; dropped if too many wait."""
        if len(self._outbox) + len(says) > OUTBOX_MAX:
            log.seldom("outbox", "too many messages about content; some are dropped", waiting=len(self._outbox))
            return
        self._outbox.extend(says)
        self._more.set()

    async def run(self) -> None:
        """Send until cancelled. Whoever hears that something is sought is soon asked for it."""
        async with asyncio.TaskGroup() as group:
            while True:
                while self._outbox:
                    say = self._outbox.popleft()
                    link = self._links.get(say.node)
                    message = await self._rights.permitted(say) if link is not None else None
                    if link is not None and message is not None:
                        link.send(message)
                        if isinstance(message, Interest | Seek) and message.active:
                            group.create_task(self._getting.prepare(link))
                self._more.clear()
                await self._more.wait()
