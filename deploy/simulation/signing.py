"""A fast stand-in for Ed25519 in simulations: a keyed BLAKE2b of 64 bytes, of the same interface.

It proves nothing to a stranger: whoever can verify can sign. A simulation has no strangers, and signs and verifies each
of tens of thousands of updates several times; Ed25519 would take most of its time. Messages have the same sizes.
"""

import hashlib
import random
from dataclasses import replace
from functools import cached_property
from hmac import compare_digest

from aggregator.journal import Enrolled, Journal
from broker.identity import PrivateKey, PublicKey


class SharedSecret(PublicKey):
    """The verifying half, which is the whole."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is of exactly `message`."""
        return compare_digest(_sealed(self.raw, message), signature)


class SimulatedKey(PrivateKey):
    """The signing half, from 32 bytes."""

    def __init__(self, raw: bytes) -> None:
        object.__setattr__(self, "_raw", raw)

    @classmethod
    def drawn(cls, source: random.Random) -> "SimulatedKey":
        """A key that follows from a seed."""
        return cls(source.randbytes(32))

    @cached_property
    def public(self) -> PublicKey:
        """The verifying half."""
        return SharedSecret(self.__dict__["_raw"])

    def sign(self, message: bytes) -> bytes:
        """64 bytes over `message`."""
        return _sealed(self.__dict__["_raw"], message)


class SimulatedJournal(Journal):
    """The journal, whose registry holds simulated keys."""

    def sites(self) -> dict[str, Enrolled]:
        """The registry."""
        return {name: replace(one, key=SharedSecret(one.key.raw)) for name, one in super().sites().items()}


def _sealed(key: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=key).digest()
