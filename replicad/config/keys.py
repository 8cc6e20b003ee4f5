"""What is known of one key of the configuration."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from replicad.config.values import Kind

REQUIRED = object()
"""As a default: the key must be given."""


class Key(Struct, frozen=True):
    """One key: ``default`` as the program uses it (``REQUIRED``: none); ``sample`` is shown in the example when there is no default worth showing; ``help`` for people."""

    section: str
    name: str
    kind: Kind
    default: Any
    help: str
    sample: str = ""

    @property
    def path(self) -> str:
        """``section.name``."""
        return f"{self.section}.{self.name}"
