"""Certificates: the deck's authority signs what a machine asks for; what does not belong together is told."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from cluster import tls
from cluster.settings import DeckSettings, TlsFiles, environment
from trading.errors import BadInput, NeedsOperator


def made(home: Path) -> TlsFiles:
    return DeckSettings(data_dir=home).made_tls_files


@pytest.fixture
def head(tmp_path: Path) -> TlsFiles:
    files = made(tmp_path / "head")
    tls.make_for_head(files, "main", "head", ["10.0.0.1"])
    return files


@pytest.fixture
def edge(tmp_path: Path, head: TlsFiles) -> TlsFiles:
    files = made(tmp_path / "edge")
    tls.keep(files, head.ca.read_text(), tls.sign(head, tls.make_request(files, "edge"), "edge", ["10.0.0.7"]))
    return files


def test_a_machine_gets_a_certificate_for_its_name_and_address_only(head: TlsFiles, edge: TlsFiles) -> None:
    tls.check(head)
    tls.check(edge)
    certificate = x509.load_pem_x509_certificate(edge.cert.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("10.0.0.7")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "edge"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    # Its key never left it, and only its owner reads keys.
    assert "PRIVATE" not in edge.cert.read_text() + edge.ca.read_text()
    for path in (edge.key, head.key, head.ca.with_suffix(".key")):
        assert path.stat().st_mode & 0o777 == 0o600
    tls.forget(edge)
    assert not any(path.exists() for path in (edge.key, edge.cert, edge.ca))


def test_a_new_start_of_the_head_keeps_its_authority(head: TlsFiles, edge: TlsFiles) -> None:
    before = head.ca.read_bytes()
    tls.make_for_head(head, "main", "head", ["10.0.0.2"])
    assert head.ca.read_bytes() == before
    tls.check(head)
    tls.check(replace(edge, ca=head.ca))


def test_what_a_request_says_of_itself_is_not_believed(head: TlsFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "head")]))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("10.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = tls.sign(head, asked.public_bytes(serialization.Encoding.PEM).decode(), "edge", ["10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(text.encode())
    assert "edge" in certificate.subject.rfc4514_string()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ip_address("10.0.0.1") not in names.get_values_for_type(x509.IPAddress)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_what_is_no_request_is_refused(head: TlsFiles, tmp_path: Path) -> None:
    good = tls.make_request(made(tmp_path / "x"), "x")
    lines = good.splitlines()
    # One letter of the signature changed.
    spot = lines[-2]
    lines[-2] = ("A" if spot[10] != "A" else "B").join((spot[:10], spot[11:]))
    for wrong in ("", "no request", head.cert.read_text(), "\n".join(lines)):
        with pytest.raises(BadInput, match="certificate_request"):
            tls.sign(head, wrong, "x", ["10.0.0.7"])


def test_files_that_do_not_belong_together_are_told(head: TlsFiles, edge: TlsFiles, tmp_path: Path) -> None:
    other = made(tmp_path / "other")
    tls.make_for_head(other, "other", "head", ["10.0.0.1"])
    for files, words in (
        (replace(edge, key=head.key), "is not the key of"),
        (replace(edge, ca=other.ca), "was not signed by"),
        (replace(edge, cert=tmp_path / "nowhere"), "cannot be used"),
        (replace(edge, key=edge.cert), "cannot be used"),
    ):
        with pytest.raises(NeedsOperator, match=words):
            tls.check(files)


def test_an_expired_certificate_is_told(edge: TlsFiles) -> None:
    now = datetime.datetime.now(datetime.UTC)
    # A machine whose clock is some hours behind finds it valid too.
    tls.check(edge, now - datetime.timedelta(hours=20))
    for days in (-2, 365 * tls.YEARS + 1):
        with pytest.raises(NeedsOperator, match="renew it"):
            tls.check(edge, now + datetime.timedelta(days=days))


def test_settings_reach_ray(tmp_path: Path) -> None:
    plain = DeckSettings(data_dir=tmp_path)
    assert plain.tls_files is None
    assert "RAY_TLS_SERVER_CERT" not in environment(plain)
    deck = DeckSettings(data_dir=tmp_path, tls=True)
    assert environment(deck)["RAY_USE_TLS"] == "1"
    assert environment(deck)["RAY_TLS_CA_CERT"] == str(tmp_path / "tls" / "ca.pem")
    own = DeckSettings(data_dir=tmp_path, tls_cert="/c.pem", tls_key="/k.pem")
    assert own.tls_files == TlsFiles(cert=Path("/c.pem"), key=Path("/k.pem"), ca=tmp_path / "tls" / "ca.pem")
    # What the API is told is what it is told by.
    told = environment(DeckSettings(data_dir=tmp_path, tls=True, tls_cert="/c", tls_key="/k", tls_ca="/a"))
    assert (told["QUARTERDECK_TLS"], told["QUARTERDECK_TLS_CERT"], told["RAY_TLS_CA_CERT"]) == ("1", "/c", "/a")
