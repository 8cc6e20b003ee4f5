"""promote, history, rollback, rm, undelete, takedown: what becomes of files after they were published."""

from __future__ import annotations

import re

import click

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import YES, Invocation, Verb, pass_invocation
from replicad.cli.output import clean, moment, size
from replicad.cli.publish import LINES_MAX, PUBLISH_TIMEOUT_S, publisher_label
from replicad.errors import InputError, NotFoundError
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAID = {"promote": "promoted", "remove": "removed", "restore": "restored"}


def _said(one: nouns.Change) -> str:
    return _SAID[one.kind] if one.record else f"would {one.kind}"


def _one_line(share: str, one: nouns.Change) -> str:
    return f"{_said(one)}  {clean(f'{share}/{one.path}')}  {one.stage}  {size(one.size)}  sha256 {one.sha256[:8]}...{one.sha256[-4:]}"


def _tell_changes(invocation: Invocation, answer: nouns.Changes) -> None:
    invocation.out.data(answer, _render(answer, every_line=invocation.out.verbose))
    absent = [one for one in answer.changes if one.kind != "remove" and not one.available]
    if absent:
        names = clean(f"{answer.share}/{absent[0].path}") + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
        invocation.out.talk(f"This node does not hold the content of {names}; it comes from a node that does.")


def _render(answer: nouns.Changes, *, every_line: bool) -> str:
    """A line for each name and stage, while they are few, and how many names there are (of a removal always)."""
    lines = [_one_line(answer.share, one) for one in answer.changes]
    if len(lines) == 1 and answer.changes[0].kind != "remove":
        return lines[0]
    if len(lines) > LINES_MAX and not every_line:
        lines = [*lines[:LINES_MAX], f"and {len(lines) - LINES_MAX} more (all of them: --verbose)"]
    return "\n".join([*lines, f"{_said(answer.changes[0])}  {plural(answer.names, 'name')} of {answer.share}"])


@click.command(cls=Verb, prints=nouns.Changes)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@click.option("--to", required=True, metavar="STAGE", help="Where it stands from now on.")
@click.option("--from", "source", metavar="STAGE", help="Where it comes from, and stands no more [the lowest stage below that has it].")
@pass_invocation
def promote(invocation: Invocation, *, name: tuple[str, str], to: str, source: str | None) -> None:
    """Let a file stand at a higher stage. Bytes that are there already are visible at once."""
    share, path = name
    body = bodies.Promote(path=path, to=to, source=source, publisher=publisher_label())
    _tell_changes(invocation, invocation.client().ask("POST", path_of("shares", share, "promote"), answer=nouns.Changes, body=body))


@click.command(cls=Verb, prints=nouns.Changes)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@click.option("--to", metavar="ID", help="The record of an older version, as `replicad history` shows it; 8 digits will do [the one before the current].")
@click.option("--stage", metavar="STAGE", help="The stage [the only one where the file stands].")
@pass_invocation
def rollback(invocation: Invocation, *, name: tuple[str, str], to: str | None, stage: str | None) -> None:
    """Let a file stand for older content again, as a new entry."""
    share, path = name
    body = bodies.Rollback(path=path, to=to, stage=stage, publisher=publisher_label())
    _tell_changes(invocation, invocation.client().ask("POST", path_of("shares", share, "rollback"), answer=nouns.Changes, body=body))


@click.command(cls=Verb, prints=nouns.Changes)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_place)
@click.option("--stage", metavar="STAGE", help="The stage [wherever the last removal ended it].")
@click.option("--dry-run", is_flag=True, help="Say what would come back; change nothing.")
@pass_invocation
def undelete(invocation: Invocation, *, name: tuple[str, str], stage: str | None, dry_run: bool) -> None:
    """Bring back what the last removal of a file, or of what lies below a directory, ended: all of it or nothing."""
    share, path = name
    body = bodies.Undelete(path=path, stage=stage, publisher=publisher_label(), dry_run=dry_run)
    _tell_changes(
        invocation, invocation.client().ask("POST", path_of("shares", share, "undelete"), answer=nouns.Changes, body=body, timeout_s=PUBLISH_TIMEOUT_S)
    )


@click.command(cls=Verb, prints=nouns.Changes)
@click.argument("names", metavar=f"{values.IN_SHARE_METAVAR}...", nargs=-1, required=True, callback=values.in_one_share)
@click.option("--stage", metavar="STAGE", help="Only at this stage [at all].")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option(
    "--expect",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse unless exactly so many names would be removed; needed for more than 100 and for half a share.",
)
@YES
@pass_invocation
def rm(invocation: Invocation, *, names: tuple[str, list[str]], stage: str | None, dry_run: bool, expect: int | None, yes: bool) -> None:
    """Remove files, and whatever lies below directories, from all nodes: all of it or nothing. Content stays for a while, see `replicad undelete`."""
    share, given = names
    client, out = invocation.client(), invocation.out

    def ask(*, preview: bool) -> nouns.Changes:
        body = bodies.Remove(paths=given, stage=stage, publisher=publisher_label(), dry_run=preview, expect=expect)
        return client.ask("POST", path_of("shares", share, "remove"), answer=nouns.Changes, body=body, timeout_s=PUBLISH_TIMEOUT_S)

    if not dry_run and not yes and out.asks:
        seen = ask(preview=True)
        out.talk(_render(seen, every_line=out.verbose))
        out.confirm(f"Remove {plural(seen.names, 'name')} of {share}?", yes=False)
    answer = ask(preview=dry_run)
    out.data(answer, _render(answer, every_line=out.verbose))


def all_revisions(client: Client, share: str, path: str) -> nouns.Revisions:
    """The whole history."""
    return client.whole(path_of("shares", share, "history", file=path), answer=nouns.Revisions, items="records")


def render_history(answer: nouns.Revisions) -> str:
    """The picture of ``replicad history``."""
    rows = [
        [
            moment(one.time),
            one.record[:12],
            one.stage,
            one.kind + (f" from {one.source}" if one.source else ""),
            one.state + (f": {one.why_not}" if one.why_not else ""),
            "" if one.size is None else size(one.size),
            (one.sha256 or "")[:12],
            "taken down" if one.taken_down else "here" if one.available else "",
            f"{one.publisher or 'somebody'} at {one.origin}",
        ]
        for one in answer.records
    ]
    return output.table(["TIME", "RECORD", "STAGE", "WHAT", "STATE", ">SIZE", "SHA256", "CONTENT", "BY"], rows)


@click.command(cls=Verb, prints=nouns.Revisions)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@pass_invocation
def history(invocation: Invocation, *, name: tuple[str, str]) -> None:
    """Show everything that was ever said about a name, newest first, and whether it counts."""
    answer = all_revisions(invocation.client(), *name)
    invocation.out.data(answer, render_history(answer))


def _content_of(client: Client, named: str, stage: str | None) -> str:
    """The SHA-256 that is named, or what a file stands for; InputError if that differs between its stages."""
    if _SHA256.fullmatch(named):
        return named
    share, path = values.in_share(None, None, named)
    contents: dict[str, list[str]] = {}
    for one in all_revisions(client, share, path).records:
        if one.state == "current" and one.sha256 and stage in (None, one.stage):
            contents.setdefault(one.sha256, []).append(one.stage)
    if not contents:
        raise NotFoundError(f"{named} stands for nothing now", hint=f"name the content: replicad history {named}", code="no-such-file")
    if len(contents) > 1:
        stages = ", ".join(stage for stages in contents.values() for stage in stages)
        raise InputError(f"{named} stands for different contents at {stages}: which one?", hint="name it: --stage STAGE, or the SHA-256 itself")
    return next(iter(contents))


@click.command(cls=Verb, prints=nouns.TakedownAnswer)
@click.argument("named", metavar=f"{values.IN_SHARE_METAVAR}|SHA256")
@click.option("--lift", is_flag=True, help="Let it be served again.")
@click.option("--stage", metavar="STAGE", help="What the file stands for at this stage.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
@click.option("--dry-run", is_flag=True, help="Only say which content it is.")
@YES
@pass_invocation
def takedown(invocation: Invocation, *, named: str, lift: bool, stage: str | None, reason: str, dry_run: bool, yes: bool) -> None:
    """Let no node serve a content any more, whatever its names; only an admin's node may."""
    client, out = invocation.client(), invocation.out
    content = _content_of(client, named, stage)
    if dry_run:
        out.data(
            nouns.TakedownAnswer(content, taken_down=not lift, changed=False), f"would {'lift' if lift else 'take down'}  {clean(named)}  sha256 {content}"
        )
        return
    if lift:
        answer = client.ask("DELETE", path_of("takedowns", content), answer=nouns.TakedownAnswer)
    else:
        out.confirm(f"Let no node serve {named} ({content[:12]}...) any more?", yes=yes)
        answer = client.ask("PUT", path_of("takedowns", content), answer=nouns.TakedownAnswer, body=bodies.TakeDown(reason=reason))
    said = "lifted" if lift else "taken down" if answer.changed else "was taken down before"
    out.data(answer, f"{said}  {clean(named)}  sha256 {content}")
