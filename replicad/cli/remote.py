"""The remote node that `replicad login` leads to: where it is, how its certificate is verified, and the session, in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from replicad.cli.client import Client
from replicad.errors import ConfigurationError

FILE_BYTES_MAX = 1 << 20


class Remote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``secret``: the session's text. ``ca``: certificates (PEM) that are trusted instead of the system's; empty: the system's."""

    url: str
    secret: str
    ca: str = ""

    def client(self) -> Client:
        """For verbs."""
        return Client(url=self.url, token=self.secret, ca=self.ca)


def place() -> Path:
    """The file, below the directory for a person's state (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "replicad" / "session.json"


def load() -> Remote | None:
    """The login in use; None without one. ConfigurationError if the file cannot be used."""
    file = place()
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(FILE_BYTES_MAX), type=Remote)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be used: {getattr(error, 'strerror', None) or error}", hint=f"replicad login URL, or remove {file}") from None


def store(remote: Remote) -> None:
    """In place of the login before, whole or not at all. ConfigurationError."""
    file = place()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as opened:
            opened.write(msgspec.json.encode(remote))
        unfinished.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file}: the session cannot be kept: {error.strerror}") from None


def forget() -> None:
    """There is no login any more."""
    with contextlib.suppress(FileNotFoundError):
        place().unlink()
