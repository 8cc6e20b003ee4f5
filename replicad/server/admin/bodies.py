"""What the admin API is asked: request bodies and query strings, with their bounds. Unknown fields are refused; msgspec's message names the field and the bound."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from replicad.model.records import LABEL_MAX, NAME_MAX, SHARES_MAX, STAGES_MAX, Role

ANSWER_ITEMS = 1000
ANSWER_ITEMS_MAX = 5000
"""Items of one page of a list: unless asked otherwise, and at most."""
ENTRIES_PER_CALL_MAX = 50_000
"""Files of one publication: they become visible in one transaction. A guess: a whole Munki repository; measure by publishing one."""
WAIT_ENTRIES_MAX = ENTRIES_PER_CALL_MAX
LONG_POLL_S_MAX = 10.0
INVITE_EXPIRES_S_MAX = 24 * 3600
BLOB_BATCH_BYTES_MAX = 16 * 1024 * 1024
BLOB_BATCH_ITEMS_MAX = 256

_ShareName = Annotated[str, Meta(min_length=1, max_length=63)]
_Shares = Annotated[list[_ShareName], Meta(min_length=1, max_length=SHARES_MAX)]
_StageName = Annotated[str, Meta(min_length=1, max_length=32)]
_Stages = Annotated[list[_StageName], Meta(min_length=1, max_length=STAGES_MAX)]
_Path = Annotated[str, Meta(min_length=1, max_length=1024)]
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Site = Annotated[str, Meta(max_length=NAME_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
_Limit = Annotated[int, Meta(ge=1, le=ANSWER_ITEMS_MAX)]
_Cursor = Annotated[str, Meta(max_length=8192)]
_Label = Annotated[str, Meta(max_length=LABEL_MAX)]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Invite(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /invites. ``shares`` and ``stages`` null: all."""

    role: Role = Role.MIRROR
    shares: _Shares | None = None
    stages: _Stages | None = None
    site: _Site = ""
    expires_s: Annotated[int, Meta(ge=1, le=INVITE_EXPIRES_S_MAX)] = INVITE_EXPIRES_S_MAX


class Join(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /members/join: either a token, or the peer URL and node id of a member. ``merge``: bring this network's own entries along."""

    token: Annotated[str, Meta(max_length=8192)] | None = None
    url: Annotated[str, Meta(max_length=1024)] | None = None
    key: Annotated[str, Meta(max_length=80)] | None = None
    merge: bool = False


class Approve(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /members/{id}/approve: what the pending node is granted."""

    role: Role = Role.MIRROR
    shares: _Shares | None = None
    stages: _Stages | None = None
    site: _Site = ""


class MemberChange(Struct, frozen=True, forbid_unknown_fields=True):
    """PATCH /members/{id}: what is absent stays, null means all."""

    role: Role | UnsetType = UNSET
    shares: _Shares | UnsetType | None = UNSET
    stages: _Stages | UnsetType | None = UNSET
    site: _Site | UnsetType = UNSET


class NewShare(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares."""

    name: _ShareName
    public: bool = False
    immutable: bool = False
    stages: _Stages | None = None


class ShareChange(Struct, frozen=True, forbid_unknown_fields=True):
    """PATCH /shares/{name}: what is absent stays."""

    public: bool | UnsetType = UNSET
    stages: _Stages | UnsetType = UNSET


class EntriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET /entries. ``after`` is the ``next`` of the page before."""

    share: _ShareName | None = None
    prefix: Annotated[str, Meta(max_length=1024)] = ""
    after: _Cursor | None = None
    limit: _Limit = ANSWER_ITEMS


class MatrixQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """GET /matrix. ``incomplete``: only rows of which some node that wants them lacks a copy."""

    share: _ShareName | None = None
    incomplete: bool = False
    after: _Cursor | None = None
    limit: _Limit = ANSWER_ITEMS


class NewEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One name for one content that was uploaded before."""

    path: _Path
    sha256: _Sha256
    size: Annotated[int, Meta(ge=0)]


class Publish(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/entries: all of these or none. ``stage`` absent: the share's last one. ``publisher`` is a label for people."""

    entries: Annotated[list[NewEntry], Meta(min_length=1, max_length=ENTRIES_PER_CALL_MAX)]
    stage: _StageName | None = None
    publisher: _Label = ""
    dry_run: bool = False


class PutFileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /shares/{share}/files/{path}."""

    stage: _StageName | None = None
    publisher: _Label = ""


class WaitEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What a name stands for. ``stage`` absent: the lowest stage that this node carries and that has a live file there."""

    path: _Path
    stage: _StageName | None = None


class Wait(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /wait. ``nodes``: ``all``, a number of nodes (this one included) or a percentage of those that want it (``50%``)."""

    share: _ShareName
    entries: Annotated[list[WaitEntry], Meta(min_length=1, max_length=WAIT_ENTRIES_MAX)]
    nodes: Annotated[str, Meta(pattern="^(all|[1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$")] = "all"
    timeout_s: Annotated[float, Meta(ge=0, le=LONG_POLL_S_MAX)] = LONG_POLL_S_MAX
