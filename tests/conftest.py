"""What every test shares: event loops, printed seeds, the network of real daemons."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import uvloop

from support.network import Network

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

SEED_VARIABLE = "REPLICAD_TEST_SEED"
ROOT = Path(__file__).parents[1]
ALL_VARIABLE = "REPLICAD_TEST_ALL"
"""Set by .ci/run: a test that cannot run for want of a program is a failure, not a skip."""

hypothesis.settings.register_profile("replicad", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("replicad")


def pytest_configure() -> None:
    """One seed for the whole run; ``REPLICAD_TEST_SEED`` repeats it. Worker processes of xdist inherit it through the environment. Started in the background of a script everything would ignore
    Ctrl-C, also the commands that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(1 << 32)))


def pytest_report_header() -> str:
    """The seed, where everybody sees it."""
    return f"seed: {SEED_VARIABLE}={os.environ[SEED_VARIABLE]} (Hypothesis prints its own with each failure)"


def _is_here(thing: str) -> bool:
    """A system program; "root", the right to act as it; or a file of this tree that make puts there."""
    if thing == "root":
        return os.geteuid() == 0
    if "/" in thing:
        return (ROOT / thing).exists()
    return shutil.which(thing, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.needs("nginx")``: skipped and counted where the program is missing, failed where everything must run."""
    missing = [thing for mark in item.iter_markers("needs") for thing in mark.args if not _is_here(thing)]
    if missing and os.environ.get(ALL_VARIABLE):
        pytest.fail(f"needs {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything must run, a run with skips is not green."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(ALL_VARIABLE) and terminal is not None and terminal.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class PatientLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop. Before it closes, what both ends have left alone gets the time to notice: a TLS handshake that ended after its door was closed ends with the client's goodbye."""

    def close(self) -> None:
        """Close; at most two seconds later than asked."""
        end_s = time.monotonic() + 2
        while not self.is_closed() and time.monotonic() < end_s and any(not transport.is_closing() for transport in list(self._transports.values())):  # type: ignore[attr-defined]
            self.run_until_complete(asyncio.sleep(0))
        super().close()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Tests marked ``sockets`` run once on each loop, every other asynchronous test on asyncio's own."""
    factories: dict[str, Callable[[], AbstractEventLoop]] = {"asyncio": PatientLoop}
    if item.get_closest_marker("sockets") is not None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This run's seed, mixed with the test's name: shown when the test fails."""
    mixed = random.Random(f"{os.environ[SEED_VARIABLE]} {request.node.nodeid}").randrange(1 << 32)
    request.node.add_report_section("setup", "seed", f"{SEED_VARIABLE}={os.environ[SEED_VARIABLE]} gives this test {mixed}")
    return mixed


@pytest.fixture
def dice(seed: int) -> random.Random:
    """Repeatable randomness for one test."""
    return random.Random(seed)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Real daemons in temporary directories on loopback; see support/network.py."""
    network = Network(tmp_path)
    yield network
    for text in network.close():
        print(text)  # noqa: T201 - pytest shows it when the test fails
