"""What the event loop complains of: errors are logged, lost connections are not errors."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
import uvloop

from replicad.daemon import complain


async def _late() -> RuntimeError:
    """uvloop's error for writing to a connection that is closed already."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, *door.getsockname())
        transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as failed:
            transport.write(b"x")
    return failed.value


def test_a_write_to_a_lost_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, caplog.at_level(logging.INFO):
        late = runner.run(_late())
        complain(runner.get_loop(), {"message": "Fatal error on SSL protocol", "exception": late})
        assert not caplog.records


@pytest.mark.parametrize("error", [RuntimeError("something else"), ValueError("the handler is closed"), None], ids=["other", "kind", "none"])
def test_everything_else_is(caplog: pytest.LogCaptureFixture, error: Exception | None) -> None:
    with asyncio.Runner() as runner:
        complain(runner.get_loop(), {"message": "something broke"} | ({"exception": error} if error else {}))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
