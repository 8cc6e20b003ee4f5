"""The swarm, without wires: who is asked for what, what is believed of whom, who is told what.

``Plan`` is the fetching side, ``Supply`` the serving side, ``Turns`` the order in which requests are served. Each is told events and the time and returns effects; a service performs them
(docs/protocol.md, "Content"). Nothing in here waits, hashes, reads or rolls dice: one integer seed replays any run, and a test runs many nodes in one process.
"""
