"""audit: who granted, narrowed, published and removed what in the network; and who did what through this node's admin door."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.files import new_private, told_of
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import moment
from replicad.errors import DistrustError
from replicad.model.words import plural
from replicad.server.admin import nouns


def render_audit(records: list[nouns.Audited]) -> str:
    """The picture of ``replicad audit``."""
    rows = (
        [
            moment(one.when),
            one.origin_name,
            one.type,
            f"{one.share}/{one.path} ({one.stage})" if one.path is not None else one.subject_name or one.share,
            one.detail,
            "" if one.counts else f"VOID: {one.reason}",
        ]
        for one in records
    )
    return output.table(["WHEN", "BY", "TYPE", "ABOUT", "WHAT", ""], rows)


def render_log(actions: list[nouns.Action]) -> str:
    """The picture of ``replicad audit --log``."""
    rows = (
        [str(one.seq), moment(one.when), one.caller or "?", one.origin, f"{one.method} {one.target.removeprefix('/api/v1')}", one.detail, _result(one)]
        for one in actions
    )
    return output.table([">SEQ", "WHEN", "WHO", "FROM", "WHAT", "DETAIL", "RESULT"], rows)


class ExportedLog(Struct, frozen=True):
    """What ``audit --export --json`` prints: how many records or actions the file has, one JSON object a line."""

    file: str
    count: int


@click.group(cls=Verbs, invoke_without_command=True, prints=(nouns.Audit, nouns.Actions, ExportedLog))
@click.option("--since", callback=values.moment, metavar="TIME", help="Only what is from then on, as 2026-11-12T14:03 or with a zone.")
@click.option("--log", is_flag=True, help="Not the signed records of the network, but who did what through this node's admin door.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write JSON Lines to FILE (which must not exist; mode 0600) instead.")
@click.pass_context
@pass_invocation
def audit(invocation: Invocation, context: click.Context, *, since: datetime | None, log: bool, export: Path | None) -> None:
    """Show every signed record that this node has, oldest first: who granted, narrowed, published or removed what, and why what does not count does not."""
    if context.invoked_subcommand is not None:
        return
    client, query = invocation.client(), {"since": since.isoformat() if since else None}
    if export is not None:
        count = _export(_actions(client, query) if log else _records(client, query), export)
        invocation.out.data(ExportedLog(str(export), count), f"exported {plural(count, 'action' if log else 'record')} to {export}")
    elif log:
        actions = client.whole(path_of("audit", "log"), answer=nouns.Actions, items="actions", query=query)
        invocation.out.data(actions, render_log(actions.actions))
    else:
        records = client.whole(path_of("audit"), answer=nouns.Audit, items="records", query=query)
        invocation.out.data(records, render_audit(records.records))


@audit.command(prints=nouns.ActionChain)
@pass_invocation
def verify(invocation: Invocation) -> None:
    """Compute the chain of this node's audit log anew: exit 7 if a row was changed, removed or added since it was written."""
    answer = invocation.client().ask("GET", path_of("audit", "verify"), answer=nouns.ActionChain)
    if answer.broken is not None:
        raise DistrustError(
            f"the audit log is not as it was written: action {answer.broken} of {answer.first} to {answer.last} was changed, removed or added",
            hint="whoever could write catalog.sqlite in the data directory did it; what came before that action is as it was",
            code="audit-broken",
        )
    invocation.out.data(answer, f"as written: {plural(max(0, answer.last - answer.first + 1), 'action')}, up to {answer.last}; hash {answer.hash}")


def _actions(client: Client, query: dict[str, Any]) -> Iterator[nouns.Action]:
    return (one for page in client.pages(path_of("audit", "log"), answer=nouns.Actions, query=query) for one in page.actions)


def _records(client: Client, query: dict[str, Any]) -> Iterator[nouns.Audited]:
    return (one for page in client.pages(path_of("audit"), answer=nouns.Audit, query=query) for one in page.records)


def _export(found: Iterator[Struct], target: Path) -> int:
    count = 0
    with new_private(target) as file:
        for one in found:
            with told_of(target):
                file.write(msgspec.json.encode(one) + b"\n")
            count += 1
    return count


def _result(one: nouns.Action) -> str:
    return f"{one.status} {one.code}" if one.code else str(one.status)
