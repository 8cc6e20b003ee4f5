"""The admin door: people and scripts, over a Unix socket (trusted) or TCP (bearer token). This package itself imports nothing, so that the command line can read ``nouns`` without aiohttp."""
