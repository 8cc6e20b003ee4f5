"""Thread hops: blocking work away from the event loop, never left behind.

A cancelled hop waits for its thread before the cancellation goes on, because the thread may hold a file descriptor or a buffer that its caller is about to give up. Every job is therefore
short: one extent, one group, one fsync.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T")

HELPERS_MAX = 3
"""With the one that asks for them as many as the store has threads."""
HELP_ITEMS_MIN = 4
"""A helper is called for so many items: below, waking it costs more than it gains (a guess)."""


async def hop(executor: Executor, function: Callable[..., _T], *arguments: object) -> _T:
    """Run ``function`` in a thread of ``executor`` and return its result. If the caller is cancelled, the cancellation goes on when the thread is done."""
    return await settled(asyncio.get_running_loop().run_in_executor(executor, function, *arguments))


async def settled(future: asyncio.Future[_T]) -> _T:
    """The result of ``future``, waited for even when the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


async def waited(event: asyncio.Event) -> None:
    """Wait until ``event`` is set even when the caller is cancelled meanwhile; the cancellation is raised afterwards. Only for events that a thread hop under way will set."""
    cancelled: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def shared(executor: Executor, work: Callable[[_T], None], items: Sequence[_T]) -> None:
    """In a thread: ``work`` on each item once, by this thread and up to ``HELPERS_MAX`` of ``executor`` that are free before it is done. For work that waits for the disk. An exception of ``work`` is raised
    when all threads have ended, and some items may not have been worked on then.
    """
    left = iter(items)

    def some() -> None:
        for item in left:
            work(item)

    helpers = [executor.submit(some) for _ in range(min(HELPERS_MAX, len(items) // HELP_ITEMS_MIN))]
    try:
        some()
    finally:
        for helper in helpers:
            if not helper.cancel():
                wait([helper])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


class Lane(Generic[_T]):
    """Items worked on in order, one thread hop at a time, without a thread or a task of its own.

    ``work(items)`` runs in a thread with everything queued since the last hop; ``done(items)`` runs on the loop afterwards, also for items that a failed lane never worked on. The first
    exception of ``work`` stops the lane and is kept in ``error``. Whoever pushes bounds the number of items on the way.
    """

    def __init__(self, executor: Executor, *, work: Callable[[list[_T]], None], done: Callable[[list[_T]], None]) -> None:
        self._executor = executor
        self._work = work
        self._done = done
        self._queued: deque[_T] = deque()
        self._running: asyncio.Future[None] | None = None
        self.error: BaseException | None = None

    def push(self, item: _T) -> None:
        """Queue one item; starts the hop if none is under way."""
        self._queued.append(item)
        self._start()

    def _start(self) -> None:
        if self._running is not None or not self._queued:
            return
        items = list(self._queued)
        self._queued.clear()
        if self.error is not None:
            self._done(items)
            return
        self._running = asyncio.get_running_loop().run_in_executor(self._executor, self._work, items)
        self._running.add_done_callback(lambda future: self._finished(future, items))

    def _finished(self, future: asyncio.Future[None], items: list[_T]) -> None:
        self._running = None
        self.error = self.error or future.exception()
        self._done(items)
        self._start()

    async def drain(self) -> None:
        """Wait until nothing is queued or running, also when cancelled meanwhile; then raise the cancellation or the lane's error."""
        cancelled: asyncio.CancelledError | None = None
        while self._running is not None:
            try:
                await asyncio.wait([self._running])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if self.error is not None:
            raise self.error
