"""Certificate authorities for tests: made with `cryptography`, which shares no code with rustls."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import ssl
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def new_key(kind: str = "ecdsa") -> PrivateKey:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def key_pem(
    key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8, password: str | None = None
) -> bytes:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption)


@dataclass
class Issued:
    """A certificate with its key, and the authorities in between."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)

    @property
    def chain_pem(self) -> bytes:
        all_ = [self.certificate, *self.chain]
        return b"".join(item.public_bytes(Encoding.PEM) for item in all_)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def write(self, directory: Path, name: str = "server") -> dict[str, str]:
        """Write both files; return them as options."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        # Renamed into place, as everybody should.
        for path, content in ((key, key_pem(self.key)), (certificate, self.chain_pem)):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.rename(path)
        return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


class Authority:
    """Signs certificates and revocation lists."""

    def __init__(self, name: str = "test authority", *, parent: Authority | None = None) -> None:
        self.parent = parent
        self.key = new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (parent.name, parent.key) if parent else (self.name, self.key)
        public = self.key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - DAY)
            .not_valid_after(now() + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if parent:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(parent.key.public_key()),
                critical=False,
            )
        self.certificate = builder.sign(signer, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str,
        kind: str = "ecdsa",
        subject: x509.Name | None = None,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
        client: bool = False,
    ) -> Issued:
        """Sign a certificate for DNS names and addresses, or for a client."""
        key = new_key(kind)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "-")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject if subject is not None else common)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now() - DAY)
            .not_valid_after(not_after or now() + 90 * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names and not client:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        chain = [self.certificate] if self.parent else []
        return Issued(certificate, key, chain)

    def revocation_list(
        self, revoked: Iterable[Issued] = (), *, next_update: datetime.datetime | None = None
    ) -> bytes:
        """Return a revocation list as PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now() - 2 * DAY)
            .next_update(next_update or now() + 30 * DAY)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        for item in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(item.certificate.serial_number)
                .revocation_date(now() - DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def client_context(self, identity: Path | None = None) -> ssl.SSLContext:
        """Return what a client needs that trusts this authority."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        if identity is not None:
            context.load_cert_chain(identity)
        return context


def openssl(*words: str | Path, stdin: bytes = b"", check: bool = True) -> bytes:
    """Run the program `openssl`; return what it writes, to both outputs."""
    program = shutil.which("openssl")
    assert program, "install openssl (task setup)"
    done = subprocess.run(
        [program, *words], input=stdin, capture_output=True, timeout=60, check=check
    )
    return done.stdout + done.stderr


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write_identity(issued: Issued, path: Path) -> Path:
    """Write a client's certificate and key into one file."""
    path.write_bytes(issued.chain_pem + key_pem(issued.key))
    return path
