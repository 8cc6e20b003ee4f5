"""The command line: one file per group of verbs. Client verbs talk to the daemon over its admin socket with http.client and never import aiohttp."""
