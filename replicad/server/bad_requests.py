"""What the HTTP library says about requests that it cannot parse: one line a minute for each client, instead of a traceback for each request."""

from __future__ import annotations

from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

from replicad.telemetry.log import get

log = get(__name__)


class BadRequestLog:
    """The ``logger`` of a door's connections. Anything else than a bad request is passed on: it is a failure of ours, with its traceback."""

    def debug(self, sentence: str, *values: object, exc_info: Any = None) -> None:
        """Bytes that are no HTTP at all come here."""
        if isinstance(exc_info, HttpProcessingError):
            self._bad_request(values, exc_info)
        else:
            server_logger.debug(sentence, *values, exc_info=exc_info)

    def exception(self, sentence: str, *values: object, exc_info: Any = True) -> None:
        """Other bad requests, and failures."""
        if isinstance(exc_info, HttpProcessingError):
            self._bad_request(values, exc_info)
        else:
            server_logger.exception(sentence, *values, exc_info=exc_info)

    @staticmethod
    def _bad_request(values: tuple[object, ...], error: HttpProcessingError) -> None:
        client = values[0] if values and values[0] else "unknown"
        log.seldom(client, "bad request", client=client, status=error.code, reason=type(error).__name__)
