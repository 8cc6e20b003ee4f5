"""Names of contents which exist nowhere, or whose holder is gone, hardly delay what somebody has."""

from __future__ import annotations

import pytest
from fetch_simulator import Swarm, wanted

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.protocol.fetch.config import LOOKED_S, PACK_MAX, SEEKING_MAX, STALLED_S
from replicad.protocol.fetch.events import Wants

MIB = 1 << 20
RATE = 25e6


@pytest.mark.parametrize("urgent", [False, True], ids=["new", "urgent"])
@pytest.mark.parametrize("size", [5 * MIB, 500], ids=["large", "small"])
def test_names_of_nothing_that_one_origin_wrote_hardly_delay_what_others_publish(seed: int, size: int, urgent: bool) -> None:
    phantoms = [wanted(number, size, age=number, origin=b"p") for number in range(10_000)]
    real = [wanted(20_000 + number, size, age=20_000, origin=b"s") for number in range(200)]
    swarm = Swarm(seed)
    source, node = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE)
    swarm.hold(source, real)
    swarm.link(source, node)
    swarm.wanted.update((one.content, one) for one in (*phantoms, *real))
    hasty = frozenset(one.content for one in phantoms) if urgent else frozenset()
    swarm.tell(node, Wants(tuple(phantoms), urgent=hasty))
    swarm.run(lambda: swarm.now > 2, limit_s=10)
    swarm.tell(node, Wants((*phantoms, *real[:1]), urgent=hasty))
    swarm.run(lambda: real[0].content in node.complete, limit_s=2 + 2 * LOOKED_S + 2)
    swarm.tell(node, Wants((*phantoms, *real[1:]), urgent=hasty))
    started = swarm.now
    swarm.run(lambda: len(node.complete) == len(real), limit_s=started + 2 * sum(one.size for one in real) / RATE + 10 * LOOKED_S)


@pytest.mark.parametrize("size", [2 * MIB, 500], ids=["large", "small"])
def test_what_appears_late_is_found_among_many_names_of_nothing_and_the_oldest_are_always_looked_for(seed: int, size: int) -> None:
    places = SEEKING_MAX if size > CHUNK_SIZE_MIN else PACK_MAX
    phantoms = [wanted(number, size, age=number) for number in range(4 * places)]
    swarm = Swarm(seed)
    source, node = swarm.add(up=RATE, down=RATE), swarm.add(up=RATE, down=RATE)
    swarm.link(source, node)
    swarm.want(node, phantoms)
    for late in (phantoms[3 * places], phantoms[-1]):
        swarm.run(lambda: swarm.now > 300, limit_s=400)
        swarm.hold(source, [late])
        swarm.run(lambda late=late: late.content in node.complete, limit_s=swarm.now + 10 * STALLED_S)
    swarm.hold(source, [phantoms[places // 4]])
    swarm.run(lambda: phantoms[places // 4].content in node.complete, limit_s=swarm.now + 2)
