"""Curation: what becomes of names after they were published."""

from replicad.services.curation.curation import Change, Curation
from replicad.services.curation.versions import taken_down

__all__ = ["Change", "Curation", "taken_down"]
