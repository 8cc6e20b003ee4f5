"""The admin door under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.admin_door import Door, opened


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door of its own for every test."""
    async with opened(tmp_path / "data") as found:
        yield found
