"""What the admin door needs to know; composed by ``replicad.config``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """``socket`` is the Unix socket (None: ``admin.sock`` in the data directory). ``listen`` is HOST:PORT of the TCP listener with bearer tokens, empty for none."""

    socket: Path | None = None
    listen: str = "127.0.0.1:8441"
