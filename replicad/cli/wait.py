"""wait: until enough nodes hold the verified content. Waiting is all that a Ctrl-C or the timeout ends; the work goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import click

from replicad.cli import values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import Output, clean, duration
from replicad.cli.progress import Progress
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

EXIT_PARTLY = 3
EXIT_TIMED_OUT = 8
LIVE_POLL_S = 1.0
ANSWER_MARGIN_S = 50.0
"""Beyond the long poll's own time: the daemon may be busy."""


def wait_for(client: Client, out: Output, *, share: str, entries: Sequence[bodies.WaitEntry], nodes: str, timeout_s: float | None) -> tuple[nouns.Waited, int]:
    """Wait and show progress. Returns the last state and the exit code: 0 done, 3 every linked node has it and others are offline, 8 the time is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    poll_s = LIVE_POLL_S if out.live else bodies.LONG_POLL_S_MAX
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            progress: Progress | None = None
            while True:
                left_s = poll_s if deadline is None else max(0.0, min(poll_s, deadline - time.monotonic()))
                if out.live and progress is None:
                    left_s = 0.0  # a bar is there at once; otherwise one request less, for each makes the daemon look up every name
                body = bodies.Wait(share=share, entries=list(entries), nodes=nodes, timeout_s=left_s)
                answer = client.ask("POST", path_of("wait"), answer=nouns.Waited, body=body, timeout_s=left_s + ANSWER_MARGIN_S)
                if answer.state != "pending" or (deadline is not None and time.monotonic() >= deadline):
                    break
                if progress is None:
                    progress = stack.enter_context(Progress(out, "replicating", total_bytes=sum(node.bytes_wanted for node in answer.nodes), begun_s=started))
                progress.show(sum(node.bytes for node in answer.nodes), f"{answer.holders} of {plural(len(answer.nodes), 'node')}")
    except KeyboardInterrupt:
        out.talk("stopped waiting; replication goes on")
        raise
    out.talk(summary(answer, time.monotonic() - started))
    return answer, {"done": 0, "linked": EXIT_PARTLY}.get(answer.state, EXIT_TIMED_OUT)


def check_nodes(client: Client, *, share: str, stage: str | None, nodes: str) -> None:
    """Before anything is published: InputError if more nodes would be waited for than can ever hold it."""
    client.ask("POST", path_of("wait"), answer=nouns.Waited, body=bodies.Wait(share=share, entries=[], stage=stage, nodes=nodes, timeout_s=0.0))


def summary(answer: nouns.Waited, elapsed_s: float) -> str:
    """``replicated to 6 of 7 nodes in 38 s   (nyc2 is offline and will catch up)``."""
    behind = [clean(node.name) for node in answer.nodes if node.files < node.files_wanted]
    words = f"replicated to {answer.holders} of {plural(len(answer.nodes), 'node')} in {duration(elapsed_s)}"
    if answer.state == "linked":
        return f"{words}   ({', '.join(behind)} {'is' if len(behind) == 1 else 'are'} offline and will catch up)"
    return words if answer.state == "done" else f"{words}   (stopped waiting; replication goes on)"


@click.command(cls=Verb, prints=nouns.Waited)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@click.option(
    "--nodes", default="all", show_default=True, metavar=values.NODES_METAVAR, callback=values.nodes, help="How many nodes must hold it, this one included."
)
@click.option("--timeout", callback=values.duration, metavar="DURATION", help="Give up waiting after this time (exit 8); the work goes on.")
@pass_invocation
def wait(invocation: Invocation, *, name: tuple[str, str], nodes: str, timeout: float | None) -> int:
    """Wait until nodes hold a file. Exits 3 when all linked nodes have it and others are offline."""
    share, path = name
    answer, code = wait_for(invocation.client(), invocation.out, share=share, entries=[bodies.WaitEntry(path=path)], nodes=nodes, timeout_s=timeout)
    invocation.out.data(answer, "")
    return code
