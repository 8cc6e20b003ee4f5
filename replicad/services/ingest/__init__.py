"""Ingest: contents come in and get names. ``Ingest`` takes them in one go, ``Uploads`` over many requests and restarts."""

from replicad.services.ingest.ingest import Ingest, Item, Published
from replicad.services.ingest.uploads import Destination, Uploads, UploadsConfig

__all__ = ["Destination", "Ingest", "Item", "Published", "Uploads", "UploadsConfig"]
