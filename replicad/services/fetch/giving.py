"""Sends what was asked for over a link to the asker's door: for members who cannot reach ours. Few at once, in turn with everybody else."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from replicad.errors import BusyError, NotAllowedError, NotFoundError, ReplicadError, StorageError
from replicad.model.chunks import Extent
from replicad.protocol.fetch import batch
from replicad.protocol.fetch.events import Target
from replicad.protocol.wire import Send, SendMany, Unsent
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.model.ids import NodeId
    from replicad.net.client import PeerClient
    from replicad.net.link import Link
    from replicad.services.fetch.provider import Provider

log = get(__name__)

ASKED_MAX = 8
"""Sends of one peer that are under way or waiting; more hear "busy"."""


class Giving:
    """Answers ``Send`` and ``SendMany``."""

    def __init__(self, provider: Provider, client: PeerClient) -> None:
        self._provider = provider
        self._client = client
        self._asked: Counter[NodeId] = Counter()

    async def give(self, link: Link, message: Send | SendMany) -> None:
        """Send it, or say why not. Never raises but for a cancellation."""
        if self._asked[link.node] >= ASKED_MAX:
            link.send(Unsent(message.transfer, "busy"))
            return
        self._asked[link.node] += 1
        try:
            async with self._provider.turn(link.node):
                await (self._give(link, message) if isinstance(message, Send) else self._give_many(link, message))
        except BusyError:
            link.send(Unsent(message.transfer, "busy"))
        except NotFoundError:
            link.send(Unsent(message.transfer, "absent"))
        except NotAllowedError:
            link.send(Unsent(message.transfer, "refused"))
        except ReplicadError as error:
            log.seldom((link.node, error.error_code), "content could not be sent to a peer's door", peer=link.node.short, reason=error.message)
            link.send(Unsent(message.transfer, "unreachable"))
        finally:
            self._asked[link.node] -= 1
            if not self._asked[link.node]:
                del self._asked[link.node]

    async def _give(self, link: Link, message: Send) -> None:
        target = Target(message.content, message.manifest)
        manifest = await self._provider.manifest(link.node, target)
        if not message.count:
            await self._client.put_manifest(link, manifest, transfer=message.transfer)
            return
        extent = Extent(message.first, message.count)
        if extent.end > manifest.count:
            raise NotFoundError("the content has no such chunks")
        start, stop = manifest.byte_range(extent)
        fd, _ = await self._provider.open_chunks(link.node, target, start=start, stop=stop)
        try:
            async with self._provider.pacing(link.node, [message.content]) as pace:
                await self._client.put_chunks(link, manifest, extent, transfer=message.transfer, fd=fd, pace=pace)
        except StorageError:
            self._provider.doubt(message.content)
            raise
        finally:
            os.close(fd)

    async def _give_many(self, link: Link, message: SendMany) -> None:
        batch.check(message.contents)
        async with self._provider.pacing(link.node, [small.content for small in message.contents]) as pace:
            _, pieces = await self._provider.open_batch(link.node, message.contents, patient=message.patient)
            try:
                await self._client.put_batch(link, b"".join([piece async for piece in pieces]), transfer=message.transfer, pace=pace)
            except ReplicadError:
                self._provider.undelivered(link.node, message.contents)
                raise
