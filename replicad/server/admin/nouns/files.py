"""Nouns of files: contents, names, who holds what."""

from __future__ import annotations

from msgspec import Struct


class Blob(Struct, frozen=True):
    """Content that was received whole and verified."""

    sha256: str
    size: int


class Blobs(Struct, frozen=True):
    """POST /blobs: in the order of the upload."""

    blobs: list[Blob]


class Entry(Struct, frozen=True):
    """What a name of a share stands for at one stage. ``available``: this node holds the content, verified, and may serve it. ``siblings``: how many entries lost a conflict with this one.
    ``taken_down``: a takedown stands on the content, so no node serves it. ``checksums``: algorithm to hexadecimal digest, those that shares ask for and this node has computed of the content.
    """

    share: str
    path: str
    stage: str
    size: int
    sha256: str
    published: str
    publisher: str
    origin: str
    available: bool
    siblings: int
    record: str
    taken_down: bool = False
    checksums: dict[str, str] = {}


class Entries(Struct, frozen=True):
    """GET /entries. ``next`` is the cursor of the next page, null at the end."""

    entries: list[Entry]
    next: str | None


class Copy(Struct, frozen=True):
    """How much of one content a node holds: 100 is held and verified, null not known."""

    id: str
    name: str
    linked: bool
    percent: int | None


class EntryAnswer(Struct, frozen=True):
    """GET /shares/{share}/entries/{path}: the entry that clients of this node see, the other stages and conflicting siblings, and who of those that want it holds it. ``collides``: another
    file's path that is a directory of this one or lies below it, which two nodes can only have published at the same time.
    """

    entry: Entry
    others: list[Entry]
    copies: list[Copy]
    collides: str | None = None


class Published(Struct, frozen=True):
    """One published file. ``state``: ``new``, ``replaced`` or ``unchanged`` (then there is no new record). ``former``: how the name was written that it replaced, if otherwise. ``hides``: the share's last
    stage, if that has a file of this name, which nodes that carry both stages show no more.
    """

    path: str
    stage: str
    size: int
    sha256: str
    record: str | None
    state: str
    former: str | None = None
    hides: str | None = None


class Publication(Struct, frozen=True):
    """POST /shares/{share}/entries and PUT /shares/{share}/files/{path}."""

    share: str
    published: list[Published]


class Change(Struct, frozen=True):
    """What a verb did (or would do) to one name at one stage. ``kind``: ``promote``, ``remove`` or ``restore``. ``record`` null: nothing was signed. Size and content are what the name stands for now, or
    stood for before it was removed; ``available``: this node holds that content and may serve it.
    """

    path: str
    stage: str
    kind: str
    size: int
    sha256: str
    record: str | None
    available: bool


class Changes(Struct, frozen=True):
    """POST /shares/{share}/promote, remove, undelete, rollback. ``names`` counts the names among the changes, whatever their stages."""

    share: str
    changes: list[Change]
    names: int


class Revision(Struct, frozen=True):
    """One record of a name. ``kind``: ``publish``, ``promote``, ``restore`` or ``remove``; ``state``: ``current``, ``sibling``, ``superseded`` or ``void`` (then ``why_not`` says why). ``source`` is the stage
    that a promotion came from. A removal has no size and content; ``available``: this node holds the content and may serve it.
    """

    record: str
    time: str
    origin: str
    publisher: str
    path: str
    stage: str
    kind: str
    source: str | None
    state: str
    why_not: str
    size: int | None
    sha256: str | None
    available: bool
    taken_down: bool


class Revisions(Struct, frozen=True):
    """GET /shares/{share}/history/{path}: newest first. ``next`` is the cursor of the next page, null at the end."""

    records: list[Revision]
    next: str | None


class Takedown(Struct, frozen=True):
    """A content that is served nowhere. ``share`` and ``path`` are one of its names, empty if it has none here."""

    sha256: str
    share: str
    path: str
    reason: str
    origin: str
    time: str


class Takedowns(Struct, frozen=True):
    """GET /takedowns: newest first. ``next`` is the cursor of the next page, null at the end."""

    takedowns: list[Takedown]
    next: str | None = None


class TakedownAnswer(Struct, frozen=True):
    """PUT and DELETE /takedowns/{sha256}: whether a takedown stands now, and whether that is new."""

    sha256: str
    taken_down: bool
    changed: bool


class NodeColumn(Struct, frozen=True):
    """One column of the matrix."""

    id: str
    name: str
    site: str
    linked: bool


class Row(Struct, frozen=True):
    """One row of the matrix: ``percent`` and ``wanted`` are parallel to the matrix's ``nodes``. ``percent`` null: the node has not told, or does not want it. ``copies`` of ``copies_wanted`` nodes hold it."""

    share: str
    path: str
    stage: str
    size: int
    sha256: str
    percent: list[int | None]
    wanted: list[bool]
    copies: int
    copies_wanted: int


class Matrix(Struct, frozen=True):
    """GET /matrix: this node is the first column."""

    nodes: list[NodeColumn]
    rows: list[Row]
    next: str | None


class Transfer(Struct, frozen=True):
    """Content that this node is fetching now. ``share`` and ``path`` are one of its names; ``sources`` are names of nodes."""

    sha256: str
    share: str
    path: str
    size: int
    done: int
    sources: list[str]
    rate_bytes_s: float


class Transfers(Struct, frozen=True):
    """GET /transfers: at most ``files_at_once`` of [fetch]."""

    transfers: list[Transfer]


class NodeProgress(Struct, frozen=True):
    """How far one member is with what is waited for: the files and bytes it holds of those that its grant wants."""

    id: str
    name: str
    linked: bool
    files: int
    files_wanted: int
    bytes: int
    bytes_wanted: int


class Waited(Struct, frozen=True):
    """POST /wait. ``state``: ``done``, ``linked`` (every linked node has it, others are offline) or ``pending``. ``nodes`` are the members whose grant wants any of it; ``holders`` counts the
    nodes that hold everything they want, ``needed`` how many must.
    """

    state: str
    nodes: list[NodeProgress]
    holders: int
    needed: int
