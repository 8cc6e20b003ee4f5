"""Fixtures of the catalog's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from catalog_world import World, threads

from support.waiting import wait_for


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A network whose catalogs live in a directory of the test's own."""
    return World(tmp_path)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """The test must end with the threads it began with."""
    before = threads()
    yield
    wait_for(lambda: threads() == before, what="the end of the connections' threads")
