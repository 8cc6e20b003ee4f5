"""Content comes and goes: drives the plan and the supply (``protocol.fetch``) with links, store, catalog, data client and clock.

``service`` pumps; ``wanting`` reads what is wanted, ``awaiting`` knows the clients who wait for it (``Fetch.clients``); ``performing`` does what the plan says;
``partials`` keeps what arrives safe, ``smalls`` what is small; ``reuse`` looks first for what the disk has; ``getting`` asks, whichever side cannot be reached, ``inbox`` takes what was asked for over a link, ``giving``
sends that; ``provider`` serves what others ask, ``small_reader`` reads small contents for it; ``speaking`` says what plan and supply want said; ``rights`` says who may have what, ``limiting`` how fast it may come.
"""

from replicad.services.fetch.service import Fetch, Transfer

__all__ = ["Fetch", "Transfer"]
