"""audit: who granted, narrowed, published and removed what."""

from __future__ import annotations

from datetime import datetime

import click

from replicad.cli import output, values
from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import moment
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


@click.command(cls=Verb)
@click.option("--since", callback=values.moment, metavar="TIME", help="Only what was signed from then on, as 2026-11-12T14:03 or with a zone.")
@pass_invocation
def audit(invocation: Invocation, *, since: datetime | None) -> None:
    """Show every signed record that this node has, oldest first: who granted, narrowed, published or removed what, and why what does not count does not."""
    client = invocation.client()
    records: list[nouns.Audited] = []
    query = {"since": since.isoformat() if since else None, "after": None}
    while True:
        page = client.ask("GET", path_of("audit"), answer=nouns.Audit, query=query)
        records += page.records
        if page.next is None:
            break
        query = {"since": None, "after": page.next}
    invocation.out.data(nouns.Audit(records, None), render_audit(records))
