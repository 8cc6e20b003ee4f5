"""Two link tables joined by an in-memory pipe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from replicad.crypto.keys import SigningKey
from replicad.net.establish import accept_link, open_link
from replicad.net.link import Frames, Link, LinkConfig
from replicad.net.links import LinkTable
from replicad.net.memory import pipe
from replicad.protocol.handshake import Identity
from replicad.protocol.wire import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Message, Pull
from support.waiting import until

NETWORK = SigningKey(bytes([1] * 32)).id
KEYS = sorted((SigningKey(bytes([number] * 32)) for number in (21, 22)), key=lambda key: key.id)
"""The first has the smaller node id."""


@dataclass
class End:
    """One node: its table, what it heard, and its running links."""

    key: SigningKey
    table: LinkTable
    group: asyncio.TaskGroup
    heard: list[Message] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    versions: tuple[int, int] = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX)

    @property
    def identity(self) -> Identity:
        return Identity(self.key, NETWORK, None, self.versions)

    def serve(self, link: Link) -> None:
        self.group.create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        self.ended.append(await self.table.run(link))


@asynccontextmanager
async def ends(keys: list[SigningKey] | None = None) -> AsyncIterator[tuple[End, End]]:
    """Two nodes; their links end with the context."""
    async with asyncio.TaskGroup() as group:
        made = [End(key, LinkTable(key.id), group) for key in keys or KEYS]
        for end in made:
            end.table.route(Pull, lambda _link, message, end=end: end.heard.append(message))
            end.table.on_up(lambda link, end=end: end.events.append(f"up {link.node.short}"))
            end.table.on_down(lambda link, _reason, end=end: end.events.append(f"down {link.node.short}"))
        yield made[0], made[1]
        for end in made:
            end.table.close_all("the test is over")


async def connect(opener: End, answerer: End, *, config: LinkConfig | None = None, wrap: type | None = None) -> tuple[Link, Link]:
    """A new link, handshake done, not served yet."""
    there, back = pipe()
    carrier: Frames = wrap(there) if wrap else there
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(open_link(carrier, opener.identity, saw=None, expect=answerer.key.id, config=config))
        accepting = group.create_task(accept_link(back, answerer.identity, may_prove=lambda _node: True, config=config))
    return opening.result(), accepting.result()


async def linked(opener: End, answerer: End, *, config: LinkConfig | None = None) -> tuple[Link, Link]:
    """A new link, served at both ends."""
    pair = await connect(opener, answerer, config=config)
    for end, link in zip((opener, answerer), pair, strict=True):
        end.serve(link)
        await until(lambda end=end, link=link: link.closed or end.table.get(link.node) is link, what="the link to be served")
    return pair


def pull(number: int) -> Pull:
    """A message to recognise."""
    return Pull(number, "munki", NETWORK, {})
