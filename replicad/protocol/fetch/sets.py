"""Sets of units (chunks of a content, or places in a pack) as integers: bit i stands for unit i.

A content has at most 4096 units, so a set is 512 bytes and union, difference and population count cost a fraction of a microsecond: no loop over chunks is needed to choose one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

RandRange = Callable[[int], int]
"""``randrange(n)``: an integer of 0 to n - 1."""


def full(count: int) -> int:
    """The set of units 0 to count - 1."""
    return (1 << count) - 1


def run(first: int, count: int) -> int:
    """The set of ``count`` neighbouring units."""
    return full(count) << first


def of(units: Iterable[int]) -> int:
    """The set with these members."""
    found = 0
    for unit in units:
        found |= 1 << unit
    return found


def union(masks: Iterable[int]) -> int:
    """What is in any of these sets."""
    found = 0
    for mask in masks:
        found |= mask
    return found


def members(mask: int) -> Iterator[int]:
    """The units in ascending order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def from_bitmap(bitmap: bytes | bytearray, count: int) -> int:
    """From bit i of byte i // 8, least significant first; what lies beyond ``count`` is ignored."""
    return int.from_bytes(bitmap, "little") & full(count)


def to_bitmap(mask: int, count: int) -> bytes:
    """The opposite: (count + 7) // 8 bytes."""
    return mask.to_bytes(-(-count // 8), "little")


def lowest(mask: int) -> int:
    """The first unit of a set that is not empty."""
    return (mask & -mask).bit_length() - 1


def run_length(mask: int, longest: int) -> int:
    """How many of the lowest bits are set without a gap, at most ``longest``."""
    return min(longest, ((mask + 1) & ~mask).bit_length() - 1)


def some(mask: int, randrange: RandRange) -> int:
    """A random unit of a set that is not empty, each as likely as any other: the member of random rank, found by halving."""
    rank, place, width = randrange(mask.bit_count()), 0, mask.bit_length()
    while width > 1:
        half = width // 2
        low = mask & full(half)
        if rank < (count := low.bit_count()):
            mask, width = low, half
        else:
            rank, mask, place, width = rank - count, mask >> half, place + half, width - half
    return place


class Tally:
    """A counter per unit, bit-sliced: plane k holds bit k of every counter, so counting a whole set up or down and finding the smallest counters costs a few operations on integers."""

    __slots__ = ("_planes",)

    def __init__(self) -> None:
        self._planes: list[int] = []

    def add(self, mask: int) -> None:
        """Count these units up by one."""
        for place, plane in enumerate(self._planes):
            if not mask:
                return
            self._planes[place], mask = plane ^ mask, plane & mask
        if mask:
            self._planes.append(mask)

    def remove(self, mask: int) -> None:
        """Count these units down by one; those at zero stay there."""
        mask &= self.counted
        for place, plane in enumerate(self._planes):
            if not mask:
                return
            self._planes[place], mask = plane ^ mask, mask & ~plane

    def clear(self, mask: int) -> None:
        """Set these units to zero."""
        self._planes = [plane & ~mask for plane in self._planes]

    @property
    def counted(self) -> int:
        """The units whose counter is not zero."""
        return union(self._planes)

    @property
    def several(self) -> int:
        """The units whose counter is two or more."""
        return union(self._planes[1:])

    def least(self, among: int) -> int:
        """Of ``among`` those with the smallest counter."""
        for plane in reversed(self._planes):
            among = among & ~plane or among
        return among

    def put(self, units: int, count: int) -> None:
        """Set the counter of each of these units."""
        self.clear(units)
        self._planes += [0] * (count.bit_length() - len(self._planes))
        for place in members(count):
            self._planes[place] |= units

    def total(self, among: int) -> int:
        """The sum of these counters."""
        return sum((plane & among).bit_count() << place for place, plane in enumerate(self._planes) if plane)

    def of(self, unit: int) -> int:
        """The counter of one unit."""
        return sum((plane >> unit & 1) << place for place, plane in enumerate(self._planes))
