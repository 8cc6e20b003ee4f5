"""What a shell completes: verbs and options by themselves, members, shares, stages and paths by asking the daemon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_terminal import Terminal
from click.shell_completion import ShellComplete
from hypothesis import given
from hypothesis import strategies as st

from replicad.cli.completion import SHELLS, VARIABLE, next_steps
from replicad.cli.invocation import Invocation
from replicad.cli.main import main, program
from support.admin_door import Door


def completed(line: str, config: Path) -> list[str]:
    """What is offered for the last word of the line."""
    *words, begun = line.split(" ")
    context: Any = {"obj": Invocation()}
    return [item.value for item in ShellComplete(program, context, "replicad", VARIABLE).get_completions(["--config", str(config), *words], begun)]


@pytest.fixture
async def filled(door: Door) -> Door:
    await door.admit("ber1")
    await door.admit("syd1")
    for share, path in (("munki", "pkgs/apps/a.pkg"), ("munki", "pkgs/apps/b.pkg"), ("munki", "pkgs/apps/old/c.pkg"), ("jamf", "d.pkg")):
        await door.publish(share, path, b"x")
    return door


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pub", ["publish"]),
        ("peer pa", ["pause"]),
        ("share token ", ["create", "revoke"]),
        ("publish --ur", ["--urgent"]),
        ("peer show ", ["ber1", "syd1"]),
        ("peer limit b", ["ber1"]),
        ("publish x --share ", ["jamf", "munki"]),
        ("peer invite --share jamf --share m", ["munki"]),
        ("share set j", ["jamf"]),
        ("promote munki/pkgs/apps/a.pkg --to p", ["prod"]),
        ("show ", ["jamf/", "munki/"]),
        ("show j", ["jamf/d.pkg"]),
        ("show mun", ["munki/pkgs/apps/a.pkg", "munki/pkgs/apps/b.pkg", "munki/pkgs/apps/old/"]),
        ("ls munki/pkgs/apps/o", ["munki/pkgs/apps/old/c.pkg"]),
        ("rm munki/pkgs/apps/a.pkg munki/pkgs/apps/b", ["munki/pkgs/apps/b.pkg"]),
        ("takedown jamf/", ["jamf/d.pkg"]),
        ("show none/", []),
        ("share create ", []),
    ],
)
async def test_what_there_is_is_offered(filled: Door, terminal: Terminal, line: str, offered: list[str]) -> None:
    assert await asyncio.to_thread(completed, line, terminal.config) == offered


@pytest.mark.parametrize("line", ["peer show ", "share set ", "show m", "promote a/b --to "])
def test_without_a_daemon_or_a_configuration_nothing_is_offered_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    config = tmp_path / "replicad.toml"
    assert completed(line, config) == []
    config.write_text(f'[node]\nname = "ams1"\ndata = "{tmp_path}"\n')
    assert completed(line, config) == []
    assert capsys.readouterr() == ("", "")


names = st.lists(st.text("ab/", min_size=1).filter(lambda text: "//" not in text and text[0] != "/" and text[-1] != "/"), min_size=1)


@given(names, st.text("ab/", max_size=4))
def test_every_name_can_be_reached_step_by_step(found: list[str], begun: str) -> None:
    offered = next_steps(found, begun)
    assert all(one.startswith(begun) for one in offered)
    for name in found:
        if name.startswith(begun):
            step = next(one for one in offered if name.startswith(one) and (one == name or one.endswith("/")))
            assert step == name or len(step) >= len(begun)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"{VARIABLE}={shell}_complete" in capsys.readouterr().out


@pytest.mark.needs("bash")
def test_bash_completes() -> None:
    line = "COMP_WORDS=(replicad peer in); COMP_CWORD=2; _replicad_completion replicad; printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        ["bash", "-c", f'PATH="$0:$PATH"; eval "$(replicad completion bash)"; {line}', Path(sys.executable).parent], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "invite\n", "")
