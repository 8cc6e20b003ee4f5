"""sd_notify(3): tells the service manager how the daemon is. Without one (``NOTIFY_SOCKET`` unset) nothing happens."""

from __future__ import annotations

import os
import socket

from replicad.telemetry.log import get

log = get(__name__)


def send(message: str) -> None:
    """Send ``READY=1`` and the like. Never raises and never waits: a manager that does not listen must not stop the daemon."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as manager:
            manager.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError as error:
        log.seldom("notify", "the service manager cannot be told", reason=error.strerror)


def watchdog_s() -> float | None:
    """How often the manager wants to hear ``WATCHDOG=1`` at the latest, in seconds; None if it does not want to, or not from this process (sd_watchdog_enabled(3))."""
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdecimal() or int(interval) == 0 or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(interval) / 1e6
