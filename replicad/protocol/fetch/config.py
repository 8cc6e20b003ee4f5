"""The bounds and times of fetching, each with where it comes from. Plain values: ``config`` composes them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """What a node asks for, and what it gives, at once.

    ``contents_max`` large contents are fetched at once, besides those that clients wait for (``AWAITED_MAX``). ``requests_per_peer`` run at once with one peer. ``bytes_in_flight_max`` bounds the buffers of all requests together (a single chunk
    is always allowed). ``extent_bytes_max``: ranges of 4 to 8 MiB beat 1 MiB by 15 %, more gains nothing (measured on loopback).

    ``uploads_max`` answers are given at once and ``uploads_per_peer`` to one peer, or its share where many ask; one more of each peer waits visibly, the rest hear "busy". Few at once, because a swarm spreads a chunk only
    when it has arrived whole. An answer older than ``upload_patience_s`` no longer keeps others waiting, so that slow receivers cannot block fast ones.
    """

    contents_max: int = 4
    requests_per_peer: int = 4
    bytes_in_flight_max: int = 32 * MIB
    extent_bytes_max: int = 8 * MIB
    uploads_max: int = 16
    uploads_per_peer: int = 4
    upload_patience_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("contents_max", "requests_per_peer", "bytes_in_flight_max", "extent_bytes_max", "uploads_max", "uploads_per_peer"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


EXTENT_S = 0.25
"""Aim of one request: a quarter of a second of that peer's rate; with four at once each then takes 0.2 to 1 s."""
LIMITED_S = 1.0
"""Under a limit of our own no more is asked for at once than it lets through in a second (but one chunk always): what is asked for later can still be chosen, and nothing waits in buffers."""
FIRST_REQUEST_BYTES = MIB
"""Asked of a peer whose rate is not known yet."""
FIRST_REQUESTS = 2
"""At once with such a peer."""
RATE_GUESS = MIB
"""Bytes per second assumed for it when its answer becomes overdue: 8 Mbit/s, a slow office uplink."""
OVERDUE_S_MIN = 2.0
OVERDUE_FACTOR = 4.0
"""A request is overdue after max(2 s, 4 x expected): then somebody else may be asked as well."""
MISS_S = 5.0
MISS_FACTOR = 3.0
"""An owner who has brought nothing to the site for max(5 s, 3 x expected) is skipped (docs/protocol.md, "Several sites")."""
COPIES_MAX = 3
"""Requests for one unit at the same time, the first included."""
BATCH_BYTES_MAX = 16 * MIB
STRIKES_MAX = 3
STRIKES_WINDOW_S = 600.0
BAN_S = 3600.0
"""Three offences in ten minutes cost an hour (docs/protocol.md, "Blobs and manifests")."""
SUSPICION_S = 2.0
"""How long a body that ended early stays without blame: a peer that was killed ends all its answers early, but its link goes down at the same time; over a network that breaks connections others come whole."""
BACKOFF_S = 0.5
BACKOFF_S_MAX = 60.0
BUSY_S = 0.1
"""Simulated with messages that take 20 ms, 8 nodes: 1.097 x the bound, 1.100 x with 0.2 s."""
SLOW_FRACTION = 0.25
SLOW_S = 10.0
"""Below a quarter of the median rate for ten seconds: demoted to one request at a time."""
SEEKING_MAX = 64
"""Large contents whose holders are looked for at once; so many interests of one peer are remembered (twice that)."""
MAKE_WAY_S = 5.0
"""So often, at most, what a peer was asked for is given up because a client waits for something else of it: that costs at most what is under way with one peer, EXTENT_S for each request (a guess)."""
MAKE_WAY_FACTOR = 4.0
"""Nor before so many times as long as that had been under way: on a slow line, where a single chunk takes longer, no more than a fifth comes in vain (a guess)."""
AWAITED_MAX = 64
"""Contents that clients wait for and that go before all others for it."""
PACK_MAX = 2048
"""Small contents looked for at once; twice that of one peer are remembered."""
GIVEN_S = 10.0
"""What its only holder just gave to another is not given to others for so long, and nobody waits longer for it. Simulated, 2,000 files of 64 KiB, 8 nodes at 25 Mbit/s that get uneven parts of the source's uplink: with 2 s 1.28 x F/u, with 5 s 1.19, without bound 1.18."""
BATCH_BYTES = MIB
"""A batch asks for at least so much if there is so much, however slow the peer seems to be: what a request costs, thousands of small files must share."""
BATCH_BYTES_LEAST = MIB // 4
"""It asks for less as long as little has come, since others wait for something to pass on, and when little is left, since others wait for the last to come; but at least for so much. Simulated, 2,000 files of 64 KiB, x F/u,
when owners were computed, who also took over from each other (docs/adr/0010-small-files-in-groups.md): 4 nodes 1.135 -> 1.099, 8 nodes 1.169 -> 1.108, 16 nodes 1.356 -> 1.196, for 127, 180 and 234 requests a node instead of 110, 138 and 142."""
STALLED_S = 30.0
"""What nobody has for so long lets others have its place."""
LOOKED_S = 5.0
"""Or already after so long, if those were not looked for yet: whoever has something says so after a round trip (a guess)."""
RENEW_S = 30.0
"""Interest in contents without a known holder is repeated that often: rights may have changed at the other side."""
FRESH_S = 0.05
"""A chunk that none of those who want it has is told at once, what follows it is gathered for so long."""
HAVE_S = 0.3
"""What somebody else tells as well is gathered for so long, unless fresh news goes out before. Simulated, messages of 20 ms, against 0.15 s for all news: 16 nodes 14,400 -> 11,300 messages, 32 nodes 16,800 ->
11,300, at the same times; 255 nodes 144,000 -> 91,000 and 1.20 -> 1.23 x the bound, with 0.5 s 60,000 and 1.30 x."""
HOLD_S = 0.15
"""News of small contents is gathered for so long. Simulated: 2,000 files to 8 nodes in 6.6 s with 0.1 s, in 6.8 s with 0.2 s."""
SPREAD_S = OVERDUE_S_MIN
"""A source that has everything gives nobody a chunk that another got first so short a time ago, as one that is asked for a second time only when the first request is overdue. Simulated, 8 nodes, 256 chunks: 1.001
copies from the source instead of 1.075, and 1.069 x the bound instead of 1.078 x."""
SUGGESTED_MAX = 16
SUGGESTED_MIN = 2
SUGGESTED_SHARE = 6
"""Chunks suggested to one watcher and not yet asked for: a sixth of its fair share of the content, within these bounds. More, and what is promised to one who comes to it late is missing to all: a third and at
least four cost 16 nodes 1.18 x the bound instead of 1.13 x (simulated)."""
SUGGESTED_RUN = 2
"""Neighbouring chunks suggested together, so that extents form. Simulated, 256 chunks: last of 8 nodes at 1.12 x the bound, of 32 at 1.32 x; without suggestions 1.18 x and 1.5 x."""
SUGGESTED_WINDOW = 32
"""Suggested are those at the beginning of what was given least. Simulated, 16 nodes, 256 chunks: 1.003 copies from the source, 1.012 when they are picked from all."""
