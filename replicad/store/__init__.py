"""The store: bytes on disk, addressed by SHA-256.

It decides when bytes are believed (every chunk and the whole content match their hashes) and when they are durable (fsync before rename before anybody is told). It refuses to know names,
rights, peers and SQLite: whoever needs those calls it from a service. docs/protocol.md, "Store and crash safety".
"""
