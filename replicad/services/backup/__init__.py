"""Backups: the file (``archive``), how the daemon makes one while it runs (``making``), how a node is restored from one (``restoring``)."""

from replicad.services.backup.making import Backups

__all__ = ["Backups"]
