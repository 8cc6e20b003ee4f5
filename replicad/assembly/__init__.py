"""Builds the daemon: everything is made here, once, in the order in which it is read, and ends in the reverse order. Nothing else constructs.

The pieces that services need of each other are handed over as functions, so that services stay strangers. What must be asked afresh because joining a network replaces it
(``catalog.network``, ``catalog.replica``) is never copied.
"""

from replicad.assembly.node import build

__all__ = ["build"]
