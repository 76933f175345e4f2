"""A self-signed certificate for this computer: phones and headsets give a page their pose over https only."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robolearn.errors import HardwareError, MissingDependency

_DAYS = 365
_RENEW_DAYS = 7  # a certificate that ends sooner is made anew


def lan_addresses() -> list[str]:
    """Returns this computer's own IPv4 addresses, the one that leads outside first; no packet is sent."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):  # no network at all
        probe.connect(("192.0.2.1", 9))  # a documentation address: choosing the route is all that happens
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):  # a host name that nobody resolves
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return list(dict.fromkeys(address for address in found if not address.startswith("127.")))


def certificate(folder: Path, addresses: Sequence[str], now: datetime.datetime) -> tuple[Path, Path]:
    """Returns certificate and key (PEM) in `folder` for localhost and `addresses`; made where none there fits any more."""
    try:
        from cryptography import x509
    except ImportError:
        raise MissingDependency("cryptography", "the WebXR device's https", "pip install 'robolearn[webxr]'") from None
    certificate_path, key_path = folder / "webxr.crt", folder / "webxr.key"
    names = ["localhost", "127.0.0.1", "::1", *addresses]
    if key_path.is_file() and certificate_path.is_file():
        try:
            old = x509.load_pem_x509_certificate(certificate_path.read_bytes())
            covered = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            have = {str(name.value) for name in covered}
            ssl_context(certificate_path, key_path)  # a key of another certificate is refused here
            if have >= set(names) and old.not_valid_after_utc > now + datetime.timedelta(days=_RENEW_DAYS):
                return certificate_path, key_path
        except (ValueError, OSError, x509.ExtensionNotFound, HardwareError):
            pass  # unreadable: made anew below
    _write(certificate_path, key_path, names, now)
    return certificate_path, key_path


def ssl_context(certificate_path: Path, key_path: Path) -> ssl.SSLContext:
    """Returns the TLS settings of a server with this certificate; HardwareError where the pair does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate_path, key_path)
    except (OSError, ssl.SSLError) as error:
        raise HardwareError(f"{certificate_path}: want a certificate and its key, got {error}; remove both files") from None
    return context


def _write(certificate_path: Path, key_path: Path, names: Sequence[str], now: datetime.datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robolearn teleoperation")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=_DAYS))
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    certified = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        certificate_path.parent.mkdir(parents=True, exist_ok=True)
        for path, content in ((key_path, secret), (certificate_path, certified.public_bytes(serialization.Encoding.PEM))):
            part = path.with_suffix(path.suffix + ".part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # the key is nobody else's
                file.write(content)
            os.replace(part, path)
    except OSError as error:
        raise HardwareError(f"{certificate_path.parent}: cannot keep a certificate there ({error}); give another cache") from None


def _name(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
