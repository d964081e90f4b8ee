"""Promise 5: whatever a site, a stranger or the broker's own administrator sends costs an entry in the refused list."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import zstandard

from broker.codecs import encode
from broker.messages import Hello, Receipt
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
from tests.acceptance.byhand import HandSite
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation

MUTATIONS: Final = 1000
GIB: Final = 1 << 30


@dataclass
class Assault:
    """Two enrolled sites and a hostile administrator; everything lands in the queue of site b."""

    a: HandSite
    b: HandSite
    administrator: Administrator

    def as_administrator(self, body: bytes, *, user_id: str | None) -> None:
        self.administrator.publish(self.b.federation.names("b").updates, body, user_id=user_id)

    def stolen_key(self) -> bytes:
        """b's update, signed with a's key."""
        forger = HandSite(self.b.federation, "b")
        forger.party = replace(self.b.party, key=self.a.party.key)
        return forger.update()

    def of_federation(self, name: str) -> bytes:
        stray = HandSite(self.b.federation, "b")
        stray.party = replace(self.b.party, federation=name)
        return stray.update()

    def values(self, *values: float) -> bytes:
        """b's update of five literal values, uncompressed."""
        return self.b.update(encode("float32", np.array(values, dtype=np.float32)))

    def scale(self, scale: float) -> bytes:
        """b's int8 update of five levels 127 under one scale."""
        packed = struct.pack("<f", scale) + bytes([127] * 5)
        return self.b.update(_framed(zstandard.ZstdCompressor().compress(packed)), codec="int8")


def _framed(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


def _bomb() -> bytes:
    """A frame of 16 bytes that declares 1 GiB (RFC 8878, 3.1.1): single segment, 8-byte size, one empty last block."""
    return _framed(b"\x28\xb5\x2f\xfd\xe0" + GIB.to_bytes(8, "little") + b"\x01\x00\x00")


# What is sent, and what the refusal must say.
CASES: Final[dict[str, tuple[Callable[[Assault], Any], str]]] = {
    "nothing": (lambda x: x.b.send(b""), "not msgpack"),
    "garbage": (lambda x: x.b.send(bytes(range(256)) * 4), "not msgpack"),
    "six megabytes": (lambda x: x.b.send(bytes(6 << 20)), "over the limit"),
    "half a message": (lambda x: x.b.send(x.b.update()[:-7]), "not msgpack"),
    "a pickle": (lambda x: x.b.send(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."), "not msgpack"),
    "another site's key": (lambda x: x.b.send(x.stolen_key()), "not by the key enrolled"),
    "put there by somebody": (lambda x: x.as_administrator(x.a.update(), user_id=None), "account None"),
    "put there in b's name": (lambda x: x.as_administrator(x.a.update(), user_id=x.b.account), "not by the key"),
    "put there in a's name": (lambda x: x.as_administrator(x.b.update(), user_id=x.a.account), "published by account"),
    "no account": (lambda x: x.b.send(x.b.update(), user_id=None), "account None"),
    "another federation": (lambda x: x.b.send(x.of_federation("elsewhere")), "for federation 'elsewhere'"),
    "a receipt": (lambda x: x.b.send(x.b.seal(Receipt(bytes(16), 1, [], [], 1))), "updates and hellos"),
    "another model": (lambda x: x.b.send(_hello(x.b)), "another model"),
    "one number too many": (lambda x: x.b.send(x.values(1, 2, 3, 4, 5, 6)), "declares 24 bytes where 20"),
    "one number too few": (lambda x: x.b.send(x.values(1, 2, 3, 4)), "declares 16 bytes where 20"),
    "a long payload": (lambda x: x.b.send(x.b.update(bytes(10_000))), "parameters can need"),
    "not a number": (lambda x: x.b.send(x.values(1, 2, float("nan"), 4, 5)), "not finite"),
    "infinity": (lambda x: x.b.send(x.values(1, 2, float("inf"), 4, 5)), "not finite"),
    "1e38": (lambda x: x.b.send(x.values(1e38, 1e38, 1e38, 1e38, 1e38)), "not finite, or far too large"),
    "a long way": (lambda x: x.b.send(x.values(1e4, 1e4, 0, 0, 0)), "norm 1.41e+04 is over the limit"),
    "scale infinity": (lambda x: x.b.send(x.scale(float("inf"))), "not finite"),
    "scale not a number": (lambda x: x.b.send(x.scale(float("nan"))), "not finite"),
    "scale 1e38": (lambda x: x.b.send(x.scale(1e38)), "not finite, or far too large"),
    "a bomb": (lambda x: x.b.send(x.b.update(_bomb())), "declares 1073741824 bytes where 20"),
    "another payload": (lambda x: x.b.send(x.b.update(payload_digest=bytes(32))), "not the payload that was signed"),
    "a version to come": (lambda x: x.b.send(x.b.update(base_version=99)), "never published"),
    "another version 0": (lambda x: x.b.send(x.b.update(base_digest=bytes(32))), "not this federation's version 0"),
    "codec pickle": (lambda x: x.b.send(x.b.update(codec="pickle", delta=b"x")), "codec 'pickle' is unknown"),
    "another task": (lambda x: x.b.send(x.b.update(task="other")), "task 'other'"),
    "all the world's patients": (lambda x: x.b.send(x.b.update(examples=8_000_000_000)), "over the limit"),
    "part 7 of 1": (lambda x: x.b.send(x.b.update(part=7)), "part 7 of 1"),
    "a leap": (lambda x: x.b.send(x.b.update(sequence=1 << 40)), "leaps"),
    "a metric not a number": (lambda x: x.b.send(x.b.update(metrics=[("auc", float("nan"))])), "not finite"),
    "words for numbers": (lambda x: x.b.send(x.b.update(steps="many")), "breaks its schema"),
}


def test_bad_input_costs_an_entry_in_the_refused_list_and_nothing_else(
    federation: Federation, administrator: Administrator
) -> None:
    a, b = _two_sites(federation)
    b.send(honest := b.update())
    federation.reaches(1)
    federation.eventually("it is made", lambda: federation.digest() != b"")
    digest, pid = federation.digest(), federation.processes["aggregator"].pid

    assault = Assault(a, b, administrator)
    for send, _ in CASES.values():
        send(assault)
    b.send(*_mutations(honest))
    everything = len(CASES) + MUTATIONS
    federation.eventually("all is refused", lambda: federation.status().refused >= everything)

    shown = json.loads(fedqueue("aggregator", "refused", federation.aggregator.path, "--json", "--last", 5000).stdout)
    assert len(shown) == everything
    assert {row["site"] for row in shown} == {"b"}
    assert all(row["reason"] for row in shown)
    for (name, (_, words)), row in zip(CASES.items(), shown, strict=False):
        assert words in row["reason"], f"{name}: {row['reason']}"
    assert (federation.digest(), federation.accepted()) == (digest, 1)
    assert federation.processes["aggregator"].pid == pid

    for site in (a, b):
        site.send(site.update())
    federation.reaches(3)
    assert federation.status().refused == everything


def _two_sites(federation: Federation) -> tuple[HandSite, HandSite]:
    federation.prepare(SitePlan("a", {}), SitePlan("b", {}), versions=0, buffer_size=1)
    federation.start_aggregator()
    a, b = HandSite(federation, "a"), HandSite(federation, "b")
    a.hello()
    b.hello()
    federation.eventually("it starts", lambda: federation.status().started)
    return a, b


def _hello(site: HandSite) -> bytes:
    return site.seal(Hello("tiny", site.incarnation, 2, 0, 0, bytes(32), 10, [], False))


def _mutations(message: bytes) -> list[bytes]:
    """The message with a byte changed, a run of bytes gone, or some bytes put in; never the message itself."""
    chance = random.Random(11)
    made: list[bytes] = []
    while len(made) < MUTATIONS:
        place, noise = chance.randrange(len(message)), chance.randbytes(chance.randrange(1, 5))
        kind = chance.choice((place, place + len(noise), place + 1))  # insert, overwrite, or replace one byte
        mutated = message[:place] + noise + message[kind:]
        if mutated != message:
            made.append(mutated)
    return made
