"""Rules of the transfer (invariants of section 9 of the design), each with a way to break it in the source and the tests that must notice. ``bench mutations`` breaks them one at a time."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """``invariant`` no longer holds when, in ``file``, ``old`` (which stands there once) becomes ``new``: then ``test`` goes red."""

    invariant: str
    broken: str
    file: str
    old: str
    new: str
    test: str


FETCH = "replicad/protocol/fetch/"
PARTIALS, CHECKING, PROVIDER = "replicad/store/partials.py", "replicad/store/checking.py", "replicad/services/fetch/provider.py"
SAVED = "replicad/services/fetch/partials.py"
SWARM, SITES, TROUBLE, PACK = (f"tests/fetch/test_fetch_{name}.py" for name in ("swarm", "sites", "trouble", "pack"))
STORE = "tests/store/test_store_partials.py"
RESUME, BOUNDS, TRANSFER = (f"tests/peers_data/test_peers_data_{name}.py" for name in ("resume", "bounds", "transfer"))
THROTTLE, LEAVE = (f"tests/limits/test_limits_{name}.py" for name in ("throttle", "sockets"))
CRASH = f"{RESUME}::test_a_crash_costs_at_most_what_was_not_safe_yet"
UNSAFE = f"{RESUME}::test_writers_wait_while_as_much_as_a_crash_may_cost_is_not_safe"
SOON = f"{SWARM}::test_the_last_node_has_it_soon_after_the_first_copy"
COPIES = f"{SITES}::test_about_one_copy_crosses_the_wan_to_each_site"
RATES = f"{THROTTLE}::test_a_busy_bucket_gives_its_rate_and_no_more"

RULES = (
    Rule(
        "I1",
        "chunks are not compared with the manifest",
        PARTIALS,
        "if is_good(manifest, index, chunk):",
        "if True:",
        f"{STORE}::test_bad_chunks_do_not_count_and_are_not_written",
    ),
    Rule(
        "I1",
        "after a chunk the state is not compared with the manifest",
        CHECKING,
        "return self._hash.state == self._manifest.state_after(self._index)",
        "return True",
        f"{STORE}::test_bad_chunks_do_not_count_and_are_not_written",
    ),
    Rule(
        "I1",
        "after the last chunk the state is not compared with the content's hash",
        CHECKING,
        "self._manifest.content if self._by_states else ",
        "",
        f"{STORE}::test_a_manifest_that_contradicts_itself_is_found_out_by_the_first_chunk_that_shows_it",
    ),
    Rule(
        "I1",
        "the whole is not compared with the content's hash",
        PARTIALS,
        "if whole != self.manifest.content:",
        "if False:",
        f"{STORE}::test_a_manifest_that_lies_about_the_content_leaves_no_trace",
    ),
    Rule(
        "I1",
        "what is not verified yet is served",
        PROVIDER,
        "if sets.run(extent.first, extent.count) & ~verified:",
        "if False:",
        f"{TRANSFER}::test_a_node_serves_what_it_has_while_it_is_still_fetching",
    ),
    Rule(
        "I9",
        "a bitmap is handed out without a sync",
        PARTIALS,
        "self._disk.sync(self.fd)",
        "pass",
        f"{STORE}::test_no_bit_is_handed_out_before_its_bytes_were_synced",
    ),
    Rule(
        "I9",
        "what a failed sync lost still counts",
        PARTIALS,
        "self._group += 1\n        self._forget(self._safe)",
        "self._group += 1",
        f"{STORE}::test_a_failed_sync_discards_what_came_since_the_last_good_one",
    ),
    Rule(
        "I9",
        "what was written during a sync is promised",
        PARTIALS,
        "self._safe = safe\n                return safe",
        "return bytes(self.have)",
        f"{STORE}::test_what_is_written_during_a_sync_is_not_promised",
    ),
    Rule("I10", "bitmaps are not saved", SAVED, "await self._catalog.save_partials(unfinished)", "pass", CRASH),
    Rule("I10", "a group may be of any size", SAVED, "if sum(self._dirty.values()) >= GROUP_BYTES:", "if False:", UNSAFE),
    Rule(
        "I10", "nobody waits for what is not safe", SAVED, "while self._unsafe_bytes and self._unsafe_bytes + size > UNSAFE_BYTES_MAX:", "while False:", UNSAFE
    ),
    Rule(
        "I11",
        "any number of bytes is asked for at once",
        FETCH + "flights.py",
        "return most - self.bytes if self._requests else 1 << 62",
        "return 1 << 62",
        f"{SWARM}::test_bounds_hold_under_any_load",
    ),
    Rule(
        "I11",
        "any number of requests waits",
        FETCH + "turns.py",
        "if node in self._waiting:\n            return Turn.BUSY",
        "",
        f"{BOUNDS}::test_one_request_waits_visibly_the_next_hears_busy",
    ),
    Rule(
        "I11",
        "a peer may watch without end",
        FETCH + "supply.py",
        "len(watches) >= WATCHES_PER_PEER_MAX",
        "False",
        f"{BOUNDS}::test_memory_stays_bounded_when_a_peer_watches_and_seeks_without_end",
    ),
    Rule(
        "I12", "nobody owns what crosses the WAN", FETCH + "jobs.py", "if self.owners is None or self.awaited or node in self.owners.near:", "if True:", COPIES
    ),
    Rule(
        "I12",
        "at the end also those who are far are asked twice",
        FETCH + "dispatch.py",
        "if isinstance(job, ContentJob) and job.owners is not None and peer.node not in job.owners.near:",
        "if False:",
        f"{SITES}::test_what_comes_from_another_site_is_asked_for_twice_only_when_it_is_overdue",
    ),
    Rule(
        "I12",
        "an owner is never skipped",
        FETCH + "owners.py",
        "elif now - since >= patience_s:",
        "elif False:",
        f"{SITES}::test_an_owner_that_stands_still_is_skipped_and_a_waiting_client_waits_for_no_owner",
    ),
    Rule(
        "I13",
        "nothing is suggested",
        FETCH + "supply.py",
        "if watcher.near and len(watched.watchers) > 1 else 0",
        "if False else 0",
        "tests/fetch/test_fetch_supply.py::test_several_who_fetch_the_same_are_each_suggested_other_chunks_and_one_alone_is_not",
    ),
    Rule("I13", "everybody takes the chunks in order", FETCH + "jobs.py", "if not self.rivals:", "if True:", SOON),
    Rule(
        "I13",
        "chunks are served only when all are here",
        FETCH + "supply.py",
        "watched.count, watched.servable = event.count, event.chunks\n        self._stale",
        "watched.count, watched.servable = event.count, event.chunks if event.chunks == sets.full(event.count) else 0\n        self._stale",
        SOON,
    ),
    Rule(
        "I13",
        "the expected time of completion does not matter",
        FETCH + "dispatch.py",
        "if not self._worthwhile(job, peer, units, size_bytes=size_bytes):",
        "if False:",
        f"{TROUBLE}::test_a_slow_peer_is_asked_only_for_what_the_others_would_not_have_brought_long_before",
    ),
    Rule(
        "I13",
        "a silent peer is noticed only when something else happens",
        FETCH + "dispatch.py",
        "self.due = at if self.due is None else min(self.due, at)",
        "pass",
        f"{TROUBLE}::test_the_last_chunks_of_a_silent_peer_are_asked_of_another_before_they_are_overdue",
    ),
    Rule(
        "I13",
        "the last small contents are waited for",
        FETCH + "dispatch.py",
        "if not there or job.unasked",
        "if not there or isinstance(job, PackJob) or job.unasked",
        f"{TROUBLE}::test_the_last_small_contents_are_asked_of_others_when_one_peer_is_slow_with_them",
    ),
    Rule(
        "I13",
        "batches are large from the first to the last",
        FETCH + "dispatch.py",
        "min(max(grain, BATCH_BYTES), job.part_bytes, self._config.bytes_in_flight_max)",
        "min(max(grain, BATCH_BYTES), self._config.bytes_in_flight_max)",
        f"{PACK}::test_batches_begin_small_grow_with_what_came_and_end_small",
    ),
    Rule(
        "I13",
        "everybody is given small contents at once",
        FETCH + "firsts.py",
        "first != node and self._is_fresh(first, since, now)",
        "False",
        f"{SWARM}::test_in_a_large_network_the_only_holder_of_small_contents_sends_each_about_once_and_nobody_waits_in_vain",
    ),
    Rule(
        "I13",
        "what another was given is waited for as long as its holder likes",
        FETCH + "pack.py",
        "self.late | self.deferred.in_vain | self.awaited_next",
        "self.late | self.awaited_next",
        f"{PACK}::test_what_another_was_just_given_is_waited_for_once_and_then_asked_for_firmly",
    ),
    Rule(
        "I13",
        "clients wait for what another was given",
        FETCH + "pack.py",
        "self.late | self.deferred.in_vain | self.awaited_next",
        "self.late | self.deferred.in_vain",
        f"{PACK}::test_whoever_a_client_waits_for_is_not_told_to_wait",
    ),
    Rule("I15", "what was granted is not deducted", "replicad/protocol/throttle.py", "bucket.tokens -= granted", "pass", RATES),
    Rule(
        "I15",
        "a bucket has no brim",
        "replicad/protocol/throttle.py",
        "min(self.capacity, self.tokens + self.rate * max(0.0, now - self.since))",
        "self.tokens + self.rate * max(0.0, now - self.since)",
        f"{THROTTLE}::test_whoever_was_away_finds_one_bucket",
    ),
    Rule(
        "I15",
        "what is received needs no leave",
        "replicad/net/pace.py",
        "return nullcontext() if urgent else self.down",
        "return nullcontext() if True else self.down",
        f"{LEAVE}::test_every_byte_that_is_received_has_leave",
    ),
    Rule(
        "I16",
        "nobody is banned",
        FETCH + "conduct.py",
        "if len(record.strikes) < STRIKES_MAX or",
        "if True or",
        f"{SWARM}::test_a_liar_is_banned_and_the_content_comes_from_the_honest_peer",
    ),
    Rule(
        "I16",
        "nobody else is asked for what is late",
        FETCH + "plan.py",
        "request.job.overdue(request.mask)",
        "pass",
        f"{SITES}::test_what_comes_from_another_site_is_asked_for_twice_only_when_it_is_overdue",
    ),
    Rule(
        "I16",
        "who lacks what it said it has is asked for it again",
        FETCH + "plan.py",
        "if absent or event.fault is Fault.ABSENT:",
        "if False:",
        f"{TROUBLE}::test_who_lacks_what_it_said_it_has_is_not_asked_for_that_again",
    ),
    Rule(
        "I16",
        "bad chunks count",
        FETCH + "plan.py",
        "job.got(good)\n        if absent",
        "job.got(request.mask)\n        if absent",
        f"{SWARM}::test_one_honest_holder_is_enough_when_all_others_lie",
    ),
)
