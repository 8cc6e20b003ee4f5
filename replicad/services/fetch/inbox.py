"""What was asked for over a link, because its holder cannot be reached, and comes by ``PUT`` to our own peer door.

An expectation belongs to one member and one question; whatever arrives must fit it exactly. When it is given up, its buffer is never written to again.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import BusyError, NotAllowedError, NotFoundError, PeerError, ReplicadError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.model.ids import NodeId
    from replicad.net.pace import Pace

UNSENT: dict[str, type[ReplicadError]] = {"busy": BusyError, "absent": NotFoundError, "refused": NotAllowedError}


@dataclass(eq=False)
class Expectation:
    """One answer on its way. ``name`` is the path and Content-Range that it must come under; it fits if it has at most the buffer's length (``exact``: exactly)."""

    node: NodeId
    transfer: int
    name: tuple[str, str]
    exact: bool
    into: memoryview
    pace: Pace | None = None
    received: int = 0
    taken: bool = False
    _done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _heard_s: float = 0.0
    _deadline_s: float = 0.0

    @property
    def open(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._done.done()

    def begin(self, length: int) -> None:
        """The holder starts to send ``length`` bytes; PeerError if that does not fit."""
        if self.taken:
            raise PeerError("the same answer comes twice", code="bad-answer")
        self.taken = True
        if length > len(self.into) or (self.exact and length != len(self.into)):
            self._fail(PeerError(f"{length} bytes for {len(self.into)} asked", code="long-body" if length > len(self.into) else "short-body"))

    def put(self, piece: bytes) -> bool:
        """Bytes arrived; False if nobody wants them any more."""
        if self.open and self.received + len(piece) > len(self.into):
            self._fail(PeerError("the body is longer than it said", code="long-body"))
        if not self.open:
            return False
        self.into[self.received : self.received + len(piece)] = piece
        self.received += len(piece)
        self._heard_s = asyncio.get_running_loop().time()
        return True

    async def wait_leave(self, count: int) -> None:
        """Wait until a limit of ours allows that many bytes more; the sender is not to blame for that time."""
        while count and self.pace is not None:
            begun_s = asyncio.get_running_loop().time()
            count -= await self.pace.take(count)
            self._heard_s = asyncio.get_running_loop().time()
            self._deadline_s += self._heard_s - begun_s

    def end(self, error: ReplicadError | None = None) -> None:
        """All of it is here, or why not."""
        if error is not None:
            self._fail(error)
        elif self.open:
            self._done.set_result(None)

    def _fail(self, error: ReplicadError) -> None:
        if self.open:
            self._done.set_exception(error)

    async def wait(self, *, stall_s: float, limit_s: float) -> tuple[int, ReplicadError | None]:
        """How many bytes arrived, and why not all of them."""
        now = asyncio.get_running_loop().time
        self._heard_s, self._deadline_s = now(), now() + limit_s
        try:
            while self.open:
                until_s = min(self._heard_s + stall_s, self._deadline_s)
                await asyncio.wait([self._done], timeout=until_s - now())
                if self.open and now() >= min(self._heard_s + stall_s, self._deadline_s):
                    self._fail(UnreachableError(f"{self.node.short} sent nothing to our peer door", code="stalled"))
            error = self._done.exception()
            return self.received, error if isinstance(error, ReplicadError) else None
        finally:
            self._done.cancel()


class Inbox:
    """Expectations by member and number."""

    def __init__(self) -> None:
        self._expected: dict[tuple[NodeId, int], Expectation] = {}
        self._last = 0

    @contextmanager
    def expecting(self, node: NodeId, *, name: tuple[str, str], into: memoryview, exact: bool, pace: Pace | None = None) -> Iterator[Expectation]:
        """An expectation with a number of its own, until the block ends."""
        self._last += 1
        expectation = Expectation(node, self._last, name, exact, into, pace)
        self._expected[node, expectation.transfer] = expectation
        try:
            yield expectation
        finally:
            del self._expected[node, expectation.transfer]

    def find(self, node: NodeId, transfer: int, name: tuple[str, str]) -> Expectation:
        """What this member was asked for under that number; NotFoundError if nothing, or something else."""
        expectation = self._expected.get((node, transfer))
        if expectation is None or not expectation.open or expectation.name != name:
            raise NotFoundError("nothing like that was asked for")
        return expectation

    def unsent(self, node: NodeId, transfer: int, code: str) -> None:
        """The member cannot send it."""
        expectation = self._expected.get((node, transfer))
        if expectation is not None:
            expectation.end(UNSENT.get(code, UnreachableError)(f"the peer cannot send it ({code[:40]})"))
