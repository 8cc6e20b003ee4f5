"""Wires between nodes: links, TLS with pinned certificates, the client for content, and an in-memory network. It moves bytes and knows nothing about records."""
