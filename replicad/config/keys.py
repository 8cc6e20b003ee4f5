"""What is known of one key of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replicad.config.values import Kind

REQUIRED = object()
"""As a default: the key must be given."""


@dataclass(frozen=True, slots=True)
class Key:
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
