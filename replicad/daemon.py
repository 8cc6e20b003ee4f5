"""The daemon's life: one event loop, signals, readiness, and an end that always comes.

``run`` knows nothing of what it runs: ``build`` enters everything in order and yields an object to run. The order of stopping is the reverse of entering, by the same context manager.

| what happens                | what follows                                                                                                          |
|-----------------------------|-----------------------------------------------------------------------------------------------------------------------|
| SIGTERM, first SIGINT       | the main task is cancelled wherever it is, also while starting; ``build``'s context manager unwinds; exit code 0       |
| second SIGINT               | the process ends at once, exit code 130                                                                               |
| SIGHUP                      | ``reload`` of the running object; a refused configuration is logged and the old one stays                             |
| stopping takes over stop_s  | the process ends at once, exit code 1: everything acknowledged is already durable, so this costs nothing but tidiness |
| the node asks for it        | it is unwound and built anew in the same process, under the same lock: a new key needs that                           |
| starting fails              | one ReplicadError for the command line to print; no thread, socket or child is left                                   |

systemd hears READY, RELOADING, STOPPING and WATCHDOG (sd_notify(3)); the watchdog's beat comes from the event loop itself, so a stuck loop is a missing beat.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from replicad.errors import ConfigurationError, ReplicadError
from replicad.telemetry import notify
from replicad.telemetry.log import get
from replicad.telemetry.priority import step_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

Loop = Literal["auto", "asyncio", "uvloop"]
STOP_S = 10.0
"""How long a structured stop may take (issue: SIGTERM drains within 10 s)."""
OPEN_FILES_MAX = 65_536
GARBAGE_MIN = 10_000
"""New objects after which the youngest are searched for garbage in cycles: 700 is made for programs that leave some; here it was 4 % of the CPU of a node that took in 2,000 files."""
LOCK_NAME = "daemon.lock"
EXIT_INTERRUPTED = 130

log = get(__name__)


class Runnable(Protocol):
    """What ``build`` yields once every listener is bound."""

    async def run(self) -> bool:
        """Work until cancelled. Raising ends the daemon; returning ends it, too, or (True) has it built anew."""

    async def reload(self) -> None:
        """Apply what can change while running; ReplicadError if the new configuration is refused."""


def run(build: Callable[[], AbstractAsyncContextManager[Runnable]], *, data: Path, loop: Loop = "auto", stop_s: float = STOP_S) -> None:
    """Run the daemon on this data directory until it is told to stop. Raises ReplicadError if it cannot start or cannot go on; nothing of it is alive after that."""
    threads = set(threading.enumerate())
    deadline = _Deadline(stop_s)
    _raise_open_files()
    step_back()
    try:
        with locked(data), asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
            runner.run(_live(build, deadline))
    except OSError as error:
        raise ReplicadError(f"cannot run: {error.strerror or error}", code="system") from error
    except ReplicadError:
        raise
    except Exception as error:
        log.exception("the daemon ended for a reason that nobody foresaw")
        raise ReplicadError(f"internal error: {type(error).__name__}: {error}", code="internal") from error
    finally:
        deadline.start()
        if all(thread.daemon for thread in set(threading.enumerate()) - threads - {deadline.thread}):
            deadline.cancel()


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data directory for one process. Raises ReplicadError("in-use") if another one has it, ConfigurationError if it cannot be used."""
    try:
        fd = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no data directory {data}", hint="make one: replicad init --name NAME --data DIR") from None
    except OSError as error:
        raise ConfigurationError(f"cannot use the data directory {data}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise ReplicadError(f"the data directory {data} is in use by another daemon (process {holder or 'unknown'})", code="in-use") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop cannot tell anybody else is logged as an error, except that uvloop still tries to answer on a TLS connection whose peer reset it a moment ago (0.23): that is life."""
    error = context.get("exception")
    if isinstance(error, RuntimeError) and "the handler is closed" in str(error):
        log.debug("a connection was lost while it was written to", detail=str(error))
    else:
        loop.default_exception_handler(context)


async def _live(build: Callable[[], AbstractAsyncContextManager[Runnable]], deadline: _Deadline) -> None:
    asyncio.get_running_loop().set_exception_handler(complain)
    signals = _Signals(deadline)
    with signals.handled():
        again = True
        try:
            while again:
                again = False
                async with build() as node:
                    try:
                        _spare_memory_search()
                        notify.send("READY=1")
                        log.info("ready", pid=os.getpid(), loop=type(asyncio.get_running_loop()).__module__.split(".")[0])
                        again = await _run_with_companions(node, signals.reload)
                    finally:
                        notify.send("RELOADING=1" if again else "STOPPING=1")
                        if not again:
                            deadline.start()
        except asyncio.CancelledError:
            if not signals.stopping:
                raise
    log.info("stopped")


def _spare_memory_search() -> None:
    """Whatever is there when the node is ready stays: the search for garbage in cycles need not look at it again and again."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_MIN)


async def _run_with_companions(node: Runnable, reload: asyncio.Event) -> bool:
    """The node, and beside it what answers SIGHUP and the watchdog."""
    try:
        async with asyncio.TaskGroup() as group:
            companions = [group.create_task(_reload_when_asked(node, reload)), group.create_task(_beat())]
            again = await node.run()
            for task in companions:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return again


async def _reload_when_asked(node: Runnable, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        notify.send("RELOADING=1")
        try:
            await node.reload()
        except ReplicadError as error:
            log.error("reload refused, the old configuration stays", reason=error.message)
        notify.send("READY=1")


async def _beat() -> None:
    interval_s = notify.watchdog_s()
    while interval_s is not None:
        notify.send("WATCHDOG=1")
        await asyncio.sleep(interval_s / 2)


class _Signals:
    """What the process is told from outside, for the task that is running now."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.stopping = False
        self.reload = asyncio.Event()

    @contextmanager
    def handled(self) -> Iterator[None]:
        handlers: dict[int, Callable[[], object]] = {signal.SIGTERM: self._stop, signal.SIGINT: self._interrupt, signal.SIGHUP: self.reload.set}
        for number, handler in handlers.items():
            self._loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                self._loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        if self.stopping:
            os._exit(EXIT_INTERRUPTED)
        self._stop()

    def _stop(self) -> None:
        if not self.stopping and self._task is not None:
            self.stopping = True
            self._deadline.start()
            log.info("stopping")
            self._task.cancel()


class _Deadline:
    """Ends the process ``stop_s`` after ``start``, whatever hangs. Needed because a thread in a blocked system call cannot be cancelled."""

    def __init__(self, stop_s: float) -> None:
        self._stop_s = stop_s
        self._cancelled = threading.Event()
        self.thread = threading.Thread(target=self._wait, name="stop-deadline", daemon=True)

    def start(self) -> None:
        """Begin to count; repeating it changes nothing."""
        if self.thread.ident is None:
            self.thread.start()

    def cancel(self) -> None:
        """The stop is complete."""
        self._cancelled.set()

    def _wait(self) -> None:
        if not self._cancelled.wait(self._stop_s):
            sys.stderr.write(f"replicad: did not stop within {self._stop_s:g} s and was ended; nothing acknowledged is lost\n")
            sys.stderr.flush()
            os._exit(1)


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop when it is there, unless told otherwise."""
    if loop == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415 - optional at run time
    except ImportError:
        if loop == "uvloop":
            raise ConfigurationError("uvloop is not installed", hint="pip install uvloop, or choose asyncio") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _first(errors: BaseExceptionGroup) -> BaseException:
    """The first cause inside nested groups: what the command line prints."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _raise_open_files() -> None:
    """A swarm and thousands of clients need more than the usual 1,024 open files; the hard limit is the administrator's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit on open files stays as it is", limit=soft, reason=error)
