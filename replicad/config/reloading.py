"""Reading the configuration again while the daemon runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replicad.config.loading import Config, load
from replicad.server.admin import nouns
from replicad.server.admin.services import Reloaded
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable

log = get(__name__)

LIVE = ("log.", "limits.")
"""Keys that can change while the daemon runs begin so."""


class Reloading:
    """``apply`` makes the values of live keys count."""

    def __init__(self, config: Config, apply: Callable[[Config], None]) -> None:
        self._started = self._config = config
        self._apply = apply

    def reload(self) -> Reloaded:
        """Apply what can change; the keys that need a restart are those that are not as they were at the start. Raises ConfigurationError; then nothing has changed."""
        newer = load(self._config.path, os.environ)
        applied = [key for key in self._config.changes(newer) if key.startswith(LIVE)]
        rest = [key for key in self._started.changes(newer) if not key.startswith(LIVE)]
        self._apply(newer)
        self._config = newer
        if applied:
            log.info("these changed keys count now", keys=",".join(applied))
        if rest:
            log.warning("these changed keys need a restart", keys=",".join(rest))
        return Reloaded(applied, rest)

    def settings(self) -> nouns.Settings:
        """What counts now: the live keys as they were read last, the others as they were at the start."""
        rows = [newer if newer.key.startswith(LIVE) else started for newer, started in zip(self._config.rows(), self._started.rows(), strict=True)]
        return nouns.Settings(str(self._config.path), [nouns.Setting(row.key, row.text, row.origin) for row in rows])
