"""The program broken on purpose, one rule at a time: the judge must notice each. ``caught`` says in which seed, and which invariant did not hold.

A mutation is a place in the program (module or class, name), what is put there instead, made from the original, and the attack that liars then prefer.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from replicad.catalog import entries
from replicad.crypto import keys
from replicad.protocol import chains, merge, replica, runs, tenures, trust
from replicad.protocol.gossip import pulls, rights
from simulation import schedule
from simulation.watch import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Function = "Callable[..., object]"


class Mutation(NamedTuple):
    """See the module."""

    where: object
    name: str
    change: Callable[[Function], Function]
    attack: str | None = None


def _always(answer: object) -> Callable[[Function], Function]:
    return lambda _: lambda *_, **__: answer


def _without(*reasons: str) -> Callable[[Function], Function]:
    """Some of the reasons against a record are overlooked."""

    def change(original: Function) -> Function:
        def overlooking(*arguments: object, **options: object) -> object:
            reason = original(*arguments, **options)
            return "" if reason in reasons else reason

        return overlooking

    return change


def _oldest_wins(original: Function) -> Function:
    return lambda rows, *, immutable, elsewhere=(): original(rows, immutable=not immutable, elsewhere=elsewhere)


def _superseding_is_ignored(original: Function) -> Function:
    return lambda rows, *, immutable, **_: original([replace(row, supersedes=()) for row in rows], immutable=immutable)


def _highest_stage(original: Function) -> Function:
    return lambda rows, stages, *, all_stages: original(rows, list(reversed(stages)), all_stages=all_stages)


def _same_chain(original: Function) -> Function:
    return lambda header, _, run: (run.origin, run.share) == (header.origin, header.share)


MUTATIONS: dict[str, Mutation] = {
    "merge: the oldest wins": Mutation(merge, "resolve", _oldest_wins),
    "merge: nothing is superseded": Mutation(merge, "resolve", _superseding_is_ignored),
    "counting: every path": Mutation(tenures.Tenure, "uncovered", _without("path"), "overstep"),
    "counting: every role": Mutation(tenures.Tenure, "uncovered", _without("role"), "promote_oneself"),
    "counting: every stage": Mutation(tenures.Tenure, "uncovered", _without("stage"), "overstep"),
    "hearing: strangers": Mutation(trust.Trust, "knows", _always(answer=True), "promote_oneself"),
    "counting: behind forks": Mutation(runs.Tree, "is_void", _always(answer=False), "equivocate"),
    "counting: juniors end seniors": Mutation(tenures.Tenure, "yields_to", _always(answer=True), "promote_oneself"),
    "cut: keeps everything": Mutation(tenures.CutInForce, "keeps", _always(answer=True)),
    "cut: keeps nothing": Mutation(tenures.CutInForce, "keeps", _always(answer=False)),
    "chain check: anything of the same chain follows": Mutation(chains, "_follows", _same_chain, "break_chain"),
    "chain check: the future is now": Mutation(replica, "is_future", _always(answer=False), "future"),
    "signature check: everything is signed": Mutation(keys, "verify", _always(answer=None), "forge"),
    "stage rule: the highest is shown": Mutation(entries, "_chosen", _highest_stage),
    "rights: everything to everybody": Mutation(rights.Rights, "may_share", _always(answer=True)),
    "gossip: nothing is pulled": Mutation(pulls.Pulls, "want", _always(answer=False)),
}


@contextmanager
def broken(mutation: Mutation) -> Iterator[None]:
    original = getattr(mutation.where, mutation.name)
    setattr(mutation.where, mutation.name, mutation.change(original))
    try:
        yield
    finally:
        setattr(mutation.where, mutation.name, original)


def caught(mutation: Mutation, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first of these seeds that shows it, and the invariant that does not hold."""
    for seed in seeds:
        with broken(mutation):
            try:
                schedule.run(seed, favourite=mutation.attack)
            except Violation as violation:
                return seed, violation.invariant
    return None
