"""The loop factories hook of conftest.py really chooses the loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.mark.sockets
async def test_marked_tests_see_both_loops(request: pytest.FixtureRequest) -> None:
    expected = {"uvloop": uvloop.Loop, "asyncio": asyncio.SelectorEventLoop}[request.node.callspec.id]
    assert isinstance(asyncio.get_running_loop(), expected)


async def test_other_tests_see_asyncio_only() -> None:
    assert not isinstance(asyncio.get_running_loop(), uvloop.Loop)
