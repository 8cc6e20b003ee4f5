"""The README's three shells, typed as they stand (other ports, another folder, a smaller file)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import free_port
from support.processes import Process

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180), pytest.mark.needs("curl", "bash")]
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def typed(tmp_path: Path) -> tuple[str, str]:
    """The commands of the shells with the daemons, and of the fourth."""
    section = README.partition("## Three nodes in three shells")[2].partition("\n## ")[0]
    daemons, fourth = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    ports = {port: str(free_port()) for port in sorted(set(re.findall(r"\b8[456][48][01]\b", daemons)))}
    assert len(ports) == 9
    for port, free in ports.items():
        daemons, fourth = daemons.replace(port, free), fourth.replace(port, free)
    return daemons.replace("/tmp/", f"{tmp_path}/"), fourth.replace("/tmp/", f"{tmp_path}/").replace("300M", "20M")


@pytest.fixture
def shell(typed: tuple[str, str], tmp_path: Path) -> Iterator[str]:
    """Runs what the first three shells say, ends the daemons afterwards. The value is how every script begins."""
    prelude = f"set -euo pipefail\nexport PATH={Path(sys.executable).parent}:$PATH\n"
    commands = [line for line in typed[0].splitlines() if line.startswith("replicad")]
    assert [line.split()[3] for line in commands] == ["init", "serve"] * 3
    daemons = []
    try:
        for number, command in enumerate(commands):
            log = tmp_path / f"shell-{number}.log"
            if command.endswith(" serve"):
                daemons.append(Process(["bash", "-c", f"{prelude}exec {command}"], log=log))
                daemons[-1].wait_for_output(": ready ")
            else:
                assert Process(["bash", "-c", prelude + command], log=log).wait() == 0, log.read_text()
        yield prelude
    finally:
        codes = [daemon.stop() for daemon in daemons]
        assert codes == [0] * len(daemons)


def test_the_readme_does_what_it_says(typed: tuple[str, str], shell: str) -> None:
    done = subprocess.run(["bash", "-c", shell + typed[1]], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nequal\n" in done.stdout
    validators = [line.lower() for line in done.stdout.splitlines() if line.lower().startswith(("etag:", "last-modified:"))]
    assert len(validators) == 6
    assert len(set(validators)) == 2
