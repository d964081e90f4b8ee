"""Messages open for whom they are meant, and everything else is a WireError, found in the order of what it costs."""

import hashlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest

from broker.errors import WireError
from broker.identity import PrivateKey
from broker.messages import (
    AGGREGATOR,
    KINDS,
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    PART_BYTES,
    Hello,
    Message,
    Peer,
    Receipt,
    bitmap,
    part_count,
    parts_in,
    parts_of,
)
from tests.golden.make import AGGREGATOR_PARTY, SEALED, SITE_PARTY

SITE = Peer("trial", "NY", SITE_PARTY.key.public)
HELLO = SEALED["hello"][2]
MUTATIONS = 1500
KIND, FEDERATION, SENDER, RECIPIENT, KEY_ID, BODY_BYTES, BODY_DIGEST, FIELDS = range(8)


def opened(data: bytes) -> tuple[Message, bytes]:
    return SITE.open(data, recipients=frozenset({AGGREGATOR}))


def signed(header: bytes, *, body: bytes = b"", version: Any = 1, key: PrivateKey = SITE_PARTY.key) -> bytes:
    packed: bytes = msgpack.packb([version, header, key.sign(b"fedqueue message 1\x00" + header), body])
    return packed


def header_of(message: Message = HELLO) -> list[Any]:
    header: list[Any] = msgpack.unpackb(msgpack.unpackb(SITE_PARTY.seal(message, to=AGGREGATOR))[1])
    return header


def with_header(position: int, value: Any) -> bytes:
    header = header_of()
    header[position] = value
    return signed(msgpack.packb(header))


def with_field(kind: str, field: str, value: Any) -> bytes:
    return SITE_PARTY.seal(msgspec.structs.replace(SEALED[kind][2], **{field: value}), to=AGGREGATOR)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One byte overwritten, taken out or put in, a piece doubled, or the end cut off."""
    position = rng.randrange(len(data))
    start, byte = data[:position], bytes([rng.randrange(256)])
    rest = data[position:]
    return rng.choice([start + byte + rest[1:], start + rest[1:], start + byte + rest, start + rest[:9] + rest, start])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"\x00", bytes(PART_BYTES)], ids=len)
def test_round_trip(kind: str, body: bytes) -> None:
    party, to, message, _ = SEALED[kind]
    peer = Peer("trial", party.name, party.key.public)
    assert peer.open(party.seal(message, to=to, body=body), recipients=frozenset({to, "another"})) == (message, body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_message_is_refused(kind: str) -> None:
    party, to, message, body = SEALED[kind]
    peer, rng = Peer("trial", party.name, party.key.public), random.Random(kind)
    sealed = party.seal(message, to=to, body=body)
    for _ in range(MUTATIONS):
        data = mutated(sealed, rng)
        if data != sealed:
            with pytest.raises(WireError):
                peer.open(data, recipients=frozenset({to}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_header_with_a_good_signature_raises_nothing_else(kind: str) -> None:
    rng, refused = random.Random(kind), 0
    header = msgpack.packb(header_of(SEALED[kind][2]))
    for _ in range(MUTATIONS):
        try:
            message, _ = opened(signed(mutated(header, rng)))
        except WireError:
            refused += 1
        else:
            assert type(message) is KINDS[kind]
    assert refused > MUTATIONS // 2


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "wrong key": (lambda: signed(msgpack.packb(header_of()), key=PrivateKey.generate()), "signature"),
    "wrong sender": (lambda: with_header(SENDER, "BOS"), "from 'BOS'"),
    "wrong federation": (lambda: with_header(FEDERATION, "other"), "federation 'other'"),
    "wrong recipient": (lambda: with_header(RECIPIENT, "NY"), "for 'NY'"),
    "unknown kind": (lambda: with_header(KIND, "goodbye"), "no message kind 'goodbye'"),
    "body swapped": (lambda: signed(msgpack.packb(header_of()), body=b"x"), "body"),
    "body digest": (lambda: with_header(BODY_DIGEST, hashlib.sha256(b"x").digest()), "body"),
    "body length": (lambda: with_header(BODY_BYTES, 1), "body"),
    "wire version 2": (lambda: signed(msgpack.packb(header_of()), version=2), "version 2"),
    "version is true": (lambda: signed(msgpack.packb(header_of()), version=True), "schema"),
    "version is text": (lambda: signed(msgpack.packb(header_of()), version="1"), "schema"),
    "extra header item": (lambda: signed(msgpack.packb([*header_of(), 1])), "schema"),
    "missing header item": (lambda: signed(msgpack.packb(header_of()[:-1])), "schema"),
    "extra field": (lambda: with_header(FIELDS, [*header_of()[FIELDS], 1]), "schema"),
    "missing field": (lambda: with_header(FIELDS, header_of()[FIELDS][:-1]), "schema"),
    "fields of another kind": (lambda: with_header(KIND, "receipt"), "schema"),
    "fields are a map": (lambda: with_header(FIELDS, {"task": "clinics"}), "not msgpack within limits"),
    "an extension": (lambda: with_header(FIELDS, msgpack.ExtType(5, b"x")), "not msgpack within limits"),
    "an empty extension": (lambda: with_header(FIELDS, msgpack.ExtType(5, b"")), "schema"),
    "a timestamp": (lambda: with_header(FIELDS, [msgpack.Timestamp(1)]), "not msgpack within limits"),
    "newline in a name": (lambda: with_header(SENDER, "NY\n"), "schema"),
    "control character in a name": (lambda: with_header(FEDERATION, "tri\x00al"), "schema"),
    "long name": (lambda: with_header(RECIPIENT, "a" * 49), "schema"),
    "base64 for bytes": (lambda: with_header(KEY_ID, "AAAAAAAAAAA="), "schema"),
    "10,000 levels of fields": (lambda: signed(b"\x98\xa5hello" + b"\x91" * 10_000 + b"\xc0"), "limits"),
    "1,000 levels of fields": (lambda: signed(packed_deep(1000)), "schema"),
    "header over the limit": (lambda: signed(bytes(MAX_HEADER_BYTES + 1)), "over the limit"),
    "message over the limit": (lambda: bytes(MAX_MESSAGE_BYTES + 1), "over the limit"),
}


def packed_deep(levels: int) -> bytes:
    header: bytes = msgpack.packb(header_of()[:-1])
    return b"\x98" + header[1:] + b"\x91" * levels + b"\xc0"


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(WireError, match=said):
        opened(make())


FIELD_TABLE = [
    ("hello", "made", -1),
    ("hello", "made", 2**63),
    ("hello", "made", 2**53 + 1),
    ("hello", "made", 1.0),
    ("hello", "made", True),
    ("hello", "nonce", 0),
    ("hello", "task", ""),
    ("hello", "task", "t" * 65),
    ("hello", "task", b"clinics"),
    ("hello", "incarnation", bytes(15)),
    ("hello", "layout_digest", "A" * 43 + "="),
    ("hello", "evicted", 1),
    ("hello", "statistics", [[1.0]] * 4),
    ("hello", "statistics", [[float("inf")], [0.0], [0.0]]),
    ("hello", "statistics", [["1.0"]]),
    ("update", "metrics", [("loss", float("nan"))]),
    ("update", "metrics", [("loss", float("-inf"))]),
    ("update", "metrics", [("loss", 1.0, 2.0)]),
    ("update", "metrics", [("loss", 1.0)] * 65),
    ("update", "training_s", float("nan")),
    ("update", "made_at", -0.5),
    ("update", "payload_bytes", 0),
    ("update", "examples", None),
    ("announcement", "plan", [("steps", "50")]),
    ("announcement", "issued_at", 1e12),
    ("announcement", "model_digest", bytes(33)),
    ("model", "parts", 0),
    ("receipt", "beyond", [0]),
    ("receipt", "refused", [(1, "x" * 401)]),
    ("receipt", "refused", [(1, b"reason")]),
]


@pytest.mark.parametrize(("kind", "field", "value"), FIELD_TABLE, ids=str)
def test_field_out_of_its_schema(kind: str, field: str, value: Any) -> None:
    with pytest.raises(WireError, match=r"schema|not finite"):
        opened(with_field(kind, field, value))


DECLARED = [tag + b"\xff" * 4 for tag in (b"\xdd", b"\xdc", b"\xc6", b"\xdb", b"\xdf", b"\xc9")]
BARE = [b"", b"\xc0", b"\x80", b"\x90", b"\xc1", b"\x94", b"\xc7\x00\xff", b"\x94" * 10_000, b"\x91" * 10_000]
WIDE_AND_DEEP = (b"\xdd" + (5_000_000).to_bytes(4, "big")) * 1000 + bytes(5_000_000)


HOSTILE = [*BARE, *DECLARED, b"\x94\x01" + DECLARED[0], WIDE_AND_DEEP]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: data[:6].hex())
def test_bytes_that_are_no_message_cost_little(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            opened(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_checks_come_in_the_order_of_what_they_cost() -> None:
    """A message wrong in every way is mended from the front: each time the next check speaks."""
    header = [*header_of()[:FIELDS], ["not", "a", "hello"]]
    header[KIND], header[FEDERATION], header[SENDER], header[RECIPIENT] = "goodbye", "other", "BOS", "nobody"
    stranger, swapped = PrivateKey.generate(), b"swapped"
    said = [_said(signed(b"\xc1", body=swapped, version=2, key=stranger)), _said(signed(b"\xc1", key=stranger))]
    said.append(_said(signed(b"\xc1", body=swapped)))
    for position, good in ((FEDERATION, "trial"), (SENDER, "NY"), (RECIPIENT, AGGREGATOR)):
        said.append(_said(signed(msgpack.packb(header), body=swapped)))
        header[position] = good
    said.append(_said(signed(msgpack.packb(header), body=swapped)))
    said.append(_said(signed(msgpack.packb(header))))
    header[KIND] = "hello"
    said.append(_said(signed(msgpack.packb(header))))
    words = ("version", "signature", "header", "federation", "from", "for 'nobody'", "body", "kind", "hello breaks")
    assert [word in text for word, text in zip(words, said, strict=True)] == [True] * len(words), said


def _said(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        opened(data)
    return str(caught.value)


def test_what_is_over_the_limits_is_not_sealed() -> None:
    with pytest.raises(WireError, match="over the wire's limits"):
        SITE_PARTY.seal(HELLO, to=AGGREGATOR, body=bytes(PART_BYTES + 1))
    with pytest.raises(WireError, match="over the wire's limits"):
        SITE_PARTY.seal(msgspec.structs.replace(HELLO, statistics=[[0.1] * 65536] * 3), to=AGGREGATOR)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_parts(size: int) -> None:
    parts = list(parts_of(bytes(size)))
    assert [len(part) for part in parts[:-1]] == [PART_BYTES] * (len(parts) - 1)
    assert (len(parts), sum(map(len, parts))) == (part_count(size), size)


def test_a_whole_number_is_taken_where_a_float_is_due() -> None:
    message, _ = opened(with_field("hello", "statistics", [[3], [2], [2]]))
    assert isinstance(message, Hello)
    assert repr(message.statistics) == "[[3.0], [2.0], [2.0]]"


def test_optional_fields_are_left_out_where_they_have_their_default_and_from_then_on_only() -> None:
    """So a peer of an older release reads what needs no newer one."""
    receipt = Receipt(bytes(16), 2, [], [], 5)
    plain, more = (_fields(one) for one in (receipt, msgspec.structs.replace(receipt, arrived=[(3, b"\x01")])))
    assert (len(plain), len(more)) == (5, 6)


def _fields(receipt: Receipt) -> list[Any]:
    envelope = msgpack.unpackb(AGGREGATOR_PARTY.seal(receipt, to="NY"))
    fields: list[Any] = msgpack.unpackb(envelope[1])[-1]
    return fields


@pytest.mark.parametrize("parts", [set(), {0}, {7}, {8}, {0, 3, 9, 64}])
def test_bitmaps(parts: set[int]) -> None:
    assert parts_in(bitmap(parts)) == parts
