"""The command line as a test types it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from replicad.cli.main import main


@dataclass
class Terminal:
    """The command line, in a thread beside the door's event loop."""

    config: Path
    capture: pytest.CaptureFixture[str]

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        code = await asyncio.to_thread(main, ["--config", str(self.config), *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    async def json(self, *arguments: str, code: int = 0) -> Any:
        """The object on stdout."""
        found, out, err = await self.run("--json", *arguments)
        assert (found, err) == (code, "")
        return json.loads(out)

    async def error(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and the error object; nothing on stdout."""
        code, out, err = await self.run("--json", *arguments)
        assert out == ""
        return code, json.loads(err)
