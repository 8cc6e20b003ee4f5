"""Skeleton of the catalog's public face: the signatures are final, the bodies follow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.catalog.answers import Blame, HeadRow, Invite, PartialRow, Pending, Received, Standing, Usage
from replicad.model.entries import Listed, Wanted
from replicad.model.events import Event
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Envelope, Record

if TYPE_CHECKING:
    from replicad.crypto.keys import SigningKey
    from replicad.protocol.replica import Replica


class Catalog:
    """Everything this node knows. One per process, made by ``open``; every method is for the event loop's thread.

    ``replica`` is the committed state of clock, chains and trust: it never runs ahead of the disk. ``move`` replaces it, so read ``catalog.replica`` and ``catalog.network`` afresh each time.
    ``on_event`` is called in the event loop after each commit, in commit order.
    """

    node: NodeId
    network: NodeId
    replica: Replica
    on_event: Callable[[Event], None]

    @classmethod
    def open(
        cls, path: Path, *, node: SigningKey, clock_ms: Callable[[], int], random16: Callable[[], int], network: NodeId | None = None
    ) -> AbstractAsyncContextManager[Catalog]:
        """The catalog at ``path``. ``network``: create it if it is missing, and insist on that network; None: it must exist. Raises ConfigurationError, closed on every path."""
        raise NotImplementedError

    # journal: how records get in

    async def receive(self, envelopes: Sequence[Envelope], *, source: NodeId | None) -> Received:
        """Verify, judge, store and merge in one transaction. Idempotent. Records that do not count are stored without effect."""
        raise NotImplementedError

    async def author(self, share: str, bodies: Sequence[Body], *, held: Sequence[Manifest] = ()) -> tuple[Record, ...]:
        """Sign and store one record per body, all or none, and mark the contents of ``held`` as held in the same transaction; durable on return. NotAllowedError if this node may not."""
        raise NotImplementedError

    async def author_as(self, key: SigningKey, bodies: Sequence[Body]) -> tuple[Record, ...]:
        """The same in the share "" under another key: the network key's founding grant."""
        raise NotImplementedError

    async def move(self, network: NodeId, envelopes: Sequence[Envelope]) -> Received:
        """Leave the network: forget its records, heads, invites and requests (not contents, manifests, partials), take up ``network`` with these records, all in one transaction."""
        raise NotImplementedError

    async def records_for_pull(self, share: str, origin: NodeId, have: Mapping[Stamp, int], *, bytes_max: int) -> tuple[list[Envelope], bool]:
        """The records of one chain that are neither in ``have`` (incarnation -> last seq) nor ancestors of those, in chain order; at least one if there are any; True if more follow."""
        raise NotImplementedError

    async def record(self, record: RecordId) -> Record | None:
        """A stored record by id, whether or not it counts."""
        raise NotImplementedError

    # names

    async def visible(self, share: str, key: str) -> Listed | None:
        """What this node shows under a collision key: the live file of the lowest stage that it carries."""
        raise NotImplementedError

    async def entries(
        self, share: str | None = None, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 1000, all_stages: bool = False
    ) -> list[Listed]:
        """A page of names in order of (share, key): one per name as ``visible`` (or with ``all_stages`` every stage's, lowest first, carried here or not). ``prefix`` is a collision key, matched
        segment-wise. ``after`` is (share, key) of the last one of the previous page; a page never splits a name and has at most max(``limit``, 16) rows, limit <= 10,000."""
        raise NotImplementedError

    async def register(self, share: str, key: str, stage: str) -> list[Listed]:
        """The live entries of one register: the winner first, then the siblings, best first (at most 100)."""
        raise NotImplementedError

    async def registers(self, share: str, pairs: Sequence[tuple[str, str]]) -> list[Listed | None]:
        """The winner of each (key, stage), in the same order; at most 1000 pairs."""
        raise NotImplementedError

    async def standings(self, share: str, pairs: Sequence[tuple[str, str]]) -> list[Standing]:
        """For each (key, stage), in the same order: winner, live records and collision, for somebody who wants to publish there. Any number of pairs."""
        raise NotImplementedError

    async def live_records(self, share: str, key: str, stage: str) -> list[RecordId]:
        """What a new entry or tombstone of that register must supersede: its live records, newest first, at most SUPERSEDES_MAX."""
        raise NotImplementedError

    async def named_by(self, content: Digest) -> list[tuple[str, str, bool]]:
        """(share, stage, live) of every place where an entry that counts names the content; live = as a register's winner."""
        raise NotImplementedError

    async def collides(self, share: str, key: str) -> str | None:
        """The path of a live file, at any stage, that is a parent of the key or lies below it."""
        raise NotImplementedError

    # contents

    def is_held(self, content: Digest) -> bool:
        """Whether the content is held, verified and durable. No waiting."""
        raise NotImplementedError

    async def manifest(self, content: Digest, manifest_id: Digest) -> Manifest | None:
        """A manifest that is stored, or follows from digest and size."""
        raise NotImplementedError

    async def add_manifests(self, manifests: Sequence[Manifest]) -> None:
        """Keep manifests (of contents being fetched)."""
        raise NotImplementedError

    async def hold(self, manifests: Sequence[Manifest], *, durable: bool = False) -> None:
        """These contents are on the disk, verified: publishes ContentHeld after the commit, drops their partials. ``durable``: survives a power failure, not only a crash of the program."""
        raise NotImplementedError

    async def lose(self, content: Digest) -> None:
        """The content is not on the disk any more: publishes ContentLost; it is wanted again if a winner names it."""
        raise NotImplementedError

    def held_contents(self) -> AsyncIterator[tuple[Digest, int]]:
        """(content, size) of everything held, by digest, read in pages."""
        raise NotImplementedError

    async def held_manifest(self, content: Digest) -> Manifest | None:
        """The manifest under which the content is held, None if it is not."""
        raise NotImplementedError

    async def wanted(self, limit: int = 10_000) -> list[Wanted]:
        """Contents named by winners in the stages this node carries and not held, each once per manifest, oldest first."""
        raise NotImplementedError

    async def is_wanted(self, content: Digest) -> bool:
        """Whether ``wanted`` has the content."""
        raise NotImplementedError

    async def usage(self) -> Usage:
        """Counts and bytes, kept as running totals."""
        raise NotImplementedError

    async def partials(self) -> list[PartialRow]:
        """Every content half fetched."""
        raise NotImplementedError

    async def save_partials(self, partials: Iterable[tuple[Digest, Digest, bytes]]) -> None:
        """(content, manifest id, bitmap): replaces what was saved."""
        raise NotImplementedError

    async def drop_partial(self, content: Digest, manifest_id: Digest) -> None:
        """Forget a partial."""
        raise NotImplementedError

    # peers

    async def heads(self) -> list[HeadRow]:
        """The newest head of each (node, share)."""
        raise NotImplementedError

    async def save_heads(self, heads: Iterable[HeadRow]) -> None:
        """Replace the stored heads of these (node, share)."""
        raise NotImplementedError

    async def add_invite(self, secret_hash: Digest, body: bytes, expires_ms: int) -> None:
        """Remember an invitation."""
        raise NotImplementedError

    async def invite(self, secret_hash: Digest) -> Invite | None:
        """An invitation, used, expired or not."""
        raise NotImplementedError

    async def use_invite(self, secret_hash: Digest, node: NodeId) -> Invite:
        """Bind the invitation to this key, durably; harmless when repeated. NotFoundError, NotAllowedError("invite-expired"), ConflictError("invite-used")."""
        raise NotImplementedError

    async def add_pending(self, node: NodeId, body: bytes) -> None:
        """Keep a request to join; a second one of that node replaces the first. BusyError beyond 256."""
        raise NotImplementedError

    async def pending(self) -> list[Pending]:
        """Requests to join, oldest first."""
        raise NotImplementedError

    async def drop_pending(self, node: NodeId) -> None:
        """Forget a request."""
        raise NotImplementedError

    async def blame(self, node: NodeId, offence: str, detail: str, now_ms: int) -> None:
        """Note an offence (the newest 100 of a node are kept) and publish PeerBlamed."""
        raise NotImplementedError

    async def blames(self, node: NodeId | None = None) -> list[Blame]:
        """Offences of a member, or of all, newest first, at most 1000."""
        raise NotImplementedError

    async def meta(self, key: str) -> str | None:
        """A small value kept for a service."""
        raise NotImplementedError

    async def set_meta(self, key: str, value: str) -> None:
        """Keep it, durably."""
        raise NotImplementedError
