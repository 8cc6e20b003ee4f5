"""Opens what the configuration names of those who vouch for people; neither is needed, and neither's library is there unless it was installed."""

from __future__ import annotations

import time
import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replicad.errors import ConfigurationError
from replicad.net.https import Https, verified_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.integrations.ldap import Directory
    from replicad.integrations.logins import LdapConfig, OidcConfig
    from replicad.integrations.oidc import Provider


@asynccontextmanager
async def open_vouchers(ldap: LdapConfig | None, oidc: OidcConfig | None) -> AsyncIterator[tuple[tuple[Directory, ...], Provider | None]]:
    """The directories and the provider, until the block ends. Nobody is asked yet. ConfigurationError."""
    async with AsyncExitStack() as stack:
        directories: tuple[Directory, ...] = ()
        if ldap is not None:
            directories = (_directory(ldap),)
            stack.callback(directories[0].close)
        yield directories, None if oidc is None else await _provider(stack, oidc)


def _directory(config: LdapConfig) -> Directory:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(tagMap|typeMap) is deprecated", DeprecationWarning)  # old names of pyasn1, which ldap3 uses
            from replicad.integrations.ldap import Directory  # noqa: PLC0415 - its library is an extra
    except ImportError as error:
        raise _lacks("ldap", error) from None
    return Directory(config)


async def _provider(stack: AsyncExitStack, config: OidcConfig) -> Provider:
    try:
        from replicad.integrations.oidc import Provider  # noqa: PLC0415 - its library is an extra
    except ImportError as error:
        raise _lacks("oidc", error) from None
    hosts = frozenset({urlsplit(config.issuer).netloc, *config.hosts})
    http = await stack.enter_async_context(Https.open(hosts, tls=verified_context(config.ca, key="oidc.ca")))
    return Provider(config, http, clock_s=time.time, now_s=time.monotonic)


def _lacks(section: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"[{section}] needs the library {error.name}, which is not installed", hint=f"pip install 'replicad[{section}]'")
