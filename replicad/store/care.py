"""How content on the disk is cared for: the bounds of the services scrub and collect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """``interval_s``: each blob is read once in that time (30 days: the habit for RAID arrays and ZFS pools). ``rate``: at most so many bytes per second (a tenth of what a slow disk gives)."""

    enabled: bool = True
    interval_s: float = 30 * 86_400.0
    rate: int = 16_000_000


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """``grace_s``: for so long content stays after its last reference (30 days: time to notice a wrong removal). ``versions``: so many older contents of a name that has a living one are kept for rollback."""

    grace_s: float = 30 * 86_400.0
    versions: int = 3
