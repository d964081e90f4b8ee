"""The messages of the wire: signed msgpack lists with a fixed schema, checked in the order of what a check costs.

A message is `[1, header, signature, body]`. The header is the msgpack list `[kind, federation, sender, recipient,
key id, body length, SHA-256 of the body, fields]`; the Ed25519 signature covers a fixed prefix and the header's bytes.
So length, signature, sender and digest are checked before a single field is looked at. There are no maps (duplicate
keys), no extension types, no class names; msgspec holds each list of fields against its declared schema.

`open_message` is total: for any bytes it returns a message or raises WireError. docs/wire-format.md has the bytes.
"""

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

import msgpack
import msgspec
from msgspec import Meta

from broker.errors import WireError
from broker.identity import KEY_ID_BYTES, PrivateKey, PublicKey
from broker.topology import NAME_PATTERN

WIRE_VERSION: Final = 1
PART_BYTES: Final = 4 << 20
MAX_HEADER_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = PART_BYTES + MAX_HEADER_BYTES + 1024
MAX_LIST: Final = 100_000
MAX_DIFFERENCES: Final = 256
AGGREGATOR: Final = "aggregator"
WRONG_SIGNATURE: Final = "The signature is not by the key enrolled for"
T = TypeVar("T")
_SIGNED_PREFIX: Final = b"fedqueue message 1\x00"

Name = Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}\Z")]  # "$" would let a newline follow
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Incarnation = Annotated[bytes, Meta(min_length=16, max_length=16)]
Count = Annotated[int, Meta(ge=0, le=(1 << 53))]
Positive = Annotated[int, Meta(ge=1, le=(1 << 53))]
Seconds = Annotated[float, Meta(ge=0, le=1e11)]
Named = Annotated[list[tuple[Word, float]], Meta(max_length=64)]
Numbers = Annotated[list[float], Meta(max_length=32_768)]  # three of them, 9 bytes a number, fit one header


class Fields(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Base of all message kinds: a fixed list. Items at its end that have a default are left out where they have it."""


class Difference(Fields, frozen=True):
    """How a site that holds one published model comes to a later one: `payload` bytes of `codec` from `offset` on."""

    base_version: Count
    base_digest: Digest
    version: Count
    digest: Digest
    codec: Word
    payload_bytes: Positive
    offset: Count


class Announcement(Fields, frozen=True):
    """Aggregator to sites: version `version` of the model is out, fetch it there, train by this plan if `training`.

    `model_codec`, `model_bytes`, `offset` and `parts` are of a keyframe, a model in full: of the announced one, or of
    `key_version` with `key_digest`, from which `differences` lead to it.
    """

    task: Word
    version: Count
    model_digest: Digest
    previous_digest: Digest
    layout_digest: Digest
    parameters: Positive
    model_codec: Word
    model_bytes: Positive
    offset: Count
    parts: Positive
    codec: Word
    plan: Named
    statistics: Annotated[list[Numbers], Meta(max_length=3)]
    training: bool
    issued_at: Seconds
    key_version: Count = 0
    key_digest: Annotated[bytes, Meta(max_length=32)] = b""
    differences: Annotated[list[Difference], Meta(max_length=MAX_DIFFERENCES)] = []


class ModelPart(Fields, frozen=True):
    """A slice of an encoded model, as the stream keeps it; of a difference where it names the digest of its `base`."""

    version: Count
    model_digest: Digest
    part: Count
    parts: Positive
    base: Annotated[bytes, Meta(max_length=32)] = b""


class UpdatePart(Fields, frozen=True):
    """A slice of an encoded update; all parts of an update carry the same fields but `part`.

    `settled` is the sequence through which the site has read receipts, so that the aggregator may forget reasons.
    `metrics` are of the base model on the site's `held_out` rows, before training. `error` is what the codec left out:
    the L2 norm of that, relative to the norm of what was to be sent.
    """

    task: Word
    incarnation: Incarnation
    sequence: Positive
    base_version: Count
    base_digest: Digest
    examples: Positive
    steps: Positive
    metrics: Named
    held_out: Count
    codec: Word
    payload_bytes: Positive
    payload_digest: Digest
    part: Count
    parts: Positive
    settled: Count
    made_at: Seconds
    training_s: Seconds
    error: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


class Hello(Fields, frozen=True):
    """Site to aggregator: here I am; answer with a receipt that names `nonce`, and with an announcement.

    It follows the site's updates through the same queue, so the receipt also proves that all updates published before
    it were seen. `evicted` asks for the model to be written to the stream again.
    """

    task: Word
    incarnation: Incarnation
    nonce: Positive
    settled: Count
    made: Count
    layout_digest: Digest
    examples: Count
    statistics: Annotated[list[Numbers], Meta(max_length=3)]
    evicted: bool


class Receipt(Fields, frozen=True):
    """Aggregator to a site, cumulative: all sequences up to `through` and those in `beyond` are settled.

    Every settled sequence was accepted unless `refused` names it with a reason; refusals stay listed until the site
    has said (`settled`) that it knows them. `answers` is the newest hello seen. `arrived` is of an update of which some
    parts are here, and not all: its sequence, and one bit a part, the lowest of the first byte for part 0.
    """

    incarnation: Incarnation
    through: Count
    beyond: Annotated[list[Positive], Meta(max_length=MAX_LIST)]
    refused: Annotated[list[tuple[Positive, Annotated[str, Meta(max_length=400)]]], Meta(max_length=MAX_LIST)]
    answers: Count
    arrived: Annotated[list[tuple[Positive, Annotated[bytes, Meta(max_length=65_536)]]], Meta(max_length=1)] = []


Message = Announcement | ModelPart | UpdatePart | Hello | Receipt
KINDS: Final[dict[str, type[Message]]] = {
    "announcement": Announcement,
    "model": ModelPart,
    "update": UpdatePart,
    "hello": Hello,
    "receipt": Receipt,
}
_KIND_OF: Final = {kind: name for name, kind in KINDS.items()}
_DEFAULTS: Final = {
    kind: [[] if one.default_factory is list else one.default for one in msgspec.structs.fields(kind)]
    for kind in KINDS.values()
}


class _Header(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    kind: Word
    federation: Name
    sender: Name
    recipient: Name
    key_id: Annotated[bytes, Meta(min_length=KEY_ID_BYTES, max_length=KEY_ID_BYTES)]
    body_bytes: Count
    body_digest: Digest
    fields: list[Any]


class _Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    header: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    body: bytes


@dataclass(frozen=True)
class Party:
    """One end of a conversation: a federation, one's own name and key, and the other end's name."""

    federation: str
    name: str
    key: PrivateKey

    def seal(self, message: Message, *, to: str, body: bytes = b"") -> bytes:
        """The signed bytes of `message` for `to`."""
        header = [
            _KIND_OF[type(message)],
            self.federation,
            self.name,
            to,
            self.key.public.key_id,
            len(body),
            hashlib.sha256(body).digest(),
            _listed(message),
        ]
        packed: bytes = msgpack.packb(header)
        if len(packed) > MAX_HEADER_BYTES or len(body) > PART_BYTES:
            raise WireError(f"A message of {len(packed)} + {len(body)} bytes is over the wire's limits.")
        sealed: bytes = msgpack.packb([WIRE_VERSION, packed, self.key.sign(_SIGNED_PREFIX + packed), body])
        return sealed


@dataclass(frozen=True)
class Peer:
    """Whom a message must come from: a federation, a name, and the key pinned for it."""

    federation: str
    name: str
    key: PublicKey

    def open(self, data: bytes, *, recipients: frozenset[str]) -> tuple[Message, bytes]:
        """The message and its body; WireError says what is wrong. `recipients` are the names one answers to."""
        opened = self.opened(data, recipients=recipients)
        return opened.message, opened.body

    def opened(self, data: bytes, *, recipients: frozenset[str]) -> "Opened":
        """As `open`, with the body's digest, which has been taken."""
        envelope = _envelope(data)
        if not self.key.verifies(envelope.signature, _SIGNED_PREFIX + envelope.header):
            raise WireError(f"{WRONG_SIGNATURE} {self.name}.")
        header = _convert(_unpack(envelope.header, "header", longest=MAX_LIST), _Header, "header")
        if header.federation != self.federation:
            raise WireError(f"The message is for federation {header.federation!r}, not {self.federation!r}.")
        if header.sender != self.name:
            raise WireError(f"The message says it is from {header.sender!r}, but came where {self.name!r} writes.")
        if header.recipient not in recipients:
            raise WireError(f"The message is for {header.recipient!r}.")
        if header.body_bytes != len(envelope.body) or hashlib.sha256(envelope.body).digest() != header.body_digest:
            raise WireError("The body is not the one that was signed.")
        if header.kind not in KINDS:
            raise WireError(f"There is no message kind {header.kind!r}.")
        message = _convert(header.fields, KINDS[header.kind], header.kind)
        _require_finite(header.fields)
        return Opened(message, envelope.body, header.body_digest)


@dataclass(frozen=True)
class Opened:
    """A message that is what it says; `digest` is that of the body."""

    message: Message
    body: bytes = field(repr=False)
    digest: bytes


EVERYONE: Final = "everyone"


def parts_of(payload: bytes) -> Iterator[bytes]:
    """`payload` in parts of at most 4 MiB; at least one."""
    for start in range(0, max(len(payload), 1), PART_BYTES):
        yield payload[start : start + PART_BYTES]


def part_count(payload_bytes: int) -> int:
    """How many parts `parts_of` makes."""
    return max(1, -(-payload_bytes // PART_BYTES))


def part_at(position: int) -> tuple[int, int]:
    """Which part has the byte at `position` of a payload, and how many bytes of that part come before it."""
    return divmod(position, PART_BYTES)


def part_bounds(part: int) -> tuple[int, int]:
    """Where a part begins in its payload, and how long it is at the most."""
    return part * PART_BYTES, PART_BYTES


def bitmap(parts: Collection[int]) -> bytes:
    """Numbers of parts as a receipt carries them: one bit a part, the lowest of the first byte for part 0."""
    return sum(1 << part for part in parts).to_bytes((max(parts, default=0) + 8) // 8, "little")


def parts_in(bits: bytes) -> set[int]:
    """The numbers of parts that `bitmap` was given."""
    return {8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1}


def _listed(message: Message) -> list[Any]:
    """The message's fields, without those at the end that have their default: older peers need not know them."""
    values: list[Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    for default in reversed(_DEFAULTS[type(message)]):
        if default is msgspec.NODEFAULT or values[-1] != default:
            break
        values.pop()
    return values


def _envelope(data: bytes) -> _Envelope:
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"A message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}.")
    envelope = _convert(_unpack(data, "message", longest=4), _Envelope, "message")
    if envelope.version != WIRE_VERSION:
        raise WireError(f"The message speaks wire version {envelope.version}, this side version {WIRE_VERSION}.")
    if len(envelope.header) > MAX_HEADER_BYTES:
        raise WireError(f"A header of {len(envelope.header)} bytes is over the limit of {MAX_HEADER_BYTES}.")
    return envelope


def _unpack(data: bytes, what: str, *, longest: int) -> Any:
    """No list may be longer than `longest`: msgpack makes room for what a list declares before it has seen it."""
    try:
        return msgpack.unpackb(data, raw=False, max_array_len=longest, max_map_len=0, max_ext_len=0)
    except Exception as error:  # the parser is total: whatever msgpack says of foreign bytes, they are refused
        raise WireError(f"The {what} is not msgpack within limits ({type(error).__name__}).") from error


def _convert(value: Any, kind: type[T], what: str) -> T:
    try:  # without builtin_types, base64 text would pass for bytes
        return msgspec.convert(value, type=kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise WireError(f"The {what} breaks its schema: {error}.") from error


def _require_finite(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _require_finite(one)
    elif isinstance(value, float) and not math.isfinite(value):
        raise WireError("A number in the message is not finite.")
