"""The systemd files: accepted by systemd's own tools, hardened, and saying the same as the program."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replicad import daemon
from replicad.errors import ConfigurationError
from replicad.server.downloads.config import DownloadsConfig

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "replicad.service"
EXPOSURE_MAX = 1.5


needs = pytest.mark.needs


def run(*command: str | Path) -> str:
    """Everything it says; fails unless it ends well."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(SERVICE)
    return unit["Service"]


@needs("systemd-analyze")
def test_verify(tmp_path: Path) -> None:
    """With a program that exists here in the place of the installed one."""
    copy = tmp_path / SERVICE.name
    copy.write_text(SERVICE.read_text().replace("/usr/bin/replicad", sys.executable))
    assert SERVICE.name not in run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy)


@needs("systemd-analyze")
def test_hardening() -> None:
    report = run("systemd-analyze", "security", "--offline=true", SERVICE)
    found = re.search(r"Overall exposure level for replicad\.service: (\d+\.\d)", report)
    assert found is not None, report
    assert float(found[1]) <= EXPOSURE_MAX


@needs("systemd-sysusers")
def test_sysusers(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.d/replicad.conf")
    entry = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("replicad:"))
    assert entry.endswith(":replicad daemon:/var/lib/replicad:/usr/sbin/nologin")
    assert "\nreplicad:" in "\n" + (tmp_path / "etc/group").read_text()


@needs("systemd-tmpfiles")
@needs("root")  # gives directories to another user
def test_tmpfiles(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.d/replicad.conf")
    run("systemd-tmpfiles", "--create", f"--root={tmp_path}", UNITS / "tmpfiles.d/replicad.conf")
    assert (tmp_path / "var/lib/replicad").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "etc/replicad").stat().st_mode & 0o7777 == 0o755


def test_the_program_and_the_unit_agree(service: configparser.SectionProxy) -> None:
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == str(ConfigurationError.exit_code)
    assert float(service["TimeoutStopSec"].removesuffix("s")) > daemon.STOP_S
    assert int(service["LimitNOFILE"]) == daemon.OPEN_FILES_MAX >= 3 * DownloadsConfig().connections_max
    assert set(service["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    program, *arguments = service["ExecStart"].split()
    assert (program, arguments) == ("/usr/bin/replicad", ["--config", "/etc/replicad/replicad.toml", "serve"])
    assert service["StateDirectory"] == service["ConfigurationDirectory"] == service["RuntimeDirectory"] == "replicad"
