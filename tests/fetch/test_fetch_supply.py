"""Who is told what: the supply by itself."""

from __future__ import annotations

import random

from replicad.crypto.hashing import sha256
from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import HAVE_S
from replicad.protocol.fetch.events import Say, Target
from replicad.protocol.fetch.supply import Due, Has, Servable, Supply, SupplyEvent, Watch
from replicad.protocol.wire import Have, HaveMore

COUNT = 8
TARGET = Target(sha256(b"content"), sha256(b"manifest"))
PEER = NodeId(bytes(31) + b"\1")


def news(supply: Supply, event: SupplyEvent, now: float) -> list[Have | HaveMore]:
    """What is said because of the event, at once and until news were gathered."""
    says = supply.handle(event, now) + supply.handle(Due(), now + HAVE_S)
    return [say.message for say in says if isinstance(say.message, Have | HaveMore)]


def test_a_peer_is_not_told_of_what_it_has_until_it_has_lost_it() -> None:
    supply = Supply(random.Random(1).randrange)
    supply.handle(Watch(PEER, TARGET, COUNT, 0), 0.0)
    supply.handle(Has(PEER, TARGET, sets.of((1, 3)), whole=False), 1.0)
    assert news(supply, Servable(TARGET, COUNT, sets.of((1, 3))), 1.0) == []
    assert news(supply, Servable(TARGET, COUNT, sets.of((1, 2, 3))), 2.0) == [HaveMore(*TARGET, chunks=(2,), suggest=())]
    assert news(supply, Has(PEER, TARGET, sets.of((1, 2)), whole=True), 3.0) == [HaveMore(*TARGET, chunks=(3,), suggest=())]
    assert news(supply, Servable(TARGET, COUNT, sets.full(COUNT)), 4.0) == [Have(*TARGET, bitmap=b"", complete=True)]


def test_news_is_told_at_once_and_what_follows_it_soon_is_gathered() -> None:
    supply = Supply(random.Random(1).randrange)
    supply.handle(Watch(PEER, TARGET, COUNT, 0), 0.0)
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1,))), 1.0) == [Say(PEER, HaveMore(*TARGET, chunks=(1,), suggest=()))]
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1, 2))), 1.01) == []
    assert supply.handle(Servable(TARGET, COUNT, sets.of((1, 2, 4))), 1.0 + HAVE_S / 2) == []
    assert supply.next_deadline() == 1.0 + HAVE_S
    assert supply.handle(Due(), 1.0 + HAVE_S) == [Say(PEER, HaveMore(*TARGET, chunks=(2, 4), suggest=()))]
    assert supply.next_deadline() is None
