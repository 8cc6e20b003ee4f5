"""Content comes and goes: drives the plan and the supply (``protocol.fetch``) with links, store, catalog, data client and clock.

``service`` pumps; ``wanting`` reads what is wanted, ``awaiting`` knows the clients who wait for it (``Fetch.clients``); ``performing`` does what the plan says;
``partials`` keeps what arrives safe, ``smalls`` what is small; ``getting`` and ``giving`` move bytes when one side cannot be reached; ``provider`` serves what others ask; ``rights`` says who may have what;
``inbox`` takes what was asked for over a link.
"""

from replicad.services.fetch.service import Fetch, Transfer

__all__ = ["Fetch", "Transfer"]
