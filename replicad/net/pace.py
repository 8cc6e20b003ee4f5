"""Limits where the bytes flow: ``Gate`` holds the buckets of one direction and one timer, ``Pace`` is one transfer's leave to move bytes.

Who moves bytes asks ``limited`` for each piece, which costs nothing while there are no limits, so that a limit that is set counts from the next piece on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from replicad.errors import NotAllowedError
from replicad.protocol.throttle import Stream, Throttle

if TYPE_CHECKING:
    from replicad.model.ids import NodeId

TOTAL = ""
"""The key of the bucket that everything is subject to; the others are ``site:NAME`` and nodes' ids."""


class Pace:
    """One transfer. Made by ``Gate.pacing``."""

    __slots__ = ("_gate", "_stream")

    def __init__(self, gate: Gate, stream: Stream) -> None:
        self._gate = gate
        self._stream = stream

    @property
    def limited(self) -> bool:
        """Whether it must ask before it moves anything."""
        return bool(self._gate.throttle) and self._gate.throttle.limits(self._stream)

    def ask(self, most: int, then: Callable[[int], None]) -> None:
        """Call ``then`` with how many of ``most`` bytes may be moved, as soon as some may: perhaps at once."""
        self._gate.ask(self._stream, most, then)

    async def take(self, most: int) -> int:
        """Wait until some of ``most`` bytes may be moved, and how many."""
        if not self.limited:
            return most
        leave: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ask(most, lambda granted: None if leave.done() else leave.set_result(granted))
        return await leave

    async def take_all(self, count: int) -> None:
        """Wait until all of these bytes may be moved."""
        while count:
            count -= await self.take(count)


async def paced(content: bytes | bytearray, pace: Pace | None) -> AsyncIterator[bytes | bytearray | memoryview]:
    """The content in pieces, each as soon as it may be sent; in one if there is no limit."""
    sent = 0
    while sent < len(content):
        granted = len(content) - sent if pace is None else await pace.take(len(content) - sent)
        yield content if granted == len(content) else memoryview(content)[sent : sent + granted]
        sent += granted


class Gate:
    """One direction of one node."""

    def __init__(self) -> None:
        self.throttle = Throttle()
        self._then: dict[Stream, Callable[[int], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, rates: Mapping[str, int]) -> None:
        """These are the limits from now on, bytes per second by key."""
        self.throttle.set(rates, asyncio.get_running_loop().time())
        self._pump()

    @contextmanager
    def pacing(self, keys: tuple[str, ...]) -> Iterator[Pace]:
        """For one transfer, until the block ends: who still waits then need not wait any longer."""
        stream = self.throttle.enter(keys)
        try:
            yield Pace(self, stream)
        finally:
            self.throttle.leave(stream)
            if (then := self._then.pop(stream, None)) is not None:
                then(stream.asked)

    def ask(self, stream: Stream, most: int, then: Callable[[int], None]) -> None:
        """See ``Pace.ask``."""
        self._then[stream] = then
        self.throttle.ask(stream, most)
        self._pump()

    def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        for stream, granted in self.throttle.due(loop.time()):
            if (then := self._then.pop(stream, None)) is not None:
                then(granted)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self.throttle.next_deadline()) is not None:
            self._timer = loop.call_at(deadline, self._pump)


class Paces:
    """Both directions, and the nodes with which nothing is exchanged at all. ``site_of`` says where a node stands."""

    def __init__(self, site_of: Callable[[NodeId], str] = lambda _: "") -> None:
        self._site_of = site_of
        self.down = Gate()
        self.up = Gate()
        self.paused: frozenset[NodeId] = frozenset()

    def keys(self, node: NodeId) -> tuple[str, ...]:
        """The buckets that transfers with a node are subject to."""
        return (TOTAL, f"site:{self._site_of(node)}", str(node))

    def receiving(self, node: NodeId, *, urgent: bool) -> AbstractContextManager[Pace | None]:
        """For one transfer from a node; what is urgent has no limits."""
        return nullcontext() if urgent else self.down.pacing(self.keys(node))

    def giving(self, node: NodeId, *, urgent: bool) -> AbstractContextManager[Pace | None]:
        """For one transfer to a node. NotAllowedError if nothing may go there now."""
        if node in self.paused or (not urgent and self.up.throttle.rate(self.keys(node)) == 0):
            raise NotAllowedError("nothing is sent to that node now", code="paused")
        return nullcontext() if urgent else self.up.pacing(self.keys(node))
