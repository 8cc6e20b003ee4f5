"""Names of contents which exist nowhere, or whose holder is gone, hardly delay what somebody has."""

from __future__ import annotations

import pytest
from fetch_simulator import Swarm, wanted

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.protocol.fetch.config import LOOKED_S, PACK_MAX, SEEKING_MAX, STALLED_S
from replicad.protocol.fetch.events import Wants

MIB = 1 << 20
RATE = 25e6


@pytest.mark.parametrize("since_s", [2, 100], ids=["at-once", "later"])
@pytest.mark.parametrize("urgent", [False, True], ids=["new", "urgent"])
@pytest.mark.parametrize("size", [2 * MIB, 500], ids=["large", "small"])
def test_names_of_nothing_that_one_origin_wrote_hardly_delay_what_others_publish(seed: int, size: int, urgent: bool, since_s: int) -> None:
    phantoms = [wanted(number, size, age=number, origin=b"p") for number in range(10_000)]
    real = [wanted(20_000 + number, size, age=20_000, origin=b"s") for number in range(200)]
    swarm = Swarm(seed)
    source, node = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE)
    swarm.hold(source, real)
    swarm.link(source, node)
    swarm.wanted.update((one.content, one) for one in (*phantoms, *real))
    hasty = frozenset(one.content for one in phantoms) if urgent else frozenset()
    swarm.tell(node, Wants(tuple(phantoms), urgent=hasty))
    swarm.run(lambda: swarm.now > since_s, limit_s=200)
    swarm.tell(node, Wants((*phantoms, *real[:1]), urgent=hasty))
    swarm.run(lambda: real[0].content in node.complete, limit_s=swarm.now + 2 * LOOKED_S + 1)
    swarm.tell(node, Wants((*phantoms, *real[1:]), urgent=hasty))
    before = swarm.now
    swarm.run(lambda: len(node.complete) == len(real), limit_s=before + 2 * sum(one.size for one in real) / RATE + 2 * LOOKED_S)


@pytest.mark.parametrize("size", [2 * MIB, 500], ids=["large", "small"])
def test_what_appears_late_is_found_among_many_names_of_nothing_and_the_oldest_are_always_looked_for(seed: int, size: int) -> None:
    places, times = (SEEKING_MAX, 8) if size > CHUNK_SIZE_MIN else (PACK_MAX, 3)
    phantoms = [wanted(number, size, age=number) for number in range(times * places)]
    swarm = Swarm(seed)
    source, node = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE)
    swarm.link(source, node)

    def again() -> None:
        swarm.want(node, [one for one in phantoms if one.content not in node.complete])
        swarm.later(STALLED_S / 2 - 1, again)

    again()
    for late in (phantoms[-places], phantoms[-1]):
        began = swarm.now
        swarm.run(lambda began=began: swarm.now > began + 300, limit_s=1000)
        swarm.hold(source, [late])
        swarm.run(lambda late=late: late.content in node.complete, limit_s=swarm.now + 2 * (times + 1) * STALLED_S)
    oldest = phantoms[places // 4]
    swarm.hold(source, [oldest])
    swarm.run(lambda: oldest.content in node.complete, limit_s=swarm.now + 2)
