"""Structured logs on stderr: a constant sentence plus named fields, as text for people or as JSON Lines for collectors.

    log = get(__name__)
    log.info("link up", peer=node.short, elapsed_s=0.2)

The sentence never contains a value, so that it can be searched and counted; the values are fields. Never keys, tokens or payloads. Under systemd (``JOURNAL_STREAM``) the text form
leaves the time to the journal and gives each line its priority (sd-daemon(3), "<N>" prefix). Third-party libraries that use ``logging`` come out in the same form, from WARNING up.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]
ROOT = "replicad"
SELDOM_S = 60.0
"""At most one line a minute for each key of ``Log.seldom``: a guess; an operator must see that it goes on, a disk must not fill."""
SELDOM_KEYS_MAX = 1000
FIELD_CHARACTERS_MAX = 500
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Log:
    """One module's log. Fields are any values with a short ``str()``; longer ones are cut at ``FIELD_CHARACTERS_MAX``."""

    __slots__ = ("_logger", "_monotonic", "_seldom")

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._logger = logging.getLogger(name)
        self._monotonic = monotonic
        self._seldom: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def debug(self, sentence: str, **fields: object) -> None:
        """What a developer follows."""
        self._write(logging.DEBUG, sentence, fields)

    def info(self, sentence: str, **fields: object) -> None:
        """What an operator reads: a handful of lines a day."""
        self._write(logging.INFO, sentence, fields)

    def warning(self, sentence: str, **fields: object) -> None:
        """Something is wrong and the program copes."""
        self._write(logging.WARNING, sentence, fields)

    def error(self, sentence: str, **fields: object) -> None:
        """Something is wrong and needs a person."""
        self._write(logging.ERROR, sentence, fields)

    def exception(self, sentence: str, **fields: object) -> None:
        """An error with the traceback of the exception being handled: for failures that nobody foresaw."""
        self._write(logging.ERROR, sentence, fields, with_traceback=True)

    def seldom(self, key: object, sentence: str, *, level: int = logging.WARNING, at_most: int = 1, **fields: object) -> None:
        """What others can provoke as often as they like: ``at_most`` lines per ``SELDOM_S`` and key; the first one after that counts those left out."""
        now = self._monotonic()
        since, count = self._seldom.pop(key, (now, 0))
        left_out = 0
        if now - since >= SELDOM_S:
            since, count, left_out = now, 0, max(0, count - at_most)
        self._seldom[key] = (since, count + 1)
        while len(self._seldom) > SELDOM_KEYS_MAX:
            self._seldom.popitem(last=False)
        if count < at_most:
            self._write(level, sentence, {**fields, "left_out": left_out} if left_out else fields)

    def _write(self, level: int, sentence: str, fields: Mapping[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, sentence, extra={"fields": fields}, exc_info=with_traceback)


def get(name: str) -> Log:
    """The log of a module: ``get(__name__)``."""
    return Log(name)


def configure(*, style: Format, level: Level, journal: bool = False, stream: Any = None) -> None:
    """Send everything to ``stream`` (stderr) in that format from that level on. Calling it again replaces the earlier setting, so a reload can use it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "is_replicad", False):
            root.removeHandler(old)
    handler.is_replicad = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """``2026-11-20T13:00:00.123Z WARNING links: peer is gone peer=7KQ2-F4TX elapsed_s=0.2``."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, plus the traceback if there is one."""
        front = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journal else f"{_time(record)} {record.levelname} "
        parts = [f"{front}{_source(record)}: {record.getMessage()}"]
        parts += [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time, level, source, message``, then the fields (a field of one of these names gets a trailing underscore)."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is the field ``traceback``."""
        line: dict[str, object] = {"time": _time(record), "level": record.levelname.lower(), "source": _source(record), "message": record.getMessage()}
        for name, value in _fields(record).items():
            plain = value if isinstance(value, int | float | bool) or value is None else _short(value)
            line[f"{name}_" if name in line else name] = plain
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{ROOT}.")


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= FIELD_CHARACTERS_MAX else f"{text[:FIELD_CHARACTERS_MAX]}..."


def _quoted(value: object) -> str:
    """Bare when that is unambiguous; otherwise as a JSON string, so that a hostile value can neither break the line nor forge a field, nor turn the direction of what follows."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _short(value)
    if text and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text) + '"'
