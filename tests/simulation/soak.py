"""Many seeds of the mixed schedule, two at a time: ``make soak SEEDS=500``. A failing seed is printed with the command that replays it.

python tests/simulation/soak.py 500            seeds 0 to 499
python tests/simulation/soak.py --seed 17      one seed
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from simulation import schedule  # noqa: E402 - found by the line above

PROCESSES = 2
TOLD_EVERY = 25


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def one(seed: int) -> tuple[int, str, schedule.Outcome | None]:
    """The seed, what went wrong, and how it was."""
    try:
        outcome = schedule.run(seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed has failed and the next one is to run
        return seed, f"{type(error).__name__}: {error}", None
    finally:
        gc.collect()
    return (seed, "", outcome) if outcome.looked > schedule.EVENTS else (seed, f"looked at only {outcome.looked} times", None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="?", default=500)
    parser.add_argument("--seed", type=int, help="replay this one")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = schedule.run(options.seed)
        _say(f"seed {options.seed}: {outcome}")
        return 0
    return soak(range(options.seeds))


def soak(seeds: range) -> int:
    """1 if some seed failed, or if something that is to be survived never happened."""
    begun, failed, done = time.monotonic(), 0, Counter[str]()
    rounds = 0.0
    with ProcessPoolExecutor(PROCESSES) as pool:
        for count, (seed, trouble, outcome) in enumerate(pool.map(one, seeds), 1):
            if outcome is None:
                failed += 1
                _say(f"seed {seed}: {trouble}\n    {os.path.relpath(sys.executable)} tests/simulation/soak.py --seed {seed}")
            else:
                done += outcome.done
                rounds = max(rounds, outcome.rounds)
            if count % TOLD_EVERY == 0 or count == len(seeds):
                _say(f"{count} seeds, {failed} failed, {done.total()} events, agreement after {rounds:.1f} rounds at most, {time.monotonic() - begun:.0f} s")
    _say(", ".join(f"{name} {times}" for name, times in sorted(done.items())))
    if never := schedule.SURVIVED - done.keys():
        _say(f"never happened: {', '.join(sorted(never))}")
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main())
