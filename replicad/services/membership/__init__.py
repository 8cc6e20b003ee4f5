"""Membership: founding, inviting, joining, changing and ending. The records decide; this makes them and carries them to where they take effect."""

from replicad.services.membership.admitting import PendingJoin
from replicad.services.membership.changes import Wishes
from replicad.services.membership.checking import Step
from replicad.services.membership.local import Local
from replicad.services.membership.membership import Membership, found
from replicad.services.membership.rotating import finish, next_key_path

__all__ = ["Local", "Membership", "PendingJoin", "Step", "Wishes", "finish", "found", "next_key_path"]
