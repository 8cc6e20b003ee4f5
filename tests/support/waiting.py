"""Waiting in tests: for a condition, with a deadline, never for a time. The only place in tests that sleeps, and only between two looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.02
DEADLINE_S = 60.0


def wait_for(look: Callable[[], T], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true answer of ``look``; AssertionError with its last answer after ``deadline_s``. For processes and other things outside this thread's event loop."""
    end = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}; last seen: {found!r}")
        time.sleep(LOOK_S)
    return found


async def until(look: Callable[[], T], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """The same inside the event loop: lets other tasks run between two looks."""

    async def look_now() -> T:
        return look()

    return await eventually(look_now, what=what, deadline_s=deadline_s)


async def eventually(look: Callable[[], Awaitable[T]], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """The same for a ``look`` that must be awaited."""
    end = time.monotonic() + deadline_s
    while not (found := await look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}; last seen: {found!r}")
        await asyncio.sleep(LOOK_S / 10)
    return found
