"""Decisions, without clock, dice or wires: which records are believed, what they add up to, what to say and to fetch next."""
