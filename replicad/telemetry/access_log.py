"""Who took what from the clients' door: a file of JSON Lines, one for each answer.

The door notes a tuple and goes on; names, dates and lines are made later and elsewhere. When the disk does not keep up, lines are lost and counted, never memory. The file is opened
for each batch, so that it may be renamed or removed at any time; by itself it is renamed to ``NAME.1`` at ``FILE_BYTES_MAX``, replacing the one before, so the disk holds at most twice that.
Never a query: it may be a secret.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import msgspec

from replicad.telemetry.log import get

if TYPE_CHECKING:
    from pathlib import Path

log = get(__name__)

WAITING_MAX = 20_000
"""Answers noted and not yet written, about 10 MB: half a second of the fastest kind of answers (bench/serve.py)."""
BATCH = 500
"""Lines made in one go: half a millisecond during which nothing else of Python runs."""
FLUSH_S = 0.5
"""So late may a line be: a guess at what ``tail -f`` forgives."""
FILE_BYTES_MAX = 64 << 20
CHARACTERS_MAX = 1024


class Answered(NamedTuple):
    """One answer. ``target`` as it stood in the request, ``ended_s`` in seconds since 1970, ``sent_bytes`` of the body; ``duration_s`` from the request's head to the last byte given to the kernel."""

    ended_s: float
    duration_s: float
    client: str
    method: str
    target: str
    status: int
    sent_bytes: int
    range: str
    agent: str


class _Line(msgspec.Struct, gc=False, omit_defaults=True):
    """One line: when the request came, who asked, what for, and what was sent. ``share`` and ``path`` are decoded."""

    time: datetime
    client: str
    method: str
    share: str
    path: str
    status: int
    bytes: int
    duration_ms: float
    range: str = ""
    agent: str = ""


class AccessLog:
    """``path`` None: nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._waiting: list[Answered] = []
        self._lost = 0

    def note(self, access: Answered) -> None:
        """Keep it for the next batch."""
        if len(self._waiting) < WAITING_MAX:
            if self._path is not None:
                self._waiting.append(access)
        else:
            self._lost += 1

    async def run(self) -> None:
        """Write what was noted until cancelled; ``write`` the rest when the door is closed."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._waiting:
                await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Append what was noted; what cannot be written is lost."""
        waiting, self._waiting = self._waiting, []
        lost, self._lost = self._lost, 0
        if lost:
            log.seldom("lost", "the access log does not keep up; lines are lost", lines=lost)
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            try:
                self._append(_encoder.encode_lines([_line(access) for access in batch]))
            except OSError as error:
                log.seldom("write", "the access log cannot be written", path=self._path, reason=error.strerror, lines=len(waiting) - start)
                return

    def _append(self, lines: bytes) -> None:
        assert self._path is not None  # noqa: S101 - otherwise nothing was noted
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, lines)
            if os.fstat(fd).st_size >= FILE_BYTES_MAX:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        finally:
            os.close(fd)


_encoder = msgspec.json.Encoder()


def _line(access: Answered) -> _Line:
    path = access.target.partition("?")[0]
    share, _, rest = path.lstrip("/").partition("/")
    began = datetime.fromtimestamp(int((access.ended_s - access.duration_s) * 1000) / 1000, UTC)
    return _Line(
        began,
        access.client,
        access.method,
        _readable(share),
        _readable(rest),
        access.status,
        access.sent_bytes,
        round(access.duration_s * 1000, 3),
        _readable(access.range),
        _readable(access.agent),
    )


def _readable(text: str) -> str:
    """As text that JSON can hold: whatever is not UTF-8 is replaced, whatever is long is cut."""
    if text.isascii() and "%" not in text and len(text) <= CHARACTERS_MAX:
        return text
    return unquote(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:CHARACTERS_MAX])
