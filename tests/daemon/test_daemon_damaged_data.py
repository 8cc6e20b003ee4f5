"""A data directory that is damaged under the daemon: one sentence says what and where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.network import Network

pytestmark = pytest.mark.daemons
PAGE = 4096


def overwrite(catalog: Path) -> None:
    """Everything but the first pages, in place."""
    with catalog.open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"\xa5" * (catalog.stat().st_size - 2 * PAGE))


def test_a_catalog_that_is_overwritten_is_named_with_what_to_do(network: Network) -> None:
    node = network.found("ams1")
    node.stop()
    node.start()
    node.may_complain = True  # its services meet it, too
    catalog = node.data / "catalog.sqlite"
    overwrite(catalog)
    words, remedy = f"{catalog}: the catalog is damaged: database disk image is malformed", "replicad backup restore FILE --force"
    said = node.cli("status", code=10).err
    assert (words in said, remedy in said) == (True, True)
    said = node.cli("check", code=2).out
    assert said.startswith(f"REPLICAD CRITICAL - {words} -> {remedy}")
    node.stop()
