"""Who is answered when: the turns by themselves."""

from __future__ import annotations

import pytest
from fetch_simulator import node_id

from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.turns import Turn, Turns

CONFIG = FetchConfig(uploads_max=16, uploads_per_peer=4)


@pytest.mark.parametrize(("peers", "share"), [(1, 4), (2, 4), (3, 2), (4, 2), (5, 1), (8, 1), (100, 1)])
def test_those_who_may_ask_share_half_of_the_places(peers: int, share: int) -> None:
    """The other half is for who comes next: the first to ask does not take what all need."""
    turns = Turns(CONFIG)
    turns.peers = peers
    assert [turns.ask(number, node_id(1), 0.0) for number in range(share + 2)] == [*[Turn.NOW] * share, Turn.WAIT, Turn.BUSY]
    assert [turns.ask(100 + number, node_id(2 + number), 0.0) for number in range(16 - share)] == [Turn.NOW] * (16 - share)
    assert turns.ask(200, node_id(99), 0.0) is Turn.WAIT


def test_who_was_served_longest_ago_is_next() -> None:
    turns = Turns(FetchConfig(uploads_max=1, upload_patience_s=60))
    assert turns.ask(1, node_id(1), 0.0) is Turn.NOW
    turns.done(1)
    assert turns.due(0.1) == []
    assert turns.ask(2, node_id(2), 0.2) is Turn.NOW
    assert turns.ask(3, node_id(2), 0.3) is Turn.WAIT
    assert turns.ask(4, node_id(1), 0.4) is Turn.WAIT
    turns.done(2)
    assert turns.due(0.5) == [4]
    turns.done(4)
    assert turns.due(0.6) == [3]
