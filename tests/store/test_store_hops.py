"""Work that several threads share: each item once, never waiting for a thread that is not free, nothing left behind."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicad.store.hops import HELP_ITEMS_MIN, HELPERS_MAX, shared

MANY = HELP_ITEMS_MIN * HELPERS_MAX * 10


def test_each_item_is_worked_on_once() -> None:
    done: list[int] = []
    with ThreadPoolExecutor(HELPERS_MAX) as executor:
        shared(executor, done.append, range(MANY))
    assert Counter(done) == Counter(range(MANY))


def test_threads_that_are_not_free_are_not_waited_for() -> None:
    done: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        executor.submit(shared, executor, done.append, range(MANY)).result(timeout=60)
    assert sorted(done) == list(range(MANY))


def test_free_threads_help_at_the_same_time() -> None:
    together = threading.Barrier(HELPERS_MAX + 1)
    with ThreadPoolExecutor(HELPERS_MAX) as executor:
        shared(executor, lambda _: together.wait(60), range((HELPERS_MAX + 1) * HELP_ITEMS_MIN))
    assert not together.broken


def test_few_items_wake_nobody() -> None:
    threads: set[int] = set()
    with ThreadPoolExecutor(HELPERS_MAX) as executor:
        shared(executor, lambda _: threads.add(threading.get_ident()), range(HELP_ITEMS_MIN - 1))
    assert threads == {threading.get_ident()}


def test_an_error_is_raised_when_every_thread_has_ended() -> None:
    running = Counter[str]()

    def work(item: int) -> None:
        running["begun"] += 1
        try:
            if item == MANY // 2:
                raise OSError("the disk is gone")
        finally:
            running["ended"] += 1

    with ThreadPoolExecutor(HELPERS_MAX) as executor:
        with pytest.raises(OSError, match="the disk is gone"):
            shared(executor, work, range(MANY))
        assert running["begun"] == running["ended"]
