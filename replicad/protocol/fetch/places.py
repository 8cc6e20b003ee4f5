"""How the places in which contents are looked for are divided, so that names of contents which exist nowhere do not block those which do, however many and whoever wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from replicad.model.entries import Wanted
from replicad.protocol.fetch.config import LOOKED_S, STALLED_S
from replicad.protocol.fetch.events import Priority

TURNS = 4
"""All places are so many turns of an origin."""

Key = TypeVar("Key")
Benched = Mapping[Any, float]
"""Of each key that was looked for in vain until when it is not looked for again."""
Priorities = Callable[[Wanted], Priority]


def in_turns(waiting: dict[Key, Wanted], unheld: Iterable[Wanted], size: int, *, benched: Benched, priority: Priorities) -> dict[Key, Wanted]:
    """In the order in which it gets one of ``size`` places, of which what is ``unheld`` has some in vain: what clients wait for, then the origins in turns; to an origin's turns belongs what it has in vain.

    Within each turn, and among what is of one origin, what was not looked for yet goes before what was, of that the longest ago first; then the better class.
    """
    taken = Counter(wanted.origin for wanted in unheld)
    ranks = {key: (benched.get(key, 0.0), priority(wanted)) for key, wanted in waiting.items()}
    order: dict[Key, tuple[bool, int, float, Priority]] = {}
    for key in sorted(ranks, key=lambda key: ranks[key]):
        origin = waiting[key].origin
        order[key] = (ranks[key][1] is not Priority.AWAITED, TURNS * taken[origin] // size, *ranks[key])
        taken[origin] += 1
    return {key: waiting[key] for key in sorted(order, key=lambda key: order[key])}


def may_oust(wanted: Wanted, priority: Priority, unheld: Iterable[Wanted], size: int) -> Callable[[Wanted], bool]:
    """Whose places this may take because it is of a better class: everybody's; but if its origin has a whole turn of the ``size`` places in vain, only of such origins, unless clients wait for it."""
    taken = Counter(one.origin for one in unheld)
    greedy = {origin for origin, count in taken.items() if TURNS * count >= size}
    everybody = priority is Priority.AWAITED or wanted.origin not in greedy
    return lambda other: everybody or other.origin in greedy


def giving_way(
    waiting: Mapping[Key, Wanted], unheld: Iterable[tuple[Wanted, float]], size: int, *, benched: Benched, priority: Priorities, now: float
) -> list[Wanted]:
    """What nobody has, each looked for since then, and must leave its place to what waits: after ``STALLED_S``; for each that was not looked for yet another one, the last, after ``LOOKED_S``.

    The first, by class and age, keep half of the places: others who fetch the same come to that next.
    """
    if not waiting:
        return []
    later = sorted(unheld, key=lambda one: (priority(one[0]), one[0].hlc))[size // 2 :]
    patient = len(later) - sum(key not in benched for key in waiting)
    return [wanted for place, (wanted, since) in enumerate(later) if now - since >= (STALLED_S if place < patient else LOOKED_S)]
