"""The public clients of tus upload to a real daemon that is killed while they do."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from support.network import Network
from support.tus_clients import JAVASCRIPT_NEEDS, upload_through_kills

pytestmark = pytest.mark.daemons
MIB = 1 << 20
SIZE = 64 * MIB + 77
SMALL = 2 * MIB
"""What else may be on the disk: directories, and the end of a block."""


@pytest.mark.parametrize(
    ("client", "part_bytes"),
    [("python", 4 * MIB), pytest.param("javascript", 16 * MIB, marks=pytest.mark.needs(*JAVASCRIPT_NEEDS))],
    ids=["python", "javascript"],
)
def test_an_upload_survives_two_kills(network: Network, tmp_path: Path, dice: random.Random, client: str, part_bytes: int) -> None:
    content = dice.randbytes(SIZE)
    file = tmp_path / "a.pkg"
    file.write_bytes(content)
    ams = network.found("ams1")
    ams.cli("share", "create", "munki", "--public")
    kill_at = sorted(dice.randrange(1, SIZE - part_bytes) for _ in range(2))
    peak = upload_through_kills(client, ams, file, path="apps/a.pkg", part_bytes=part_bytes, kill_at=kill_at, deadline_s=60.0)
    assert peak <= SIZE + SMALL, "a second copy was there"
    answer = ams.download("munki/apps/a.pkg")
    assert (answer.status, answer.headers["etag"]) == (200, f'"{hashlib.sha256(content).hexdigest()}"')
    assert answer.body == content
    assert list((ams.data / "uploads").iterdir()) == []
