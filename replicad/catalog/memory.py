"""What of the catalog is kept in memory besides the replica: which contents are held, and the names asked for last. Both bounded in bytes per row, both for the event loop's thread."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from replicad.catalog.rows import add_all, for_all
from replicad.model.entries import Listed
from replicad.model.ids import Digest

SHOWN_MAX = 4096
"""Names remembered, about 1 KB each. A guess: the files that clients ask for again and again are hundreds."""


class HeldSet:
    """The digests and sizes of everything held. In SQLite's own memory: 50 bytes a digest instead of the 150 of a Python dictionary, 2 to 4 microseconds a question, 0.5 of many at once."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute("CREATE TABLE held (content BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID")
        self._loading = threading.Lock()

    def load(self, catalog: sqlite3.Connection) -> None:
        """Take over what the catalog's table says; the only call that may come from another thread, before anybody else uses the set."""
        with self._loading:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT INTO held VALUES (?, ?)", catalog.execute("SELECT content, size_bytes FROM held"))
            self._connection.execute("COMMIT")

    def __contains__(self, content: Digest) -> bool:
        return self._connection.execute("SELECT 1 FROM held WHERE content = ?", (content,)).fetchone() is not None

    def sizes(self, contents: Sequence[Digest]) -> dict[Digest, int]:
        """The sizes in bytes of those of them that are held."""
        return dict(for_all(self._connection, "SELECT content, size_bytes FROM held WHERE content IN (?)", contents))

    def add(self, contents: Iterable[tuple[Digest, int]]) -> None:
        """They are held now, each with its size."""
        add_all(self._connection, "INSERT OR IGNORE INTO held VALUES (?, ?)", list(contents))

    def discard(self, content: Digest) -> None:
        """It is not held now."""
        self._connection.execute("DELETE FROM held WHERE content = ?", (content,))

    def close(self) -> None:
        """Give the memory back. Waits for ``load``: closing under it would crash the process (a start that is cancelled twice does not wait for the connections' threads)."""
        with self._loading:
            self._connection.close()


class Shown:
    """Answers of ``visible`` by (share, key), the least recently asked dropped first.

    ``era`` counts what made answers doubtful: an answer that was read in an earlier era than the current one is not remembered, so that a slow read never brings back an older winner.
    """

    def __init__(self) -> None:
        self.era = 0
        self._answers: OrderedDict[tuple[str, str], Listed | None] = OrderedDict()

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self._answers

    def recall(self, share: str, key: str) -> Listed | None:
        """The remembered answer."""
        self._answers.move_to_end((share, key))
        return self._answers[share, key]

    def remember(self, share: str, key: str, listed: Listed | None, *, era: int) -> None:
        """Keep an answer whose reading began in that era."""
        if era != self.era:
            return
        self._answers[share, key] = listed
        if len(self._answers) > SHOWN_MAX:
            self._answers.popitem(last=False)

    def forget(self, share: str, keys: Iterable[str]) -> None:
        """These names may be different now."""
        self.era += 1
        for key in keys:
            self._answers.pop((share, key), None)

    def forget_all(self) -> None:
        """Everything may be different now."""
        self.era += 1
        self._answers.clear()
