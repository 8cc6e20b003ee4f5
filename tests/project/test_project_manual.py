"""The manual names what exists, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from replicad.cli.main import program
from replicad.config.sections import KEYS
from replicad.model.records import BODIES
from replicad.protocol import wire
from replicad.protocol.gossip import heads

ROOT = Path(__file__).parents[2]
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
README = (ROOT / "README.md").read_text()


def verbs(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from verbs(found, (*path, name))


VERBS = {" ".join(path): command for path, command in verbs(program)}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_manual_with_its_options(verb: str) -> None:
    assert re.search(rf"`replicad {re.escape(verb)}[ `]", COMMANDS), f"docs/commands.md does not name `replicad {verb}`"
    options = [option for parameter in VERBS[verb].params if not getattr(parameter, "hidden", False) for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if f"{option}`" not in COMMANDS and f"{option} " not in COMMANDS] == []


def commands_in(text: str) -> Iterator[str]:
    """What is written as a command: in code spans and at the beginning of lines of code blocks."""
    yield from re.findall(r"`(?:\$ )?((?:sudo (?:-u \w+ )?)?(?:\S*/)?replicad [^`\n]+)`", text)
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
        yield from re.findall(r"^(?:[$#] )?(?:sudo (?:-u \w+ )?)?(?:\S*/)?(replicad [^\n]+)", block, re.MULTILINE)


@pytest.mark.parametrize("text", [COMMANDS, README], ids=["commands", "readme"])
def test_the_manual_names_no_verb_that_does_not_exist(text: str) -> None:
    found = list(commands_in(text))
    assert found
    for command in found:
        words = re.sub(r"^.*?replicad (--config \S+ |--json |-q )*", "", command).split()
        if words[0].startswith("-") or words[0] == "VERB":
            continue
        assert any(" ".join(words[:count]) in VERBS for count in (1, 2, 3)), command


def test_every_message_and_record_is_in_the_specification_with_its_fields() -> None:
    specification = (ROOT / "docs" / "protocol.md").read_text()
    messages = {kind.__struct_config__.tag for union in (wire.Message, wire.Handshake) for kind in get_args(union)}
    assert [tag for tag in sorted(messages) if not re.search(rf"^\| .*`{tag}`", specification, re.MULTILINE)] == []
    bodies = specification.partition("### 3.2 Types")[2].partition("### 3.3")[0]
    assert [f"{name}.{field}" for name, body in BODIES.items() for field in body.__struct_fields__ if f"`{field}`" not in bodies] == []
    heads_section = specification.partition("### 9.3 Heads")[2].partition("\n## ")[0]
    fields = [*heads.Head.__struct_fields__, *heads.Presence.__struct_fields__]
    assert [field for field in fields if f"`{field}`" not in heads_section] == []


def test_every_key_of_the_configuration_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "configuration.md").read_text()
    assert "```{literalinclude} ../config.example.toml" in manual
    example = (ROOT / "config.example.toml").read_text()
    assert [key.path for key in KEYS if not re.search(rf"^(# )?{key.name} = ", example, re.MULTILINE)] == []
