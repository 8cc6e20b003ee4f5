"""People: whom this node knows (``users``), how they prove it (``logins``, with ``argon`` for the work and ``guesses`` for those who guess), and what they bear afterwards (``sessions``)."""

from replicad.services.identity.argon import Argon
from replicad.services.identity.guesses import Guesses
from replicad.services.identity.logins import Logins
from replicad.services.identity.sessions import Opened, Sessions
from replicad.services.identity.users import Users

__all__ = ["Argon", "Guesses", "Logins", "Opened", "Sessions", "Users"]
