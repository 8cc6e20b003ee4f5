"""The supervisor: crashes are counted and survived, cancellation ends everything, returning is the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from replicad.services.supervisor import Supervisor, SupervisorConfig
from replicad.telemetry.metrics import Metrics

QUICK = SupervisorConfig(backoff_first_s=0.001, backoff_max_s=0.004, healthy_s=60.0)


def crashes(metrics: Metrics, service: str) -> float | None:
    return metrics.registry.get_sample_value("replicad_service_crashes_total", {"service": service})


async def test_a_crash_is_logged_counted_and_restarted(caplog: pytest.LogCaptureFixture) -> None:
    metrics, starts = Metrics(), 0

    async def flaky() -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise ValueError("disk on fire")

    supervisor = Supervisor({"flaky": flaky}, metrics=metrics, config=QUICK)
    await supervisor.run()
    (state,) = supervisor.states()
    assert (starts, state.crashes, state.running, state.last_error) == (4, 3, False, "ValueError: disk on fire")
    assert crashes(metrics, "flaky") == 3
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 3
    assert all(record.exc_info for record in lines)
    assert [record.fields["pause_s"] for record in lines] == [0.001, 0.002, 0.004]


async def test_the_pause_is_bounded_and_starts_afresh_after_a_healthy_run(caplog: pytest.LogCaptureFixture) -> None:
    clock, starts = 0.0, 0

    async def flaky() -> None:
        nonlocal clock, starts
        starts += 1
        if starts == 6:
            return
        clock += 60.0 if starts == 5 else 1.0
        raise ValueError

    await Supervisor({"flaky": flaky}, metrics=Metrics(), config=QUICK, monotonic=lambda: clock).run()
    assert [record.fields["pause_s"] for record in caplog.records] == [0.001, 0.002, 0.004, 0.004, 0.001]


async def test_one_crash_does_not_touch_the_others() -> None:
    other_started, crashed, other_cancelled = asyncio.Event(), asyncio.Event(), False

    async def bad() -> None:
        if crashed.is_set():
            await asyncio.Event().wait()
        await other_started.wait()
        crashed.set()
        raise ValueError

    async def good() -> None:
        nonlocal other_cancelled
        other_started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            other_cancelled = True
            raise

    supervisor = Supervisor({"bad": bad, "good": good}, metrics=Metrics(), config=QUICK)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.run())
        await crashed.wait()
        assert not other_cancelled
        assert {state.name: state.running for state in supervisor.states()}["good"]
        task.cancel()
    assert task.cancelled()
    assert other_cancelled
    assert not any(state.running for state in supervisor.states())


async def test_a_service_that_fails_while_being_cancelled_is_not_restarted() -> None:
    starts, running = 0, asyncio.Event()

    async def stubborn() -> None:
        nonlocal starts
        starts += 1
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("clean-up failed") from None

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Supervisor({"stubborn": stubborn}, metrics=Metrics(), config=QUICK).run())
        await running.wait()
        task.cancel()
    assert task.cancelled()
    assert starts == 1
