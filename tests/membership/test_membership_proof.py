"""A token's id travels in the open of a request to join; only whoever holds its secret may use it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from replicad.crypto.session import nonce
from replicad.errors import PeerError
from replicad.protocol import joining
from replicad.protocol.joining import Asked, Door
from support.peer_node import peer_node

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize("forge", ["other secret", "no secret"])
async def test_the_id_of_a_token_admits_nobody_without_its_secret(tmp_path: Path, forge: str) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        text = await ann.membership.invite(role="admin")
        token = joining.read_token(text)
        asked = Asked(bob.id, "bob", Door(bob.id, (bob.url,), bob.certificate), token.network, ann.id, token.id, nonce())
        forged = msgspec.structs.replace(token, secret=bytes(joining.SECRET_BYTES)) if forge == "other secret" else None
        with pytest.raises(PeerError) as caught:
            await ann.membership.answer_join(joining.make_request(bob.key, asked, forged))
        assert caught.value.error_code == "bad-join"
        assert ann.members() == {"ann"}
        await bob.membership.join(text)
        assert ann.members() == {"ann", "bob"}
