"""The dialer against peers that die while it connects."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.errors import UnreachableError
from replicad.net.dialer import LINK_PATH, Dialer

pytestmark = pytest.mark.sockets
ATTEMPTS = 200


def open_descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def dying_port() -> Iterator[int]:
    """A door whose process is killed in the moment in which it accepts, again and again: every connection is reset at once."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def reset() -> None:
            while True:
                try:
                    connection, _ = door.accept()
                except OSError:
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_a_connection_that_dies_at_once_is_closed_exactly_once(dying_port: int) -> None:
    """Closed twice, the second time would hit whatever has the descriptor's number by then; not closed, the descriptor would be lost."""
    async with Dialer() as dialer:
        before = open_descriptors()
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            for _ in range(ATTEMPTS):
                with pytest.raises(UnreachableError) as failed:
                    await dialer.ask(f"https://127.0.0.1:{dying_port}", LINK_PATH, pin=None, body=b"", timeout_s=10)
                assert "Bad file descriptor" not in failed.value.message
            gc.collect()
        assert not [str(complaint.message) for complaint in complaints]
        assert open_descriptors() <= before + 2
