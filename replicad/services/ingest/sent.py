"""Who sent which contents that have no name yet. A hash is no secret, so a caller who may not see everything names by hash only what it sent itself, or may see."""

from __future__ import annotations

from collections.abc import Iterable

from replicad.model.callers import Caller
from replicad.model.ids import Digest

SENT_MAX = 200_000
"""Remembered at once: two of the largest publications, about 30 MB."""


class Sent:
    """In memory: after a restart, and when SENT_MAX is reached for the oldest of whoever sent most, a content must be sent again."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Digest, None]] = {}
        self._count = 0

    def add(self, caller: Caller, contents: Iterable[Digest]) -> None:
        """The caller has sent these. Of one that is not limited nothing needs to be remembered."""
        if not caller.limited:
            return
        own = self._of.setdefault(caller.name, {})
        before = len(own)
        own |= dict.fromkeys(contents)
        self._count += len(own) - before
        while self._count > SENT_MAX:
            most = max(self._of, key=lambda name: len(self._of[name]))
            self.discard(most, list(self._of[most])[: self._count - SENT_MAX])

    def by(self, caller: Caller) -> frozenset[Digest]:
        """What is remembered of the caller."""
        return frozenset(self._of.get(caller.name, ()))

    def discard(self, name: str, contents: Iterable[Digest]) -> None:
        """Of the caller of that name these need not be remembered: they have names now, which show them to it."""
        own = self._of.get(name, {})
        for content in contents:
            if content in own:
                del own[content]
                self._count -= 1
        if not own:
            self._of.pop(name, None)
