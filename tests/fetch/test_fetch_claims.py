"""Who takes what only one node has: the claims by themselves."""

from __future__ import annotations

from replicad.crypto.hashing import sha256
from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.claims import SOUGHT_MAX, Claims
from replicad.protocol.fetch.config import OWNER_S
from replicad.protocol.wire import Small

OWN, PEER, OTHER = NodeId(bytes(31) + b"\1"), NodeId(sha256(b"peer")), NodeId(sha256(b"other"))
CONTENTS = [Small(sha256(number.to_bytes(4)), 1) for number in range(64)]
PLACES = {small: 1 << at for at, small in enumerate(CONTENTS)}


def _owned(claims: Claims) -> int:
    claims.review(0.0)
    return claims.foreign


def test_it_does_not_matter_whether_a_peer_seeks_before_or_after_a_content_got_its_place() -> None:
    before, after = Claims(OWN), Claims(OWN)
    before.seek(PEER, CONTENTS, {}, 0.0)
    before.add(PLACES, 0.0)
    after.add(PLACES, 0.0)
    after.seek(PEER, CONTENTS, PLACES, 0.0)
    assert _owned(before) == _owned(after)
    assert 0 < _owned(before).bit_count() < len(CONTENTS)


def test_only_places_that_are_still_taken_become_free_for_everybody() -> None:
    claims = Claims(OWN)
    claims.seek(PEER, CONTENTS, PLACES, 0.0)
    owned = _owned(claims)
    gone = owned & -owned
    claims.drop(gone)
    assert claims.review(0.0) == 0
    assert claims.due == OWNER_S
    assert claims.review(OWNER_S) == owned & ~gone
    assert claims.due is None


def test_after_patience_with_one_owner_ends_the_next_one_is_not_waited_for_without_end() -> None:
    claims = Claims(OWN)
    claims.seek(PEER, CONTENTS, PLACES, 0.0)
    claims.seek(OTHER, CONTENTS, PLACES, 1.0)
    assert claims.review(1.0) == 0
    assert claims.due == OWNER_S
    assert 0 < claims.review(OWNER_S).bit_count() < len(CONTENTS)
    assert claims.due == OWNER_S + 1.0
    assert claims.review(OWNER_S + 1.0)
    assert not claims.foreign


def test_of_who_seeks_without_end_the_oldest_is_forgotten() -> None:
    claims = Claims(OWN)
    claims.seek(PEER, CONTENTS, {}, 0.0)
    claims.seek(PEER, [Small(sha256(number.to_bytes(8)), 1) for number in range(SOUGHT_MAX - 1)], {}, 0.0)
    claims.add(PLACES, OWNER_S)
    remembered = Claims(OWN)
    remembered.seek(PEER, CONTENTS[-1:], PLACES, 0.0)
    assert _owned(claims) == _owned(remembered)


def test_what_one_owns_others_have_next_each_in_a_part_of_its_own() -> None:
    nodes = NodeId(sha256(b"owner")), PEER, OTHER
    claims = {node: Claims(node) for node in nodes}
    for node in nodes:
        claims[node].add(PLACES, 0.0)
        for other in nodes:
            if other != node:
                claims[node].seek(other, CONTENTS, PLACES, 0.0)
        claims[node].review(0.0)
    owned = sets.full(len(CONTENTS)) & ~claims[nodes[0]].foreign
    one, other = (claims[node].next_in_line(owned) for node in nodes[1:])
    assert one
    assert other
    assert one | other == owned
    assert not one & other
    alone = claims[PEER].next_in_line(owned & ~one)
    assert alone == owned & ~one, "when nothing is left of that, it takes of the rest"
