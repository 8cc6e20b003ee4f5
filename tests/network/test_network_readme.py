"""The README's shells, typed as they stand (other ports, another folder, a smaller file): three nodes, and the life of a file."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import free_port
from support.processes import Process
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180), pytest.mark.needs("curl", "bash")]
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def typed(tmp_path: Path) -> tuple[str, str, str]:
    """The commands of the shells with the daemons, of the fourth, and what is typed there afterwards."""
    section = README.partition("## Three nodes in three shells")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    ports = {port: str(free_port()) for port in sorted(set(re.findall(r"\b8[456][48][01]\b", blocks[0])))}
    assert len(ports) == 9
    replaced = {**ports, "/tmp/": f"{tmp_path}/", "300M": "20M"}
    daemons, fourth, life = (re.sub("|".join(replaced), lambda found: replaced[found[0]], block) for block in blocks)
    return daemons, fourth, life


@pytest.fixture
def shell(typed: tuple[str, str, str], tmp_path: Path) -> Iterator[str]:
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


def run(script: str) -> list[str]:
    """What bash says of it, line by line."""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_readme_does_what_it_says(typed: tuple[str, str, str], shell: str, tmp_path: Path) -> None:
    _, fourth, life = typed
    said = run(shell + fourth)
    assert "equal" in said
    validators = [line.lower() for line in said if line.lower().startswith(("etag:", "last-modified:"))]
    assert len(validators) == 6
    assert len(set(validators)) == 2

    functions = "".join(f"{line}\n" for line in fourth.splitlines() if re.match(r"\w+\(\) {", line))
    said = run(shell + functions + life)
    assert [line for line in said if line in {"rolled back", "404"}] == ["rolled back", "404"]
    history = json.loads(run(f"{shell}{functions}ams --json history munki/tools/Tool.pkg")[0])["records"]
    assert [(one["kind"], one["stage"]) for one in history] == [
        ("restore", "prod"),
        ("remove", "prod"),
        ("restore", "prod"),
        ("publish", "prod"),
        ("promote", "prod"),
        ("publish", "dev"),
    ]
    actions = json.loads(run(f"{shell}{functions}ams --json audit --log")[0])["actions"]
    assert [(one["method"], one["status"]) for one in actions if one["caller"] == "token ci"] == [("PUT", 200), ("POST", 200), ("PUT", 200)]
    third = f"http://127.0.0.1:{re.findall('--downloads 127.0.0.1:([0-9]+)', typed[0])[2]}/munki/tools/Tool.pkg"

    def arrived() -> bool:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(third) as answer:
            return bool(answer.read() == (tmp_path / "Tool-1.pkg").read_bytes())
        return False

    wait_for(arrived, what="the third node to show what was brought back")
