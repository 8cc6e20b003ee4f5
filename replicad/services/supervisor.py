"""Runs the services: one TaskGroup, one child per service, and a crash of one never ends another.

A service is an asynchronous function that runs until it is cancelled. If it raises, that is logged with its traceback, counted and the service is started again after a pause that
doubles from ``backoff_first_s`` to ``backoff_max_s`` and is forgotten after ``healthy_s`` without a crash. A service that returns is done. Cancellation passes through untouched: it is
how the daemon stops.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from replicad.telemetry.metrics import Metrics

log = get(__name__)


@dataclass(frozen=True)
class SupervisorConfig:
    """Pauses between restarts. Guesses: half a second keeps a flapping service off the log, half a minute keeps it alive while a disk or peer recovers."""

    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0
    healthy_s: float = 60.0


@dataclass
class ServiceState:
    """What a person asks about one service. ``crashes`` since the daemon started; ``last_error`` is empty if there was none."""

    name: str
    running: bool = False
    crashes: int = 0
    last_error: str = ""


class Supervisor:
    """Owns the services' tasks."""

    def __init__(
        self,
        services: Mapping[str, Callable[[], Coroutine[Any, Any, None]]],
        *,
        metrics: Metrics,
        config: SupervisorConfig | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = dict(services)
        self._metrics = metrics
        self._config = config or SupervisorConfig()
        self._monotonic = monotonic
        self._states = {name: ServiceState(name) for name in self._services}

    def states(self) -> tuple[ServiceState, ...]:
        """One state per service, in the order they were given."""
        return tuple(self._states.values())

    async def run(self) -> None:
        """Run all services until cancelled, or until every one of them returned."""
        async with asyncio.TaskGroup() as group:
            for name, service in self._services.items():
                group.create_task(self._keep(self._states[name], service), name=name)

    async def _keep(self, state: ServiceState, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause_s = self._config.backoff_first_s
        while True:
            started = self._monotonic()
            state.running = True
            try:
                await service()
            except Exception as error:  # the outermost loop of a service: log, count, back off
                _raise_if_cancelled(error)
                if self._monotonic() - started >= self._config.healthy_s:
                    pause_s = self._config.backoff_first_s
                self._count(state, error)
                log.exception("service crashed and will be restarted", service=state.name, crashes=state.crashes, pause_s=pause_s)
            else:
                return
            finally:
                state.running = False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._config.backoff_max_s)

    def _count(self, state: ServiceState, error: Exception) -> None:
        state.crashes += 1
        state.last_error = f"{type(error).__name__}: {error}"
        self._metrics.service_crashes.labels(state.name).inc()


def _raise_if_cancelled(error: Exception) -> None:
    """A service that fails while it is being cancelled must not be restarted: the cancellation is what counts."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
