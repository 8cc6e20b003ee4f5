"""jamf: what a share has below Packages/, told to a Jamf Pro server."""

from __future__ import annotations

from pathlib import Path

import click
from msgspec import Struct

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import clean
from replicad.cli.share import only_share
from replicad.cli.wait import EXIT_PARTLY
from replicad.integrations import jamf as jamf_pro
from replicad.integrations.jamf import JamfPro, Step
from replicad.server.admin import bodies, nouns


class Record(Struct, frozen=True):
    """One record at the Jamf Pro server. ``action``: create, update, unchanged, or waiting (its bytes are not on every node yet, or this node still computes their checksums)."""

    kind: str
    name: str
    action: str


class Records(Struct, frozen=True):
    """What ``jamf register --json`` and ``jamf status --json`` print. ``written``: whether the actions were carried out."""

    records: list[Record]
    written: bool


@click.group(cls=Verbs)
def jamf() -> None:
    """Packages and distribution points of a Jamf Pro server."""


SERVER = click.option("--server", required=True, metavar="URL", help="The Jamf Pro server.")
CLIENT = click.option("--client-id", required=True, metavar="ID", help="An API client with Create, Read and Update of Packages and Distribution Points.")
SECRET = click.option("--secret-file", required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-", help="Its secret, in the first line.")
SHARE = click.option("--share", metavar="SHARE", help="The share; its files below Packages/ are meant. Needed if there are several shares.")
POINT = click.option("--point", metavar="NAME", help="Also the distribution point of that name, at a node's door for clients.")
NODE_URL = click.option("--node-url", metavar="URL", help="The https address of that door [this node's].")


@jamf.command(prints=Records)
@SERVER
@CLIENT
@SECRET
@SHARE
@POINT
@NODE_URL
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@pass_invocation
def register(invocation: Invocation, /, *, server: str, client_id: str, secret_file: Path, dry_run: bool, **target: str | None) -> int:
    """Create or update the records of a share's packages. What is not on every node yet, or not hashed, is left for the next time (exit 3)."""
    return _go(invocation, _session(server, client_id, secret_file), write=not dry_run, **target)


@jamf.command(prints=Records)
@SERVER
@CLIENT
@SECRET
@SHARE
@POINT
@NODE_URL
@pass_invocation
def status(invocation: Invocation, /, *, server: str, client_id: str, secret_file: Path, **target: str | None) -> int:
    """Compare a share's packages with the records at the Jamf Pro server."""
    return _go(invocation, _session(server, client_id, secret_file), write=False, **target)


def _session(server: str, client_id: str, secret_file: Path) -> JamfPro:
    session = JamfPro(server, client_id, values.first_line(secret_file).strip())
    session.log_in()
    return session


def _go(invocation: Invocation, session: JamfPro, *, write: bool, share: str | None = None, point: str | None = None, node_url: str | None = None) -> int:
    client = invocation.client()
    name = only_share(client, share)
    asked = jamf_pro.known(name, client.ask("GET", path_of("shares", name), answer=nouns.ShareAnswer).share.checksums)
    steps: list[Step] = []
    if point is not None:
        url = node_url or client.ask("GET", path_of("node"), answer=nouns.NodeAnswer).node.downloads_url
        steps.append(jamf_pro.point_step(session.point(point), name=point, url=url, share=name))
    waiting = []
    for file_name, entry in _packages(client, name).items():
        if entry.checksums.keys() >= asked and _is_everywhere(client, entry):
            steps.append(jamf_pro.package_step(session.package(file_name), file_name=file_name, sha256=entry.sha256, checksums=entry.checksums))
        else:
            waiting.append(Record("package", file_name, "waiting"))
    for step in steps if write else ():
        session.apply(step)
    answer = Records([*(Record(step.kind, step.name, step.action) for step in steps), *waiting], written=write)
    rows = [[record.action, record.kind, clean(record.name)] for record in answer.records]
    invocation.out.data(answer, output.table(["ACTION" if write else "WOULD", "RECORD", "NAME"], rows))
    return EXIT_PARTLY if waiting else 0


def _packages(client: Client, share: str) -> dict[str, nouns.Entry]:
    """By file name."""
    query = {"share": share, "prefix": jamf_pro.DIRECTORY.rstrip("/")}
    listed = client.whole(path_of("entries"), answer=nouns.Entries, items="entries", query=query).entries
    entries = {entry.path: entry for entry in listed if not entry.taken_down}
    return {file_name: entries[path] for file_name, path in jamf_pro.file_names(entries).items()}


def _is_everywhere(client: Client, entry: nouns.Entry) -> bool:
    body = bodies.Wait(share=entry.share, entries=[bodies.WaitEntry(path=entry.path)], nodes="all", timeout_s=0.0)
    return client.ask("POST", path_of("wait"), answer=nouns.Waited, body=body).state == "done"
