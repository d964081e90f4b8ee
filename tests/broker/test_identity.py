"""Keys: Ed25519 as RFC 8032 has it, in files that nobody else reads and that nothing overwrites."""

import errno
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.errors import StorageError, UsageError
from broker.identity import PrivateKey, PublicKey

# RFC 8032, section 7.1, TEST 1: the empty message.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)
TEXT = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_rfc_8032_vector_1() -> None:
    key = PublicKey(PUBLIC)
    assert key.verifies(SIGNATURE, b"")
    assert not key.verifies(SIGNATURE, b"\x00")
    assert not key.verifies(SIGNATURE[:-1] + b"\x0c", b"")
    assert not key.verifies(SIGNATURE[:-1], b"")
    assert not key.verifies(b"", b"")
    private = PrivateKey(Ed25519PrivateKey.from_private_bytes(SEED))
    assert private.public == key
    assert private.sign(b"") == SIGNATURE


def test_text_and_fingerprint() -> None:
    key = PublicKey(PUBLIC)
    assert key.to_text() == TEXT
    assert PublicKey.from_text(f" {TEXT}\n") == key
    assert key.key_id.hex() == "21fe31dfa154a261"
    assert key.fingerprint == "21fe-31df-a154-a261"


BAD = ["", "ed25519:", TEXT[8:], TEXT[:-1], TEXT[:-5] + "=", "ed25519:" + "*" * 44, TEXT + "AAAA", "ed25519:é"]


@pytest.mark.parametrize("text", [*BAD, "rsa:" + TEXT[8:]])
def test_bad_text(text: str) -> None:
    with pytest.raises(UsageError, match="is not a public key"):
        PublicKey.from_text(text)


def test_a_key_is_saved_for_its_owner_alone(tmp_path: Path) -> None:
    path, key = tmp_path / "site.key", PrivateKey.generate()
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PrivateKey.load(path).public == key.public
    assert PublicKey(key.public.raw).verifies(PrivateKey.load(path).sign(b"x"), b"x")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    PrivateKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        PrivateKey.load(path)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    PrivateKey.generate().save(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        PrivateKey.generate().save(path)
    assert path.read_bytes() == before


def test_a_key_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        PrivateKey.generate().save(tmp_path / "absent" / "site.key")
    with pytest.raises(UsageError, match="There is no key"):
        PrivateKey.load(tmp_path / "absent" / "site.key")


def pem(key: serialization.PrivateFormat, *, password: bytes | None = None, ed25519: bool = True) -> bytes:
    made = Ed25519PrivateKey.generate() if ed25519 else generate_private_key(SECP256R1())
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return made.private_bytes(serialization.Encoding.PEM, key, how)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "PKCS#8"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PKCS#8"),
        (pem(serialization.PrivateFormat.PKCS8, password=b"secret"), "PKCS#8"),
        (pem(serialization.PrivateFormat.PKCS8, ed25519=False), "not an Ed25519 key"),
    ],
)
def test_a_file_that_is_no_key(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "site.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=said):
        PrivateKey.load(path)


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            PrivateKey.generate().save(tmp_path / "site.key")
    assert list(tmp_path.iterdir()) == []
    made = PrivateKey.load_or_make(tmp_path / "site.key")
    assert PrivateKey.load_or_make(tmp_path / "site.key").public == made.public
