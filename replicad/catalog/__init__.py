"""The catalog: everything this node knows, in one SQLite file, and the only place with SQL.

``Catalog`` (catalog.py) is what others import. Behind it: ``database`` (connections, grouped commits), ``migrations`` and ``schema/*.sql``, ``journal`` (how records get in), ``entries``
(names: registers, listings), ``history`` (what was said about a name), ``contents`` (what is held, wanted, half-fetched), ``keeping`` (what is damaged, what nothing needs) and ``peers`` (heads, invites, blame). Answers are the plain values of ``answers`` and ``replicad.model``.
"""

from replicad.catalog.answers import Blame, Damage, HeadRow, Invite, Missing, PartialRow, Pending, Received, Refusal, Standing, Usage
from replicad.catalog.catalog import Catalog

__all__ = ["Blame", "Catalog", "Damage", "HeadRow", "Invite", "Missing", "PartialRow", "Pending", "Received", "Refusal", "Standing", "Usage"]
