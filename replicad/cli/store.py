"""store: what lies on this node's disk, whether it is still right, and what of it may go."""

from __future__ import annotations

import re

import click

from replicad.cli import output
from replicad.cli.client import path_of
from replicad.cli.invocation import YES, Invocation, Verbs, pass_invocation
from replicad.cli.output import clean, moment, size
from replicad.errors import IntegrityError
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%?")
LINES_MAX = 20


@click.group(cls=Verbs)
def store() -> None:
    """What lies on this node's disk."""


def render_usage(answer: nouns.StoreUsage) -> str:
    """The picture of ``replicad store usage``."""
    head = [
        f"used      {size(answer.used_bytes)}",
        f"free      {size(answer.free_bytes)} of {size(answer.total_bytes)} (reserve {size(answer.reserve_bytes)})",
        f"quota     {size(answer.quota_bytes) if answer.quota_bytes else 'none'}",
    ]
    amounts = {"held": answer.held, "wanted": answer.wanted, "partials": answer.partials, "uploads": answer.uploads, "aside": answer.aside}
    head += [f"{name:<8}  {plural(amount.files, 'file')}, {size(amount.bytes)}" for name, amount in amounts.items()]
    head.append(f"records   {answer.records.files}, {size(answer.records.bytes)}")
    rows = ([one.share, one.stage, str(one.files), size(one.bytes), str(one.held_files), size(one.held_bytes)] for one in answer.places)
    places = output.table(["SHARE", "STAGE", ">FILES", ">SIZE", ">HELD", ">SIZE"], rows)
    return "\n".join([*head, "", places, *_damaged_lines(answer.damaged)])


def _damaged_lines(damaged: list[nouns.Damaged]) -> list[str]:
    lines = [f"damaged  {clean(one.name or one.sha256)}  {one.detail}{'  kept aside' if one.aside else ''}" for one in damaged[:LINES_MAX]]
    return [*lines, f"and {len(damaged) - LINES_MAX} more (all of them: --json)"] if len(damaged) > LINES_MAX else lines


@store.command(prints=nouns.StoreUsage)
@pass_invocation
def usage(invocation: Invocation) -> None:
    """Show what takes how much of the disk, by share and stage."""
    answer = invocation.client().ask("GET", path_of("store", "usage"), answer=nouns.StoreUsage, timeout_s=None)
    invocation.out.data(answer, render_usage(answer))


def _read_again(invocation: Invocation, sample: float) -> nouns.Scrubbed:
    body = bodies.Scrub(sample=sample)
    answer = invocation.client().ask("POST", path_of("store", "scrub"), answer=nouns.Scrubbed, body=body, timeout_s=None)
    said = f"{len(answer.damaged)} of them damaged" if answer.damaged else "all of them right"
    invocation.out.data(answer, "\n".join([*_damaged_lines(answer.damaged), f"read {plural(answer.files, 'file')}, {size(answer.bytes)}: {said}"]))
    if answer.damaged:
        invocation.out.talk("What is damaged is not served any more, is kept aside, and is fetched again from the peers that hold it.")
    return answer


def _part(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float:
    """``5%`` as 0.05; everything if it is not given."""
    if value is None:
        return 1.0
    found = _PERCENT.fullmatch(value.strip())
    if not found or not 0 < float(found[1]) <= 100:
        raise click.BadParameter(f"{value!r} is not a part; write for example 5%")
    return float(found[1]) / 100


@store.command(prints=nouns.Scrubbed)
@click.option("--sample", metavar="P%", callback=_part, help="Only that part of all files, chosen at random [all].")
@pass_invocation
def verify(invocation: Invocation, *, sample: float) -> int:
    """Read files again and compare their hashes; exits 7 if one is damaged."""
    return IntegrityError.exit_code if _read_again(invocation, sample).damaged else 0


@store.group(cls=Verbs)
def scrub() -> None:
    """Reading every file again now and then happens by itself, see [scrub] in the configuration."""


@scrub.command(prints=nouns.Scrubbed)
@pass_invocation
def now(invocation: Invocation) -> None:
    """Read every file again now; Ctrl-C stops the waiting, not the work."""
    _read_again(invocation, 1.0)


def render_collected(answer: nouns.Collected) -> str:
    """The picture of ``replicad store gc``."""
    said = "removed" if answer.removed else "would remove"
    lines = [f"{said}  {clean(one.name or one.sha256)}  {size(one.size)}  needed by nothing since {moment(one.since)}" for one in answer.due[:LINES_MAX]]
    if answer.files > len(lines):
        lines.append(f"and {answer.files - len(lines)} more (all of them: --json)")
    return "\n".join(
        [
            *lines,
            f"{said} {plural(answer.files, 'file')}, {size(answer.bytes)}; {answer.waiting.files} more, {size(answer.waiting.bytes)}, stay for their grace",
        ]
    )


@store.command(prints=nouns.Collected)
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@YES
@pass_invocation
def gc(invocation: Invocation, *, dry_run: bool, yes: bool) -> None:
    """Remove now the content that nothing has needed for the whole retention time; otherwise that happens by itself once an hour."""
    client, out = invocation.client(), invocation.out

    def ask(*, preview: bool) -> nouns.Collected:
        return client.ask("POST", path_of("store", "gc"), answer=nouns.Collected, body=bodies.Collect(dry_run=preview), timeout_s=None)

    if not dry_run and not yes and out.asks:
        seen = ask(preview=True)
        out.talk(render_collected(seen))
        out.confirm(f"Remove {plural(seen.files, 'file')} from this node's disk?", yes=False)
    answer = ask(preview=dry_run)
    out.data(answer, render_collected(answer))


@store.command(prints=nouns.Repaired)
@pass_invocation
def repair(invocation: Invocation) -> None:
    """Compare the disk with the catalog and mend what differs: take up files that are wanted, fetch again what is missing, remove leftovers."""
    answer = invocation.client().ask("POST", path_of("store", "repair"), answer=nouns.Repaired, timeout_s=None)
    lines = [
        f"lost       {_files(answer.lost, 'to be fetched again')}",
        f"adopted    {_files(answer.adopted)}",
        f"corrupt    {_files(answer.corrupt, 'set aside, to be fetched again')}",
        f"unclaimed  {_files(answer.unclaimed, 'to be collected')}",
        f"partials   {plural(answer.partials, 'leftover')} removed",
        *([f"unreadable {plural(len(answer.unreadable), 'file')}, left as they are: replicad store repair looks again"] if answer.unreadable else []),
    ]
    invocation.out.data(answer, "\n".join(lines))


def _files(found: list[str], fate: str = "") -> str:
    """How many there are, and, if any, what becomes of them."""
    return plural(len(found), "file") + (f", {fate}" if found and fate else "")
