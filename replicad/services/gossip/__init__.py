"""Drives the gossip core (``protocol.gossip``): ``service`` with links, hub, catalog and clock; ``backlog`` holds what one peer sent and is not stored yet."""

from replicad.services.gossip.service import GossipService

__all__ = ["GossipService"]
