"""What of the manual is made from the verbs: manual pages, and the shapes of --json."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest
from msgspec import structs

from replicad.cli.main import PLACES, manual, program
from replicad.cli.manual import EXIT_CODES, tree
from replicad.cli.shapes import objects, printed
from replicad.errors import ReplicadError
from replicad.server.admin import nouns

DOCS = Path(__file__).parents[2] / "docs"
MANUAL = manual()
SILENT = {"replicad serve"}
"""The daemon, and one line for Nagios."""
VERBS = {one.command_path: one.command for one in tree(program, click.Context(program, info_name="replicad"))}


def test_the_published_manual_is_that_of_the_program() -> None:
    published = {path.relative_to(DOCS).as_posix(): path.read_text() for path in [DOCS / "json.md", *(DOCS / "man").iterdir()]}
    assert published.keys() == MANUAL.keys()
    assert [name for name, text in MANUAL.items() if published[name] != text] == [], "the verbs have changed, and the manual with them: make man"


@pytest.mark.needs("groff")
def test_manual_pages_are_well_formed() -> None:
    pages = "".join(text for name, text in MANUAL.items() if name.endswith(".1"))
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-P-cbu"], input=pages, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    for name, verb in VERBS.items():
        assert name in shown
        for option in (option for parameter in verb.params if isinstance(parameter, click.Option) and not parameter.hidden for option in parameter.opts):
            assert option in shown, (name, option)


def test_every_verb_has_a_page() -> None:
    assert {name for name in MANUAL if name.startswith("man/")} == {"man/replicad.1", *(f"man/replicad-{name}.1" for name in PLACES)}


def test_exit_codes_are_told_alike() -> None:
    commands = (DOCS / "commands.md").read_text()
    assert [code for code, meaning in EXIT_CODES if f"| {code} | {meaning} |" not in commands] == []

    def below(kind: type[ReplicadError]) -> set[int]:
        return {kind.exit_code}.union(*(below(one) for one in kind.__subclasses__()))

    assert below(ReplicadError) <= dict(EXIT_CODES).keys()


def test_every_verb_says_what_it_prints() -> None:
    assert {name for name, verb in VERBS.items() if not printed(verb)} == SILENT
    names = [kind.__name__.lower() for kind in objects(kind for verb in VERBS.values() for kind in printed(verb))]
    assert len(set(names)) == len(names), "two types of one name: rename one of them"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (nouns.Peers, "peers"),
        (nouns.Peer, "id name role site shares linked lag"),
        (nouns.Shares, "shares"),
        (nouns.Entries, "entries"),
        (nouns.Entry, "path stage sha256 size published publisher available"),
        (nouns.EntryAnswer, "entry"),
        (nouns.Matrix, "nodes rows"),
        (nouns.Transfers, "transfers"),
        (nouns.Status, "node store stages peers problems"),
    ],
)
def test_what_others_rely_on_stays(kind: type, fields: str) -> None:
    assert set(fields.split()) <= {field.encode_name for field in structs.fields(kind)}
