"""Token buckets: never more than the rate and one bucket, nothing lost to waiting, nobody forgotten, whatever is asked when."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.protocol.throttle import BUCKET_BYTES_MIN, BUCKET_S, Stream, Throttle

MB = 10**6
KEYS = ("", "site:syd1", "bob", "eve")


def bucket_bytes(rate: int) -> float:
    """What one bucket of that rate holds at most."""
    return max(rate * BUCKET_S, BUCKET_BYTES_MIN) if rate else 0.0


@dataclass
class Traffic:
    """Streams that always want more, on a clock that comes late."""

    throttle: Throttle
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = 1000.0
    moved: list[tuple[float, Stream, int]] = field(default_factory=list)

    def stream(self, *keys: str) -> Stream:
        stream = self.throttle.enter(keys)
        self.throttle.ask(stream, 1 << 40)
        return stream

    def run(self, seconds: float, *, late_s: float = 0.0) -> None:
        """Until then; every due time is met up to ``late_s`` too late."""
        end = self.now + seconds
        while True:
            while found := self.throttle.due(self.now):
                for stream, granted in found:
                    self.moved.append((self.now, stream, granted))
                    self.throttle.ask(stream, 1 << 40)
            deadline = self.throttle.next_deadline()
            if deadline is None or deadline > end:
                self.now = end
                return
            assert deadline > self.now
            self.now = min(deadline + self.dice.random() * late_s, end)

    def bytes(self, *, key: str = "", since: float = 0.0) -> int:
        return sum(granted for at, stream, granted in self.moved if key in stream.keys and at >= since)


@pytest.mark.parametrize("rate", [20_000, 5 * MB, 100 * MB])
@pytest.mark.parametrize("streams", [1, 3, 40])
def test_a_busy_bucket_gives_its_rate_and_no_more(rate: int, streams: int) -> None:
    traffic = Traffic(Throttle())
    traffic.throttle.set({"": rate}, traffic.now)
    for _ in range(streams):
        traffic.stream("")
    traffic.run(5.0, late_s=0.01)
    assert 0.95 * 5 * rate - bucket_bytes(rate) / 4 <= traffic.bytes() <= 5 * rate + 1
    if streams > 1:
        shares = Counter[Stream]()
        for _, stream, granted in traffic.moved:
            shares[stream] += granted
        assert max(shares.values()) <= 1.2 * min(shares.values()) + bucket_bytes(rate), "one stream gets what belongs to others"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sets(st.sampled_from(KEYS), min_size=1)),
        st.tuples(st.just("ask"), st.integers(0, 7), st.integers(1, 3 * MB)),
        st.tuples(st.just("wait"), st.floats(0.0, 2.0)),
        st.tuples(st.just("leave"), st.integers(0, 7)),
        st.tuples(st.just("due")),
    ),
    max_size=60,
)


@given(rates=st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0, 16_384, 100_000, 5 * MB]), min_size=1), steps=steps)
def test_in_no_interval_more_than_the_rate_and_one_bucket(rates: dict[str, int], steps: list[tuple]) -> None:  # type: ignore[type-arg]
    throttle, now = Throttle(), 500.0
    throttle.set(rates, now)
    streams: list[Stream] = []
    waiting: dict[Stream, int] = {}
    moved: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def due() -> None:
        for stream, granted in throttle.due(now):
            assert 1 <= granted <= waiting.pop(stream)
            for key in stream.keys:
                moved[key].append((now, granted))

    for name, *arguments in steps:
        if name == "enter":
            streams.append(throttle.enter(tuple(sorted(arguments[0]))))
        elif name == "wait":
            now += arguments[0]
        elif name == "ask" and arguments[0] < len(streams) and streams[arguments[0]] not in waiting:
            waiting[streams[arguments[0]]] = arguments[1]
            throttle.ask(streams[arguments[0]], arguments[1])
        elif name == "leave" and arguments[0] < len(streams):
            stream = streams.pop(arguments[0])
            waiting.pop(stream, None)
            throttle.leave(stream)
        due()
    for key, rate in rates.items():
        for first in range(len(moved[key])):
            total = 0
            for at, granted in moved[key][first:]:
                total += granted
                assert total <= rate * (at - moved[key][first][0]) + bucket_bytes(rate) + 1
    for stream in waiting:
        limited = [rates[key] for key in stream.keys if key in rates]
        assert limited, "a stream without a limit waits"
        if 0 not in limited:
            assert throttle.next_deadline() is not None, "somebody waits and nobody will look again"


@pytest.mark.parametrize("streams", [1, 3, 12])
@pytest.mark.parametrize("late_s", [0.0, 0.004])
def test_what_one_cannot_use_others_get(seed: int, streams: int, late_s: float) -> None:
    traffic = Traffic(Throttle(), random.Random(seed))
    traffic.throttle.set({"": MB, "bob": 50_000}, traffic.now)
    for _ in range(streams):
        traffic.stream("", "bob")
    traffic.stream("", "eve")
    traffic.run(8.0, late_s=late_s)
    assert traffic.bytes(key="bob") <= 8 * 50_000 + 1
    assert traffic.bytes() <= 8 * MB + 1
    assert traffic.bytes() >= 8 * MB * 0.97 - bucket_bytes(MB), "a slow peer holds up the others"


def test_whoever_was_away_finds_one_bucket() -> None:
    traffic = Traffic(Throttle())
    traffic.throttle.set({"": MB}, traffic.now)
    traffic.now += 3600.0
    for _ in range(8):
        traffic.stream("")
    traffic.run(0.0)
    assert 0.8 * bucket_bytes(MB) <= traffic.bytes() <= bucket_bytes(MB)


def test_many_little_ones_do_not_keep_a_big_one_waiting() -> None:
    throttle, now = Throttle(), 0.0
    throttle.set({"": MB}, now)
    big, little = throttle.enter(("",)), [throttle.enter(("",)) for _ in range(3)]
    throttle.ask(big, 1 << 40)
    while now < 1.0:
        now += 0.001
        for stream in little:
            throttle.ask(stream, 200)
        if any(stream is big for stream, _ in throttle.due(now)):
            break
    assert now <= 0.1, "what a bucket held was always given to who needed less"


def test_zero_is_a_pause_and_a_change_counts_at_once() -> None:
    traffic = Traffic(Throttle())
    stream = traffic.stream("", "bob")
    traffic.throttle.set({"": 0}, traffic.now)
    traffic.run(60.0)
    assert not traffic.moved
    assert traffic.throttle.next_deadline() is None
    traffic.throttle.set({"": 5 * MB}, traffic.now)
    traffic.run(10.0)
    assert 0.97 * 50 * MB <= traffic.bytes() <= 50 * MB + 1
    traffic.throttle.set({"": MB}, traffic.now)
    changed = traffic.now
    traffic.run(10.0)
    assert traffic.bytes(since=changed) <= 10 * MB + bucket_bytes(MB)
    traffic.throttle.set({}, traffic.now)
    assert traffic.throttle.due(traffic.now) == [(stream, 1 << 40)], "no limit, no waiting"


def test_nothing_is_granted_in_bursts() -> None:
    traffic = Traffic(Throttle())
    traffic.throttle.set({"": 5 * MB}, traffic.now)
    for _ in range(16):
        traffic.stream("")
    traffic.run(5.0)
    times = [at for at, _, _ in traffic.moved]
    assert max(granted for _, _, granted in traffic.moved) <= 5 * MB * BUCKET_S / 16
    assert max(after - before for before, after in pairwise(times)) <= 0.05
