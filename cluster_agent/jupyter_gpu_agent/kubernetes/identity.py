"""What makes an agent known to its pods: a certificate authority of its own, and the key of their tokens.

Both outlive the agent's process: pods that run go on speaking to the next one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: for how long the authority is good, and each certificate that an agent makes when it starts
YEARS = 20
_PEM = serialization.Encoding.PEM


class Identity:
    """The agent, as its pods know it.

    :param kept: what `new` made, wherever it was kept.
    """

    #: the names under which it is kept
    NAMES = ("link.key", "ca.key", "ca.crt")

    def __init__(self, kept: dict[str, bytes]) -> None:
        self.kept = kept

    @classmethod
    def new(cls) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jupyter-gpu-platform agent")])
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls({"link.key": secrets.token_bytes(32), "ca.key": _pem(key), "ca.crt": certificate.public_bytes(_PEM)})

    @property
    def link_key(self) -> bytes:
        """What the attempts' tokens are made from."""
        return self.kept["link.key"]

    @property
    def name(self) -> str:
        """What tells this agent's objects from those of others, as a label."""
        return hashlib.sha256(self.kept["ca.crt"]).hexdigest()[:16]

    @property
    def authority(self) -> str:
        """The authority's certificate, PEM: what pods trust."""
        return self.kept["ca.crt"].decode()

    def tls(self) -> ssl.SSLContext:
        """Return what an agent serves with: a new certificate of the authority's."""
        issuer = x509.load_pem_x509_certificate(self.kept["ca.crt"])
        signer = serialization.load_pem_private_key(self.kept["ca.key"], None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jupyter-gpu-agent")])
        certificate = (
            _builder(name, issuer.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("jupyter-gpu-agent")]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(_usage(certificates=False), critical=True)
            .sign(signer, hashes.SHA256())
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory(prefix="jgp-") as folder:  # the ssl module reads files alone
            path = Path(folder) / "pair.pem"
            path.touch(mode=0o600)
            path.write_bytes(certificate.public_bytes(_PEM) + _pem(key))
            context.load_cert_chain(path)
        return context


def in_folder(folder: Path) -> Identity:
    """Return the identity that a folder keeps; makes one where it has none."""
    if all((folder / name).exists() for name in Identity.NAMES):
        return Identity({name: (folder / name).read_bytes() for name in Identity.NAMES})
    identity = Identity.new()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in identity.kept.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
    return identity


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # clocks of nodes differ
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
