"""What tests of the command line share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
import msgspec
import pytest
from cli_terminal import Terminal

from replicad.cli.output import Output
from replicad.cli.shapes import printed
from support.admin_door import Door, opened

NOBODY = 65534


@pytest.fixture
def unprivileged(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Root may read everything, so a test about permissions runs as nobody for its duration (the saved ids stay root's; the others are taken back afterwards)."""
    if os.geteuid() != 0:
        yield
        return
    place = request.getfixturevalue("tmp_path")
    for directory in [place, *place.parents]:
        if directory.stat().st_uid == 0 and directory != directory.parent and directory.stat().st_mode & 0o007 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@pytest.fixture(autouse=True)
def printed_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """No verb prints anything but what it says that it prints, and what the manual shows of it."""
    data = Output.data

    def checked(self: Output, answer: msgspec.Struct, text: str) -> None:
        assert isinstance(answer, printed(click.get_current_context().command))
        data(self, answer, text)

    monkeypatch.setattr(Output, "data", checked)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door of its own for every test."""
    async with opened(tmp_path / "data") as found:
        yield found


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command line, configured for the door."""
    config = tmp_path / "replicad.toml"
    config.write_text(f'[node]\nname = "ams1"\ndata = "{tmp_path / "data"}"\n')
    return Terminal(config, capsys)
