"""Who is what: claims about oneself that nobody with the right to say so has signed."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from replicad.model.records import Role
from replicad.protocol.joining import read_token, write_token
from support.peer_node import peer_node
from support.villain import linked


async def test_a_token_that_was_rewritten_gives_what_its_maker_promised_and_no_more(tmp_path: Path) -> None:
    """The token's text is not signed: what counts is what its maker kept of it."""
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "e", "eve") as eve:
        await ann.create_share("munki")
        await ann.create_share("secret")
        token = read_token(await ann.membership.invite(role="mirror", shares=["munki"], site="attic", expires_s=60))
        await eve.membership.join(write_token(replace(token, role=Role.ADMIN, shares=None, site="headquarters", expires_ms=token.expires_ms * 2)))
        await linked(eve, ann)
        for node in (ann, eve):
            member = node.catalog.replica.trust.members(node.clock())[eve.id]
            assert (member.role, member.shares, member.site) == (Role.MIRROR, frozenset({"munki"}), "attic")
