"""Progress on stderr: a bar on a terminal, otherwise a line every ten seconds, nothing at all with --quiet or --json."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

from replicad.cli.output import Output, size

LINE_EVERY_S = 10.0


class Progress:
    """A context manager. ``advance`` and ``show`` may be called from any thread. ``begun_s``: by the monotonic clock, if that was before now."""

    def __init__(self, out: Output, label: str, *, total_bytes: int, begun_s: float | None = None) -> None:
        self._out = out
        self._label = label
        self._total = total_bytes
        self._done = 0
        self._note = ""
        self._lock = threading.Lock()
        self._line_due_s = (time.monotonic() if begun_s is None else begun_s) + LINE_EVERY_S
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._out.live:
            from rich.console import Console  # noqa: PLC0415 - rich is imported on a terminal only
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True, no_color=not self._out.color), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += count
            self._draw()

    def show(self, done: int, note: str) -> None:
        """So many bytes in all, and a few words."""
        with self._lock:
            self._done, self._note = done, note
            self._draw()

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self._note)
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + LINE_EVERY_S
            percent = 100 * self._done // self._total if self._total else 100
            self._out.talk(f"{self._label}: {percent} %, {size(self._done)} of {size(self._total)}" + (f", {self._note}" if self._note else ""))
