"""replicad: puts packages where the computers are, keeps every copy verified, and keeps working when machines, links and people fail."""

__version__ = "0.1.0"
