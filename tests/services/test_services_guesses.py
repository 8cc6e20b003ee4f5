"""How often somebody may try to log in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.services.identity import guesses
from replicad.services.identity.guesses import FREE, Guesses


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def waits(tries: Guesses, clock: Clock, count: int, name: str = "jane", address: str = "192.0.2.1") -> list[float]:
    """Of so many wrong ones, each as early as it may be."""
    found = []
    for _ in range(count):
        wait_s = tries.take(name, address)
        found.append(wait_s)
        clock.now_s += wait_s
        if wait_s:
            assert tries.take(name, address) == 0.0
    return found


def test_each_wrong_one_doubles_the_wait_up_to_five_minutes(clock: Clock) -> None:
    assert waits(Guesses(clock), clock, 16) == [0.0] * FREE["name"] + [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]


def test_many_names_from_one_address(clock: Clock) -> None:
    tries = Guesses(clock)
    found = [tries.take(f"user{i}", "192.0.2.1") for i in range(FREE["address"] + 1)]
    assert (set(found[:-1]), found[-1]) == ({0.0}, 1.0)
    assert tries.take("user0", "192.0.2.2") == 0.0, "another address"


@pytest.mark.parametrize(
    ("one", "other", "same"), [("2001:db8::1", "2001:db8::ffff:2", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("socket", "socket", True)]
)
def test_which_addresses_are_one(clock: Clock, one: str, other: str, same: bool) -> None:
    tries = Guesses(clock)
    for number in range(FREE["address"]):
        tries.take(f"user{number}", one)
    assert (tries.take("jane", other) > 0) == same


def test_a_right_one_forgives_the_name_but_not_the_address(clock: Clock) -> None:
    tries = Guesses(clock)
    for _ in range(FREE["name"] - 1):
        assert tries.take("jane", "192.0.2.1") == 0.0
    assert tries.take("JANE", "192.0.2.1") == 0.0
    tries.right("jane", "192.0.2.1")
    assert waits(tries, clock, FREE["name"]) == [0.0] * FREE["name"]
    for number in range(FREE["address"] - 2 * FREE["name"] + 1):
        assert tries.take(f"user{number}", "192.0.2.1") == 0.0
    assert tries.take("other", "192.0.2.1") > 0, "what was guessed from there counts on"


def test_who_guesses_at_a_name_keeps_it_out_nowhere_where_it_logged_in_lately(clock: Clock) -> None:
    tries = Guesses(clock)
    assert tries.take("jane", "2001:db8::1") == 0.0
    tries.right("jane", "2001:db8::1")
    waits(tries, clock, 16)
    assert tries.take("jane", "192.0.2.1") == tries.take("jane", "192.0.2.3") == guesses.WAIT_S_MAX
    assert tries.take("JANE", "2001:db8::2") == 0.0
    tries.right("jane", "2001:db8::2")
    assert tries.take("jane", "192.0.2.3") == guesses.WAIT_S_MAX, "her logins are no help to whoever guesses"
    clock.now_s += guesses.KNOWN_S - 1.0
    assert [tries.take("jane", "192.0.2.1") for _ in range(FREE["name"] + 1)] == [0.0] * FREE["name"] + [1.0]
    assert tries.take("jane", "2001:db8::1") == 0.0
    clock.now_s += 1.0
    assert tries.take("jane", "192.0.2.1") == 0.0
    assert tries.take("jane", "2001:db8::1") > 0, "after thirty days it is an address like any other"


def test_where_a_name_is_known_guesses_at_it_are_bounded_alike(clock: Clock) -> None:
    tries = Guesses(clock)
    tries.right("jane", "192.0.2.1")
    assert waits(tries, clock, 16)[FREE["name"] :] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert waits(tries, clock, 1, "bob") == [0.0], "it is known to jane alone"


def test_what_is_refused_does_not_count(clock: Clock) -> None:
    tries = Guesses(clock)
    waits(tries, clock, FREE["name"])
    assert [tries.take("jane", "192.0.2.1") for _ in range(50)] == [1.0] * 50
    assert tries.take("bob", "192.0.2.1") == 0.0


def test_after_an_hour_all_is_forgotten(clock: Clock) -> None:
    tries = Guesses(clock)
    waits(tries, clock, 16)
    clock.now_s += guesses.FORGOTTEN_S
    assert waits(tries, clock, FREE["name"]) == [0.0] * FREE["name"]


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "KEPT_MAX", 10)
    tries = Guesses(clock)
    for number in range(50):
        tries.take(f"user{number}", f"192.0.2.{number}")
        tries.right(f"known{number}", f"192.0.2.{number}")
    assert len(tries._wrong) == len(tries._known) == 10


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 100)), max_size=200))
def test_no_more_than_the_free_ones_and_one_per_wait(steps: list[tuple[str, str, float]]) -> None:
    """Whatever the order: a name never gets more wrong tries in a time than the schedule of waits allows."""
    clock = Clock()
    tries, begun_s, made = Guesses(clock), clock.now_s, {"a": 0, "b": 0}
    for name, address, pause_s in steps:
        clock.now_s += pause_s
        made[name] += tries.take(name, address) == 0.0
    allowed, at_s = FREE["name"], begun_s
    while (at_s := at_s + min(2.0 ** (allowed - FREE["name"]), guesses.WAIT_S_MAX)) <= clock.now_s:
        allowed += 1
    assert max(made.values()) <= allowed
