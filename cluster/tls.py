"""Certificates for Ray's own traffic: the deck's authority, and a certificate for each machine.

Ray takes one certificate for both ends of a connection and checks them against one authority, both ways (mutual TLS);
it compares a certificate's names with the address that it calls.  The deck's authority signs what a machine asks for
when it joins: a machine's key never leaves it.  Where the operator has an authority of its own, its files are named by
settings, and nothing is made or signed here.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.settings import TlsFiles
from trading.errors import BadInput, NeedsOperator

#: An expired certificate would end all traffic at once, and Ray reads them at its start only.
YEARS: Final = 10


def check(files: TlsFiles, at: datetime.datetime | None = None) -> None:
    """Raise `NeedsOperator` naming the file that cannot be used, now or at another moment."""
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise NeedsOperator(
            f"a file for TLS cannot be used: {error}", "name PEM files that this user can read, the key unencrypted"
        ) from error
    if key.public_key() != cert.public_key():
        raise NeedsOperator(f"{files.key} is not the key of {files.cert}", "name files that belong together")
    try:
        cert.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise NeedsOperator(f"{files.cert} was not signed by {files.ca}", "name files that belong together") from error
    at = at or datetime.datetime.now(datetime.UTC)
    for path, each in ((files.cert, cert), (files.ca, ca)):
        first, last = each.not_valid_before_utc, each.not_valid_after_utc
        if not first <= at <= last:
            raise NeedsOperator(f"{path} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}", "renew it")


def make_for_head(mine: TlsFiles, cluster: str, node: str, addresses: Iterable[str]) -> None:
    """The head's own files; the authority is made where there is none yet, the certificate each time."""
    if not _ca_key(mine).exists():
        _make_authority(mine, cluster)
    _write(mine.cert, sign(mine, make_request(mine, node), node, addresses))


def make_request(mine: TlsFiles, node: str) -> str:
    """A request for a certificate of this machine's key, which is made where there is none yet."""
    path = mine.key
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _key_text(key))
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(node)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def sign(head: TlsFiles, request: str, node: str, addresses: Iterable[str]) -> str:
    """A certificate for ``node`` under these addresses and the machine itself; nothing else is taken from the request.

    Raises `BadInput` for what is no request, or one whose sender has not its key.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        is_signed = asked.is_signature_valid
    except (ValueError, TypeError) as error:
        raise BadInput("certificate_request", f"it is no request for a certificate: {error}") from error
    if not is_signed:
        raise BadInput("certificate_request", "it is not signed with the key that it asks for")
    ca = x509.load_pem_x509_certificate(head.ca.read_bytes())
    ca_key = serialization.load_pem_private_key(_ca_key(head).read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(node)]
    names += [x509.IPAddress(ip_address(each)) for each in dict.fromkeys(["127.0.0.1", *addresses])]
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _begun(node, asked.public_key())  # type: ignore[arg-type]  # whatever kind of key it is, it is only certified
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def keep(mine: TlsFiles, ca: str, cert: str) -> None:
    """Keep what a machine was given when it joined; ``cert`` "": it has files of its own."""
    _write(mine.ca, ca)
    if cert:
        _write(mine.cert, cert)


def forget(mine: TlsFiles) -> None:
    """Remove what a machine was given, and its key."""
    for path in (mine.ca, mine.cert, mine.key):
        path.unlink(missing_ok=True)


def _ca_key(mine: TlsFiles) -> Path:
    return mine.ca.with_suffix(".key")


def _make_authority(mine: TlsFiles, cluster: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"Quarterdeck {cluster} on {platform.node()}"
    certificate = (
        _begun(name, key.public_key())
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(mine.ca, certificate.public_bytes(serialization.Encoding.PEM).decode())
    # Last: whoever finds it finds the certificate too.
    _write(_ca_key(mine), _key_text(key))


def _begun(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A machine whose clock is behind must not find it not valid yet.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
