"""Asking a few hosts that the configuration names, and no others: over verified TLS, without redirects, cookies or proxies, within a time and a size."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from replicad.errors import ConfigurationError, DistrustError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

ANSWER_BYTES_MAX = 256 << 10
"""A provider's keys with their certificates are 20 KiB."""
TIMEOUT_S = 10.0
CONNECTIONS_MAX = 8


def verified_context(ca: Path | None, *, key: str) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 that believe the authorities in this file, or (None) the system's. ConfigurationError, naming the ``key`` of the configuration, for a file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError, too
        raise ConfigurationError(f"{key}: cannot use {ca}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Https:
    """``hosts``: HOST or HOST:PORT of URLs that may be asked."""

    def __init__(self, session: aiohttp.ClientSession, hosts: frozenset[str]) -> None:
        self._session = session
        self._hosts = hosts

    @classmethod
    @asynccontextmanager
    async def open(cls, hosts: frozenset[str], *, tls: ssl.SSLContext) -> AsyncIterator[Https]:
        """Until the block ends."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as session:
            yield cls(session, hosts)

    def check(self, url: str) -> str:
        """The URL. DistrustError("foreign-host") if it is not to be asked."""
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme != "https" or parts.netloc not in self._hosts:
            raise DistrustError(f"{url[:200]!r} is not on {' or '.join(sorted(self._hosts))}, over https", code="foreign-host")
        return url

    async def ask(self, url: str, *, form: Mapping[str, str] | None = None, authorization: str = "") -> bytes:
        """What is answered with status 200 to GET, or with a form to POST. DistrustError("foreign-host"), UnreachableError for every other answer and for none."""
        headers = {"Authorization": authorization} if authorization else {}
        try:
            async with self._session.request("GET" if form is None else "POST", self.check(url), data=form, headers=headers, allow_redirects=False) as response:
                content = await response.content.read(ANSWER_BYTES_MAX + 1)
                while len(content) <= ANSWER_BYTES_MAX and (more := await response.content.read(ANSWER_BYTES_MAX)):
                    content += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{url}: {error or 'no answer in time'}") from None
        if len(content) > ANSWER_BYTES_MAX:
            raise UnreachableError(f"{url}: an answer of more than {ANSWER_BYTES_MAX} bytes")
        if response.status != 200:
            raise UnreachableError(f"{url}: answered {response.status}: {content[:300].decode(errors='replace')!r}", code="refused")
        return content
