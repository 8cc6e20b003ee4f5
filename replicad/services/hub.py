"""The event hub: services meet here and in the catalog, never directly.

Publishing never waits. A subscriber that falls more than ``SUBSCRIBER_EVENTS_MAX`` events behind loses the oldest and is told so by ``Subscription.missed``; it must then look at the
catalog instead of trusting what it heard.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from replicad.model.events import Event

SUBSCRIBER_EVENTS_MAX = 10_000


class Subscription:
    """One subscriber's bounded queue. An async iterator of events; a context manager that unsubscribes."""

    def __init__(self, hub: Hub, kinds: tuple[type, ...]) -> None:
        self._hub = hub
        self._kinds = kinds
        self._events: deque[Event] = deque(maxlen=SUBSCRIBER_EVENTS_MAX)
        self._wake = asyncio.Event()
        self.missed = 0

    def _offer(self, event: Event) -> None:
        if self._kinds and not isinstance(event, self._kinds):
            return
        self.missed += len(self._events) == SUBSCRIBER_EVENTS_MAX
        self._events.append(event)
        self._wake.set()

    def take(self) -> list[Event]:
        """Everything queued, without waiting."""
        events = list(self._events)
        self._events.clear()
        self._wake.clear()
        return events

    async def wait(self, timeout_s: float | None = None) -> list[Event]:
        """Everything queued, after waiting for at least one event; empty after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        return self.take()

    def __enter__(self) -> Self:
        self._hub._subscriptions.add(self)  # noqa: SLF001
        return self

    def __exit__(self, *_: object) -> None:
        self._hub._subscriptions.discard(self)  # noqa: SLF001


class Hub:
    """Delivers each event to every subscription that asked for its kind, in order of publishing."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        """Queue the event for everybody concerned. Call from the event loop's thread."""
        for subscription in tuple(self._subscriptions):
            subscription._offer(event)  # noqa: SLF001

    def subscribe(self, *kinds: type) -> Subscription:
        """A subscription to these kinds of events (none given: all). Use it as a context manager; it hears events from ``__enter__`` on."""
        return Subscription(self, kinds)
