"""publish: everything below the given paths becomes visible in one step, or nothing does."""

from __future__ import annotations

import getpass
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from replicad.cli import values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import Output, clean, duration, size
from replicad.cli.progress import Progress
from replicad.cli.scan import Source, scan
from replicad.cli.share import only_share
from replicad.cli.upload import check_unchanged, opened, told_of, upload
from replicad.cli.wait import check_nodes, wait_for
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

LINES_MAX = 20
"""Up to here every published file gets its line; beyond, only with --verbose."""
PUBLISH_TIMEOUT_S = 600.0
HASH_BYTES = 1 << 20


class Result(Struct, frozen=True):
    """What ``publish --json`` prints. ``waited`` is null without --wait, ``dry_run`` true when nothing was done."""

    share: str
    published: list[nouns.Published]
    elapsed_s: float
    dry_run: bool
    waited: nouns.Waited | None


def publisher_label() -> str:
    """Who publishes, for people to read: the login name, also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def hash_locally(sources: Sequence[Source], progress: Progress) -> dict[str, nouns.Blob]:
    """What an upload would yield, for a dry run."""
    found = {}
    for source in sources:
        whole = hashlib.sha256()
        with opened(source) as file, told_of(source):
            while piece := file.read(HASH_BYTES):
                whole.update(piece)
                progress.advance(len(piece))
            check_unchanged(source, file)
        found[source.path] = nouns.Blob(whole.hexdigest(), source.size)
    return found


def publish_sources(client: Client, out: Output, sources: Sequence[Source], *, share: str, stage: str | None, urgent: bool, dry_run: bool) -> nouns.Publication:
    """Upload the contents (or, for a dry run, only hash them), then name them all in one call."""
    with Progress(out, "checking" if dry_run else "uploading", total_bytes=sum(source.size for source in sources)) as progress:
        try:
            blobs = hash_locally(sources, progress) if dry_run else upload(client, sources, share, progress.advance)
        except KeyboardInterrupt:
            out.talk("interrupted; nothing was published")
            raise
    entries = [bodies.NewEntry(path=source.path, sha256=blobs[source.path].sha256, size=blobs[source.path].size) for source in sources]
    body = bodies.Publish(entries=entries, stage=stage, publisher=publisher_label(), urgent=urgent, dry_run=dry_run)
    return client.ask("POST", path_of("shares", share, "entries"), answer=nouns.Publication, body=body, timeout_s=PUBLISH_TIMEOUT_S)


def render(answer: nouns.Publication, elapsed_s: float, *, dry_run: bool, every_line: bool) -> str:
    """One line a file, or one for all of many."""
    counts = {state: sum(one.state == state for one in answer.published) for state in ("new", "replaced", "unchanged")}
    total = sum(one.size for one in answer.published)
    word = "would publish" if dry_run else "published"
    summary = f"{word}  {plural(len(answer.published), 'file')} to {answer.share}  {size(total)}  ({', '.join(f'{count} {state}' for state, count in counts.items() if count)})  {duration(elapsed_s)}"
    if len(answer.published) > LINES_MAX and not every_line:
        return summary
    words = {"new": word, "replaced": "would replace" if dry_run else "replaced", "unchanged": "unchanged"}
    lines = [
        f"{words[one.state]}  {clean(f'{answer.share}/{one.path}')}  {size(one.size)}  sha256 {one.sha256[:8]}...{one.sha256[-4:]}"
        + (f"  (was {clean(one.former)})" if one.former else "")
        for one in answer.published
    ]
    return "\n".join([*lines, summary]) if len(lines) > 1 else f"{lines[0]}  {duration(elapsed_s)}"


def _paths(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> tuple[Path, ...]:
    """An empty one, as a script has it whose variable is empty, is not the current directory."""
    if not all(given):
        raise click.BadParameter("an empty name; for the current directory write .")
    return tuple(Path(one) for one in given)


def _warn(out: Output, answer: nouns.Publication) -> None:
    """Of what clients get no more, because the lowest stage counts."""
    hiding = [one for one in answer.published if one.hides]
    if hiding:
        first = hiding[0]
        names = clean(f"{answer.share}/{first.path}") + (f" and {len(hiding) - 1} more" if len(hiding) > 1 else "")
        out.talk(
            f"warning: {names}: clients of nodes that carry stage {first.stage} get this instead of what stands at {first.hides}"
            f"\n  to keep it from a node: replicad peer set NODE --stage {first.hides}"
        )


@click.command(cls=Verb, prints=Result)
@click.argument("given", metavar="PATH...", nargs=-1, required=True, type=click.Path(readable=False), callback=_paths)
@click.option("--share", "named_share", metavar="SHARE", help="The share; not needed where there is only one.")
@click.option(
    "--as",
    "target",
    default="",
    metavar="PATH",
    help="Where it lands in the share. A directory's contents land below it; a single file becomes it, or lands below it if it ends in '/'.",
)
@click.option("--stage", metavar="STAGE", help="The stage [the share's last].")
@click.option(
    "--wait", "wait_nodes", metavar=values.NODES_METAVAR, callback=values.nodes, help="Wait until so many nodes hold everything (all, a number, a percentage)."
)
@click.option("--timeout", callback=values.duration, metavar="DURATION", help="Give up waiting after this time (exit 8); replication goes on.")
@click.option("--urgent", is_flag=True, help="Every node fetches it before other files, and no limit holds it up.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would happen; send nothing.")
@pass_invocation
def publish(
    invocation: Invocation,
    /,
    *,
    given: tuple[Path, ...],
    named_share: str | None,
    target: str,
    stage: str | None,
    urgent: bool,
    dry_run: bool,
    **waiting: Any,
) -> int:
    """Publish files and the contents of directories: all of them at once, or none."""
    started = time.monotonic()
    out, wait_nodes = invocation.out, waiting["wait_nodes"]
    sources = scan(given, target)
    client = invocation.client()
    share = only_share(client, named_share)
    if wait_nodes is not None:
        check_nodes(client, share=share, stage=stage, nodes=wait_nodes)
    answer = publish_sources(client, out, sources, share=share, stage=stage, urgent=urgent, dry_run=dry_run)
    elapsed_s = time.monotonic() - started
    _warn(out, answer)
    text = render(answer, elapsed_s, dry_run=dry_run, every_line=out.verbose)
    if wait_nodes is None or dry_run:
        out.data(Result(share, answer.published, elapsed_s, dry_run, None), text)
        return 0
    if not out.as_json:
        click.echo(text)
    entries = [bodies.WaitEntry(path=one.path, stage=one.stage) for one in answer.published]
    waited, code = wait_for(client, out, share=share, entries=entries, nodes=wait_nodes, timeout_s=waiting["timeout"])
    out.data(Result(share, answer.published, elapsed_s, dry_run, waited), "")
    return code
