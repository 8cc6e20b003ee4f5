"""What the admin API is asked in query strings, with bounds. Unknown parameters are refused; msgspec's message names the parameter and the bound."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from replicad.server.admin.bodies import NUMBER_MAX, Label, RecordBeginning, ShareName, StageName

ANSWER_ITEMS = 1000
ANSWER_ITEMS_MAX = 5000
"""Items of one page of a list: unless asked otherwise, and at most."""

_Limit = Annotated[int, Meta(ge=1, le=ANSWER_ITEMS_MAX)]
_Cursor = Annotated[str, Meta(pattern="^[A-Za-z0-9_=-]{1,4096}$")]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET of a list. ``after`` is the ``next`` of the page before."""

    after: _Cursor | None = None
    limit: _Limit = ANSWER_ITEMS


class AuditQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """GET /audit: records made at or after ``since``."""

    since: Annotated[datetime, Meta(tz=True)] | None = None


class ActionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET /audit/log: what was done at or after ``since``. ``after`` is the ``next`` of the page before."""

    since: Annotated[datetime, Meta(tz=True)] | None = None
    after: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] = 0
    limit: _Limit = ANSWER_ITEMS


class MunkiQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET /munki."""

    share: ShareName | None = None


class EntriesQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """GET /entries."""

    share: ShareName | None = None
    prefix: Annotated[str, Meta(max_length=1024)] = ""


class MatrixQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """GET /matrix. ``incomplete``: only rows of which some node that wants them lacks a copy."""

    share: ShareName | None = None
    incomplete: bool = False


class GetFileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET /shares/{share}/files/{path}. ``record``: of a sibling or an older version, its id or at least its first 8 digits."""

    record: RecordBeginning | None = None


class PutFileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /shares/{share}/files/{path}."""

    stage: StageName | None = None
    publisher: Label = ""
    urgent: bool = False


class BlobsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT and POST /blobs. ``share``: where the contents are going to be published; the checksums it asks for are computed on the way, instead of afterwards."""

    share: ShareName | None = None


class RemoveShareQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """DELETE /shares/{share}. ``expect``: how many names it has; needed when it has any."""

    dry_run: bool = False
    expect: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] | None = None
