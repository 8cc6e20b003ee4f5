"""The peer door's self-made X.509 certificate: a carrier for a TLS key and nothing else.

Nobody checks its name, its life or its issuer: other nodes pin its SHA-256 fingerprint, which the node signs with its own key in every handshake and every head. So it is made once and lives
as long as the node does; a new one needs no ceremony.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from replicad.errors import ConfigurationError
from replicad.model.ids import Digest

if TYPE_CHECKING:
    from pathlib import Path

LIFE = dt.timedelta(days=365 * 50)
EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
"""Fixed, so that a node whose clock is wrong at its first start does not make a certificate from the future."""


def make() -> tuple[bytes, bytes]:
    """A new (certificate, private key), both PEM. ECDSA P-256: what every TLS 1.3 library has and the cheapest handshake of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "replicad peer door")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(EPOCH)
        .not_valid_after(EPOCH + LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def fingerprint(der: bytes) -> Digest:
    """SHA-256 of a certificate's DER bytes."""
    return Digest(hashlib.sha256(der).digest())


def ensure(certificate: Path, key: Path) -> Digest:
    """The fingerprint of the certificate at that path; made with its key (mode 0600) if neither file exists. Raises ConfigurationError when one is missing or either cannot be used."""
    if not certificate.exists() and not key.exists():
        made = make()
        _write(key, made[1])
        _write(certificate, made[0])
    return load(certificate)


def load(certificate: Path) -> Digest:
    """The fingerprint of the first certificate in a PEM file; ConfigurationError if there is none."""
    try:
        text = certificate.read_text("ascii")
        begin, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
        return fingerprint(ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")]))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the TLS certificate {certificate}: {error}") from None


def ends(certificate: Path) -> dt.datetime:
    """When the first certificate of a PEM file ceases to be valid; ConfigurationError if there is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the TLS certificate {certificate}: {error}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.closing(os.fdopen(handle, "wb")) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
