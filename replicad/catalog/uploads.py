"""Resumable uploads that were begun on this node, and how far they are. Nothing of this is replicated; how many there are is bounded by who begins them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from replicad.catalog.answers import Upload
from replicad.catalog.state import State
from replicad.model.ids import Digest

_COLUMNS = "id, caller, share, path, stage, publisher, urgent, metadata, size_bytes, expect, safe_bytes, safe_digest, published, expires_ms"


class Uploads(State):
    """Part of ``Catalog``."""

    async def uploads(self) -> list[Upload]:
        """All of them, the first to expire first."""
        return await self._database.read(_all)

    async def put_upload(self, upload: Upload) -> None:
        """Keep it, durably, instead of what is known of it."""
        row = (
            upload.id,
            upload.caller,
            upload.share,
            upload.path,
            upload.stage,
            upload.publisher,
            upload.urgent,
            upload.metadata,
            upload.size,
            upload.expect,
            upload.offset,
            upload.digest,
            upload.published,
            upload.expires_ms,
        )
        sql = f"INSERT OR REPLACE INTO upload ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
        await self._write(lambda connection: connection.execute(sql, row).rowcount, durable=True)

    async def drop_uploads(self, ids: Sequence[str]) -> None:
        """Forget them, durably."""
        rows = [(one,) for one in ids]
        await self._write(lambda connection: connection.executemany("DELETE FROM upload WHERE id = ?", rows).rowcount, durable=True)


def _all(connection: sqlite3.Connection) -> list[Upload]:
    return [_from_row(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM upload ORDER BY expires_ms, id")]  # noqa: S608 - constants only


def _from_row(
    *columns: *tuple[str, str, str, str, str | None, str, int, str, int, bytes | None, int, bytes, int, int],
) -> Upload:
    upload_id, caller, share, path, stage, publisher, urgent, metadata, size, expect, offset, digest, published, expires_ms = columns
    return Upload(
        id=upload_id,
        caller=caller,
        share=share,
        path=path,
        stage=stage,
        publisher=publisher,
        urgent=bool(urgent),
        metadata=metadata,
        size=size,
        expect=None if expect is None else Digest(expect),
        offset=offset,
        digest=Digest(digest),
        published=bool(published),
        expires_ms=expires_ms,
    )
