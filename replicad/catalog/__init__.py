"""The catalog: everything this node knows, in one SQLite file, and the only place with SQL.

``Catalog`` (catalog.py) is what others import. Behind it: ``database`` (connections, grouped commits), ``health`` (what is wrong with its file), ``migrations`` and ``schema/*.sql``, ``journal`` (how records get in), ``entries``
(names: registers, listings), ``history`` (what was said about a name), ``contents`` (what is held, wanted, half-fetched), ``keeping`` (what is damaged, what nothing needs), ``peers`` (heads, invites, blame), ``users``, ``sessions``, ``tokens`` and ``actions`` (who uses the admin door, and what for), ``uploads`` (what is being received), ``copies`` (for backups). Answers are the plain values of ``answers`` and ``replicad.model``.
"""

from replicad.catalog.answers import (
    Action,
    ActionChain,
    Blame,
    Copied,
    Damage,
    HeadRow,
    Invite,
    Missing,
    PartialRow,
    Pending,
    Received,
    Refusal,
    Session,
    Standing,
    Token,
    Upload,
    Usage,
    User,
    UserSecrets,
)
from replicad.catalog.catalog import Catalog
from replicad.catalog.copies import take_up

__all__ = [
    "Action",
    "ActionChain",
    "Blame",
    "Catalog",
    "Copied",
    "Damage",
    "HeadRow",
    "Invite",
    "Missing",
    "PartialRow",
    "Pending",
    "Received",
    "Refusal",
    "Session",
    "Standing",
    "Token",
    "Upload",
    "Usage",
    "User",
    "UserSecrets",
    "take_up",
]
