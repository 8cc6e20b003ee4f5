"""Who knows a hash knows no content: a caller with limits names by hash what it sent itself or may see, and cannot tell what else is here."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Any

from support.admin_door import Door, Reply

SECRET, ABSENT, MINE, SHOWN = b"the secret", b"nobody has it", b"my own", b"what may be seen"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def token(door: Door, **limits: Any) -> dict[str, str]:
    reply = await door.ask("POST", "/tokens", {"role": "admin", **limits})
    return {"Authorization": f"Bearer {reply.json['secret']}"}


async def name(door: Door, bearer: dict[str, str], path: str, content: bytes, *, size: int | None = None, dry_run: bool = False) -> Reply:
    entries = [{"path": path, "sha256": sha256(content), "size": len(content) if size is None else size}]
    return await door.ask("POST", "/shares/munki/entries", {"entries": entries, "dry_run": dry_run}, headers=bearer, over_tcp=True)


def told(reply: Reply, content: bytes) -> tuple[int, str]:
    """What an answer says, without the hash that was asked about and how full the disk is just now."""
    return reply.status, re.sub("has [0-9]+ bytes free", "has some", reply.body.decode().replace(sha256(content), "HASH"))


async def test_what_lies_beyond_the_limits_is_as_if_it_was_not_here(door: Door) -> None:
    by_share, by_path = await token(door, shares=["munki"]), await token(door, path="Apps")
    await door.ask("PUT", "/shares/jamf/files/secret", SECRET)
    await door.ask("PUT", "/shares/munki/files/other/secret", b"elsewhere")
    await door.ask("PUT", "/blobs", b"somebody else's")
    for bearer, hidden in ((by_share, SECRET), (by_path, SECRET), (by_path, b"elsewhere"), (by_share, b"somebody else's")):
        absent, found = [await name(door, bearer, "apps/x", content) for content in (ABSENT, hidden)]
        assert (absent.status, absent.json["code"]) == (404, "no-such-content")
        assert told(found, hidden) == told(absent, ABSENT)
        for size in (7, 1 << 41):  # there is no room for so much, except for what is here already
            absent, found = [await name(door, bearer, "apps/x", content, size=size, dry_run=True) for content in (ABSENT, hidden)]
            assert told(found, hidden) == told(absent, ABSENT), size
    assert (await name(door, {}, "apps/x", SECRET)).status == 401
    admin = await token(door)
    assert (await name(door, admin, "apps/x", SECRET)).status == 200


async def test_what_the_caller_sent_or_may_see_can_be_named(door: Door) -> None:
    bearer, other = await token(door, shares=["munki"], path="Apps"), await token(door, shares=["munki"])
    await door.ask("PUT", "/shares/munki/files/APPS/shown", SHOWN)
    await door.ask("DELETE", "/shares/munki/files/APPS/shown")
    assert (await name(door, bearer, "apps/again", SHOWN)).status == 200
    await door.ask("PUT", "/shares/jamf/files/secret", SECRET)
    await door.ask("PUT", "/blobs", MINE)
    assert (await name(door, bearer, "apps/mine", MINE)).status == 404
    assert (await door.ask("PUT", "/blobs?share=munki", MINE, headers=bearer, over_tcp=True)).status == 200
    frames = b"".join(struct.pack(">I", len(content)) + content for content in (SECRET, b"and more"))
    assert (await door.ask("POST", "/blobs", frames, headers=bearer, over_tcp=True)).status == 200
    assert (await name(door, other, "apps/mine", MINE)).status == 404
    for content in (MINE, SECRET, b"and more"):
        for _ in range(2):
            assert (await name(door, bearer, f"apps/{len(content)}", content)).status == 200
    assert (await name(door, other, "mine", MINE)).status == 200, "it has a name now"
