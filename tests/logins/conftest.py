"""One directory for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicad.integrations.logins import LdapConfig, Rights
from replicad.model.callers import AccessRole
from support import directory
from support.directory import GROUPS, PEOPLE, Slapd, group

VIEWER, PUBLISHER, OPERATOR, ADMIN = AccessRole
RIGHTS = {
    rf"CN=mac\2c  packages, {GROUPS.upper()}": Rights(PUBLISHER, frozenset({"munki"})),
    group("company"): Rights(OPERATOR),
    group("ring c"): Rights(VIEWER),
    group("jamf"): Rights(PUBLISHER, frozenset({"jamf"})),
    group("readers"): Rights(VIEWER),
    group(f"deep {directory.DEEP - 1}"): Rights(ADMIN),
    group("does not exist"): Rights(ADMIN),
}


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with directory.running(tmp_path_factory.mktemp("slapd")) as found:
        yield found


@pytest.fixture
def config(slapd: Slapd) -> LdapConfig:
    """Deadlines are far away, so that a loaded machine changes nothing."""
    return LdapConfig(
        urls=(slapd.url,),
        base=PEOPLE,
        group_base=GROUPS,
        groups=RIGHTS,
        ca=slapd.ca,
        bind_dn=directory.SERVICE,
        bind_password_file=slapd.password_file,
        timeout_s=30.0,
    )
