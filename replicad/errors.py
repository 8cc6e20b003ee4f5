"""Every error of the program, ordered by what its catcher does next.

    ReplicadError
    |- ConfigurationError     fix the configuration, the command line or the data directory and start again  (exit 10)
    |- InputError             the caller's request is wrong: names the field and the bound                   (exit 2 / 400)
    |  '- TooLargeError        more bytes than may come                                                      (exit 2 / 413)
    |- NotFoundError          what was asked for is not here or not visible                                  (exit 4 / 404)
    |- NotAllowedError        the caller has no right to it                                                  (exit 6 / 403)
    |  '- UnauthorizedError    nobody knows who the caller is: present a token                                (exit 6 / 401)
    |- ConflictError          it contradicts what already stands                                             (exit 9 / 409)
    |- NoSpaceError           the disk or the quota is full: wait for room                                   (exit 1 / 507)
    |- StorageError           the disk refused or lost bytes: what was not yet safe is gone, an operator looks   (exit 1 / 500)
    |  '- CatalogError         the catalog's file is damaged or gone: restore it                              (exit 10 / 500)
    |- BusyError              a bound is reached: try again later                                            (exit 1 / 429)
    |  '- LockedError          somebody else is at it                                                        (exit 1 / 423)
    |- DistrustError          bytes that do not match a signature or a hash: drop them                       (exit 7 / 422)
    |  |- SignatureError      a signature, key or envelope is not valid
    |  |- IntegrityError      content does not match its hash
    |  |  '- ChecksumError     neither does a part of an upload: send it again                               (exit 7 / 460)
    |  '- RecordError         a well-signed record that breaks the rules of chains, clocks or grants
    |- PeerError              this peer misbehaved or broke the protocol: drop the link, blame it
    '- UnreachableError       try another peer, or later                                                     (exit 5 / 503)

Facts about an error are attributes (``code``, ``hint`` and whatever a subclass adds), so that logs, the API and the CLI print the same thing.
Foreign exceptions are wrapped where they enter. The only consumers of the numbers are ``cli`` (exit codes) and ``server/admin`` (HTTP statuses).
"""

from __future__ import annotations

from typing import ClassVar


class ReplicadError(Exception):
    """Root of the tree. ``code`` is stable and machine-readable, ``hint`` is the next command to try (may be empty)."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.error_code = code or self.code


class ConfigurationError(ReplicadError):
    """Configuration, key files or database cannot be used as they are."""

    code = "configuration"
    exit_code = 10


class InputError(ReplicadError):
    """A value given by a person or program is outside its bound; the message names the field and the bound."""

    code = "bad-input"
    exit_code = 2
    http_status = 400


class TooLargeError(InputError):
    """More bytes than the node takes, or than were announced."""

    code = "too-large"
    http_status = 413


class NotFoundError(ReplicadError):
    """The thing asked for does not exist, or must look as if it did not."""

    code = "not-found"
    exit_code = 4
    http_status = 404


class NotAllowedError(ReplicadError):
    """The caller, or this node, has no right to do that."""

    code = "not-allowed"
    exit_code = 6
    http_status = 403


class UnauthorizedError(NotAllowedError):
    """The caller has not proved who it is."""

    code = "unauthorized"
    http_status = 401


class ConflictError(ReplicadError):
    """The request contradicts what already stands."""

    code = "conflict"
    exit_code = 9
    http_status = 409


class NoSpaceError(ReplicadError):
    """The disk is full, or the reserve or the quota would be used."""

    code = "no-space"
    http_status = 507


class StorageError(ReplicadError):
    """The disk failed: a write, fsync or read that the operating system could not do. What was not yet known to be safe is gone; retrying the same call proves nothing."""

    code = "storage"


class CatalogError(StorageError):
    """The catalog's file is damaged, or is not the open one any more; the message names it."""

    code = "catalog"
    exit_code = 10


class BusyError(ReplicadError):
    """A bound on work in progress is reached. ``retry_s``: after how many seconds it may be tried again; 0.0 if nobody can tell."""

    code = "busy"
    http_status = 429

    def __init__(self, message: str, *, hint: str = "", code: str | None = None, retry_s: float = 0.0) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_s = retry_s


class LockedError(BusyError):
    """Only one at a time may do that, and somebody does."""

    code = "locked"
    http_status = 423


class DistrustError(ReplicadError):
    """Data that must not be believed."""

    code = "distrust"
    exit_code = 7
    http_status = 422


class SignatureError(DistrustError):
    """A signature does not verify, or a key or envelope is malformed."""

    code = "signature"


class IntegrityError(DistrustError):
    """Bytes do not match the hash that names them."""

    code = "integrity"


class ChecksumError(IntegrityError):
    """A part of an upload does not match the checksum that came with it."""

    code = "checksum"
    http_status = 460


class RecordError(DistrustError):
    """A correctly signed record that breaks a rule: chain, clock, grant or payload bounds. ``code`` names the rule."""

    code = "record"


class PeerError(ReplicadError):
    """A peer broke the protocol. ``code`` names the offence."""

    code = "peer"


class UnreachableError(ReplicadError):
    """Nobody answered: daemon, peer or remote node."""

    code = "unreachable"
    exit_code = 5
    http_status = 503
