"""Where a RabbitMQ broker is and how to log in there: an AMQP URL and TLS files, checked once and turned into a login.

TLS is 1.2 or later with the host name checked. A client certificate and a URL without password mean EXTERNAL: the
broker takes the account's name from the certificate, and the URL must name the same account.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pika
from pika.credentials import ExternalCredentials, PlainCredentials

from broker.errors import UsageError

DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671}

# A publish that the broker does not confirm for so long is sent again on a new connection.
BLOCKED_TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True)
class Address:
    """A broker, a virtual host and an account on it."""

    host: str
    port: int
    vhost: str
    user: str
    password: str | None = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, url: str, *, ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None
    ) -> "Address":
        """From a URL such as `amqps://account:password@broker.example.org/federation`, else UsageError."""
        parts = _split(url)
        tls = _tls(ca_file, cert_file, key_file) if parts.scheme == "amqps" else None
        if tls is None and (ca_file or cert_file or key_file):
            raise UsageError(f"{describe(url)} is not encrypted but certificates are given: write amqps://.")
        user = unquote(parts.username or "")
        password = None if parts.password is None else unquote(parts.password)
        if not user or (password is None and cert_file is None):
            raise UsageError(f"{describe(url)} lacks the account: write {parts.scheme}://ACCOUNT:PASSWORD@HOST/VHOST.")
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        return cls(parts.hostname or "", port, unquote(parts.path[1:]) or "/", user, password, tls)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def parameters(self, connection_name: str, *, heartbeat_s: int) -> pika.ConnectionParameters:
        """For pika; the broker's console shows `connection_name`."""
        external = self.password is None
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=ExternalCredentials() if external else PlainCredentials(self.user, self.password or ""),
            ssl_options=pika.SSLOptions(self.tls, self.host) if self.tls else None,
            heartbeat=heartbeat_s,
            blocked_connection_timeout=BLOCKED_TIMEOUT_S,
            client_properties={"connection_name": connection_name},
        )


def describe(url: str) -> str:
    """The URL without its password, for logs and messages."""
    parts = urlsplit(url)
    account, at, host = parts.netloc.rpartition("@")
    shown = f"{quote(unquote(account.partition(':')[0]))}{at}{host}"
    return f"{parts.scheme}://{shown}{parts.path}"


def _split(url: str) -> SplitResult:
    """The parts of an AMQP URL, else UsageError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise UsageError(f"{describe(url)!r} is no broker address: write amqps://ACCOUNT:PASSWORD@HOST:PORT/VHOST.")
    return parts


def _tls(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_file:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (ca_file, cert_file, key_file) if file)
        raise UsageError(f"The TLS files {files} cannot be used: {error.strerror or error}.") from error
    return context
