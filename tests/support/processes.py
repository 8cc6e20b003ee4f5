"""Processes of a test: started with their output in a file, ended by their own id, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import wait_for

PYTHON = (sys.executable, "-X", "dev", "-W", "error::ResourceWarning")
STOP_S = 15.0


class Process:
    """One child. ``log`` receives its stdout and stderr."""

    def __init__(self, command: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._offset = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(environ or {})})

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def output(self) -> str:
        """What this process (not an earlier one with the same log) has said so far."""
        return self.log.read_bytes()[self._offset :].decode(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait_for_output(self, text: str, *, deadline_s: float = 30.0) -> None:
        """Until it says ``text``; fails with the whole output if it ends before."""
        wait_for(lambda: text in self.output() or not self.alive, what=f"{text!r} in the output of {self.child.args!r}", deadline_s=deadline_s)
        assert text in self.output(), self.output()

    def wait(self, *, deadline_s: float = STOP_S) -> int:
        """Its exit code."""
        try:
            return self.child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {deadline_s:g} s:\n{self.output()}") from None

    def stop(self, *, deadline_s: float = STOP_S) -> int:
        """SIGTERM and the exit code."""
        if self.alive:
            self.send(signal.SIGTERM)
        return self.wait(deadline_s=deadline_s)

    def kill(self) -> None:
        """SIGKILL, and until it is gone."""
        self.child.kill()
        self.child.wait(STOP_S)
