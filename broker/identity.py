"""Who signed a message: Ed25519 keys, made where they are used and pinned at the other end.

A private key never leaves the folder it was made in (PKCS#8 PEM, mode 0600, checked at each start). A public key is
one line of text, `ed25519:<base64>`, that can be read over the telephone through its fingerprint.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.errors import UsageError
from broker.files import write_file

_PREFIX: Final = "ed25519:"
KEY_ID_BYTES: Final = 8


@dataclass(frozen=True)
class PublicKey:
    """The verifying half; `raw` is the 32 bytes of RFC 8032."""

    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        """From `ed25519:<base64>`; UsageError if it is anything else."""
        try:
            raw = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"{text!r} is not a public key; it should read '{_PREFIX}' and 44 characters.") from error
        if not text.strip().startswith(_PREFIX) or len(raw) != 32:
            raise UsageError(f"{text!r} is not a public key; it should read '{_PREFIX}' and 44 characters.")
        return cls(raw)

    def to_text(self) -> str:
        """One line, for configuration files and request forms."""
        return _PREFIX + base64.b64encode(self.raw).decode()

    @cached_property
    def key_id(self) -> bytes:
        """First 8 bytes of the key's SHA-256: says which key signed, proves nothing."""
        return hashlib.sha256(self.raw).digest()[:KEY_ID_BYTES]

    @property
    def fingerprint(self) -> str:
        """What two people compare by telephone: 16 hexadecimal digits in groups of four."""
        digits = self.key_id.hex()
        return "-".join(digits[start : start + 4] for start in range(0, len(digits), 4))

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over exactly `message`."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """The signing half."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> "PrivateKey":
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "PrivateKey":
        """The key in `path`; UsageError if it is missing, readable by others, or not an Ed25519 key."""
        if not path.is_file():
            raise UsageError(f"There is no key {path}; it is made by 'init' and must be kept with its folder.")
        if path.stat().st_mode & 0o077:
            raise UsageError(f"Others can read the key {path}; run: chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{path} is not a private key in PKCS#8 PEM.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path} is not an Ed25519 key.")
        return cls(key)

    @classmethod
    def load_or_make(cls, path: Path) -> "PrivateKey":
        """The key in `path`, made if there is none: an `init` that was killed half-way can be repeated."""
        if not path.exists():
            cls.generate().save(path)
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write the key with mode 0600, whole or not at all; an existing key is never overwritten."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            write_file(path, pem, mode=0o600, replace=False)
        except FileExistsError as error:
            raise UsageError(f"{path} exists already; a key is never overwritten.") from error

    @cached_property
    def public(self) -> PublicKey:
        """The verifying half."""
        return PublicKey(
            self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    def sign(self, message: bytes) -> bytes:
        """64 bytes over `message` (RFC 8032)."""
        return self._key.sign(message)
