"""Gossip, heads and anti-entropy: what a node tells whom, and what it asks whom, decided without clock, dice or wires."""
