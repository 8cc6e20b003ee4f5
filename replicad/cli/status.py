"""status, matrix, transfers, doctor: the pictures."""

from __future__ import annotations

import time

import click

from replicad.cli import output
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import Output, clean, duration, since, size
from replicad.model.words import plural
from replicad.server.admin import nouns

WATCH_S = 2.0
STATE_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def _store_line(store: nouns.StoreUse) -> str:
    line = f"store   {plural(store.files, 'file')}   {size(store.used_bytes)} used   {size(store.free_bytes)} free of {size(store.total_bytes)}"
    line += f"   quota {size(store.quota_bytes)}" if store.quota_bytes else ""
    line += f"   fetching {plural(store.wanted, 'file')}, {size(store.wanted_bytes)}" if store.wanted else ""
    return line + (f"   {plural(store.taken_down, 'content')} taken down" if store.taken_down else "")


def _peer_line(peer: nouns.Peer, width: int) -> str:
    name = clean(peer.name).ljust(width)
    behind = f"{plural(peer.lag.files, 'file')} behind" if peer.lag and peer.lag.files else ""
    paused = "   PAUSED" if peer.paused else ""
    if not peer.linked:
        when = since(peer.since) if peer.since else ""
        return f"  {name}  " + ", ".join(part for part in (f"OFFLINE {when}".rstrip(), behind) if part) + paused
    delay = "-" if peer.rtt_ms is None else f"{peer.rtt_ms:.0f} ms"
    percent = "?" if peer.percent is None else f"{peer.percent} %"
    left = f"   {size(peer.lag.bytes)} left, {behind}" if peer.lag and peer.lag.files else ""
    return f"  {name}  {delay:>7}   {percent:>5}{left}{paused}"


def render_status(answer: nouns.Status, out: Output) -> str:
    """The picture of ``replicad status``."""
    node = answer.node
    state = out.paint("ok", "green") if node.state == "ok" else out.paint(node.state.upper(), "red")
    head = f"{clean(node.name)}  {node.id[:9]}-...  {node.version}  up {duration(node.uptime_s)}"
    lines = [f"{head:<75} {state}", _store_line(answer.store)]
    lines.append("stages  " + ("   ".join(f"{stage} {count}" for stage, count in answer.stages.items()) or "none"))
    lines.append(f"peers   {sum(peer.linked for peer in answer.peers)} of {len(answer.peers)} linked")
    width = max((len(clean(peer.name)) for peer in answer.peers), default=0)
    lines += [_peer_line(peer, width) for peer in answer.peers]
    for problem in answer.problems:
        arrow = f"   -> {clean(problem.hint)}" if problem.hint else ""
        lines.append(out.paint("! ", "red") + clean(problem.message) + arrow)
    return "\n".join(lines)


def _show_status(client: Client, out: Output) -> None:
    answer = client.ask("GET", path_of("status"), answer=nouns.Status)
    out.data(answer, render_status(answer, out))


@click.command(cls=Verb, prints=nouns.Status)
@click.option("--watch", is_flag=True, help="Show it again every two seconds until Ctrl-C.")
@pass_invocation
def status(invocation: Invocation, *, watch: bool) -> None:
    """Show this node, its store, its peers and what is wrong. Exits 0 when the daemon answers, also when degraded."""
    client, out = invocation.client(), invocation.out
    while True:
        if watch and not out.as_json:
            click.clear()
        _show_status(client, out)
        if not watch:
            return
        time.sleep(WATCH_S)


def _cell(percent: int | None, *, wanted: bool) -> str:
    if not wanted:
        return ""
    if percent is None:
        return "--"
    return "ok" if percent == 100 else f"{percent} %"


def render_matrix(answer: nouns.Matrix) -> str:
    """The picture of ``replicad matrix``."""
    heads = ["FILE", "STAGE", *(f"{output.RIGHT}{clean(node.name)}" for node in answer.nodes), f"{output.RIGHT}COPIES"]
    rows = (
        [
            f"{row.share}/{row.path}",
            row.stage,
            *(_cell(percent, wanted=wanted) for percent, wanted in zip(row.percent, row.wanted, strict=True)),
            f"{row.copies}/{row.copies_wanted}",
        ]
        for row in answer.rows
    )
    return output.table(heads, rows)


@click.command(cls=Verb, prints=nouns.Matrix)
@click.option("--incomplete", is_flag=True, help="Only files that some node lacks.")
@click.option("--share", metavar="SHARE", help="Only this share.")
@pass_invocation
def matrix(invocation: Invocation, *, incomplete: bool, share: str | None) -> None:
    """Show which node holds which file."""
    answer = invocation.client().whole(path_of("matrix"), answer=nouns.Matrix, items="rows", query={"share": share, "incomplete": incomplete})
    invocation.out.data(answer, render_matrix(answer))


def _left(transfer: nouns.Transfer) -> str:
    return duration((transfer.size - transfer.done) / transfer.rate_bytes_s) if transfer.rate_bytes_s > 0 else ""


def render_transfers(answer: nouns.Transfers) -> str:
    """The picture of ``replicad transfers``."""
    heads = ["FILE", ">SIZE", ">DONE", ">RATE", ">LEFT", "FROM"]
    rows = (
        [
            f"{transfer.share}/{transfer.path}" if transfer.path else transfer.sha256[:12],
            size(transfer.size),
            f"{100 * transfer.done // max(1, transfer.size)} %",
            f"{size(transfer.rate_bytes_s)}/s",
            _left(transfer),
            ", ".join(transfer.sources),
        ]
        for transfer in answer.transfers
    )
    return output.table(heads, rows)


@click.command(cls=Verb, prints=nouns.Transfers)
@click.option("--watch", is_flag=True, help="Show it again every two seconds until Ctrl-C.")
@pass_invocation
def transfers(invocation: Invocation, *, watch: bool) -> None:
    """Show what this node is fetching now."""
    client, out = invocation.client(), invocation.out
    while True:
        answer = client.ask("GET", path_of("transfers"), answer=nouns.Transfers)
        if watch and not out.as_json:
            click.clear()
        out.data(answer, render_transfers(answer))
        if not watch:
            return
        time.sleep(WATCH_S)


@click.command(cls=Verb, prints=nouns.Examined)
@pass_invocation
def doctor(invocation: Invocation) -> int:
    """Examine this node and its network; exits 1 if something is broken, 0 if all is well or merely worth a warning."""
    out = invocation.out
    answer = invocation.client().ask("GET", path_of("doctor"), answer=nouns.Examined)
    lines = []
    for finding in answer.findings:
        lines.append(f"{out.paint(finding.state.ljust(7), STATE_COLORS.get(finding.state, 'white'))}  {finding.check}: {clean(finding.message)}")
        if finding.hint and finding.state != "ok":
            lines.append(f"         -> {clean(finding.hint)}")
    out.data(answer, "\n".join(lines))
    return int(any(finding.state == "failed" for finding in answer.findings))
