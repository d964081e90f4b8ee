"""Writes golden files that are not there yet: `python -m tests.golden.make`.

Golden files are only ever added, never remade: a file that no longer decodes is a broken promise to a hospital that
has not been updated, not a file to write again. The literals below belong to the files and are as fixed as they are.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.codecs import CODECS, Form, Vector, encode
from broker.identity import PrivateKey
from broker.messages import (
    AGGREGATOR,
    EVERYONE,
    Announcement,
    Difference,
    Hello,
    Message,
    ModelPart,
    Party,
    Receipt,
    UpdatePart,
)

FOLDER: Final = Path(__file__).parent
AGGREGATOR_PARTY: Final = Party("trial", AGGREGATOR, PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32))))
SITE_PARTY: Final = Party("trial", "NY", PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))))

ONE, TWO, THREE = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
INCARNATION: Final = bytes(range(16))
BODY: Final = b"\x00\x01body of a part\xff"

SEALED: Final[dict[str, tuple[Party, str, Message, bytes]]] = {
    "announcement": (
        AGGREGATOR_PARTY,
        EVERYONE,
        Announcement(
            task="clinics",
            version=7,
            model_digest=ONE,
            previous_digest=TWO,
            layout_digest=THREE,
            parameters=4097,
            model_codec="float32",
            model_bytes=16000,
            offset=42,
            parts=1,
            codec="int8",
            plan=[("steps", 50.0), ("learning_rate", 0.1)],
            statistics=[[3.0, 2.0], [1.5, -2.0], [1.25, 2.0]],
            training=True,
            issued_at=1700000000.5,
        ),
        b"",
    ),
    "model": (AGGREGATOR_PARTY, EVERYONE, ModelPart(version=7, model_digest=ONE, part=0, parts=1), BODY),
    "update": (
        SITE_PARTY,
        AGGREGATOR,
        UpdatePart(
            task="clinics",
            incarnation=INCARNATION,
            sequence=3,
            base_version=7,
            base_digest=ONE,
            examples=120,
            steps=50,
            metrics=[("loss", 0.5), ("accuracy", 0.75)],
            held_out=30,
            codec="int8",
            payload_bytes=17,
            payload_digest=TWO,
            part=0,
            parts=1,
            settled=2,
            made_at=1700000001.25,
            training_s=12.5,
        ),
        BODY,
    ),
    "hello": (
        SITE_PARTY,
        AGGREGATOR,
        Hello(
            task="clinics",
            incarnation=INCARNATION,
            nonce=5,
            settled=2,
            made=3,
            layout_digest=THREE,
            examples=120,
            statistics=[[3.0, 2.0], [1.5, -2.0], [1.25, 2.0]],
            evicted=False,
        ),
        b"",
    ),
    "receipt": (
        AGGREGATOR_PARTY,
        "NY",
        Receipt(INCARNATION, through=2, beyond=[4, 6], refused=[(2, "The update is too large.")], answers=5),
        b"",
    ),
}

_STEPS: Final = [Difference(5, TWO, 6, THREE, "int8", 4200, 77), Difference(6, THREE, 7, ONE, "top1", 90, 80)]
OPTIONAL: Final[dict[str, dict[str, Any]]] = {
    "announcement": {"key_version": 5, "key_digest": TWO, "differences": _STEPS},
    "model": {"base": THREE},
    "update": {"error": 0.25},
    "receipt": {"arrived": [(7, b"\x05\x01")]},
}
for _name, _more in OPTIONAL.items():
    _party, _to, _message, _body = SEALED[_name]
    SEALED[f"{_name}-2"] = _party, _to, msgspec.structs.replace(_message, **_more), _body


CHUNK_AND_5: Final = (1 << 18) + 5
KEPT: Final = {"top5": 0.05, "top1": 0.01, "top0.1": 0.001}
NAMES: Final = ("one", "zeros", "blocks", "chunks")


def vectors(codec: str) -> dict[str, Vector]:
    """Four vectors that the codec holds exactly."""
    if codec in KEPT:
        return sparse_vectors(KEPT[codec])
    if codec == "lowrank":
        return {name: products(rows) for name, rows in ROWS.items()}
    steps, long = np.arange(4097, dtype=np.int64), np.arange(CHUNK_AND_5, dtype=np.int64)
    if codec == "int4":  # multiples of a quarter that reach 7 quarters in each block of 256
        one, blocks, chunks = np.array([-1.75]), (steps * 37 % 15 - 7) / 4, (long % 3 - 1) * 1.75
    elif codec == "sign":
        one, blocks, chunks = np.array([-31.75]), np.where(steps * 37 % 7 < 3, -2, 2), np.where(long % 3, 0.5, -0.5)
    else:  # multiples of a quarter that reach 127 quarters in each block of 4096
        one, blocks = np.array([-31.75]), ((steps * 37 + 173) % 255 - 127) / 4
        chunks = (long % 3 - 1) * 31.75
    zeros = np.zeros(4096)
    return {name: it.astype(np.float32) for name, it in zip(NAMES, (one, zeros, blocks, chunks), strict=True)}


def sparse_vectors(share: float) -> dict[str, Vector]:
    """As many entries as are kept: powers of 2 under the peak of 64, and 1.5 too far under it for a step of its own."""
    sizes = np.array([64, -32, 16, -8, 1.5, -1.5])
    made = {
        "one": np.array([-31.75]),
        "zeros": np.zeros(4096),
        "blocks": np.zeros(4097),
        "chunks": np.zeros(CHUNK_AND_5),
    }
    for name in ("blocks", "chunks"):
        size, entries = len(made[name]), round(share * len(made[name]))
        made[name][(np.arange(entries) ** 2 + 3 * np.arange(entries)) % size] = 1  # uneven gaps, some twice the same
        made["chunks"][-1] = 1
        places = np.flatnonzero(made[name])
        made[name][places] = sizes[np.arange(len(places)) % 6]
    return {name: vector.astype(np.float32) for name, vector in made.items()}


@dataclass(frozen=True)
class Thin:
    """What a lowrank segment says: left and right have a row for each component."""

    shape: tuple[int, int]
    scale: float = 0.25
    exponents: Sequence[int] = ()
    left: Sequence[Sequence[int]] = ()
    right: Sequence[Sequence[int]] = ()


def ascending(size: int) -> list[int]:
    """-15 to 15, again and again."""
    return [number % 31 - 15 for number in range(size)]


ROWS: Final = {
    "one": [Thin((1, 1), 2.0, [0], [[15]], [[-1]])],
    "zeros": [Thin((1, 4096))],
    "blocks": [Thin((1, 4097), 0.25, [2], [[-3]], [ascending(4097)])],
    "chunks": [Thin((1, CHUNK_AND_5), 2.0**-20, [8], [[2]], [ascending(CHUNK_AND_5)])],
}
MATRICES_FORM: Final = Form(((3, 4), (5,), (0, 2), (2, 3, 4), ()))
MATRICES: Final = [
    Thin((3, 4), 0.125, [8, 0], [[1, -2, 15], [0, 3, -15]], [[4, 0, -15, 1], [5, -6, 7, 15]]),
    Thin((1, 5)),
    Thin((6, 4), 3.0, [0, 1, 5, 0], [ascending(6)] * 4, [[1, 2, 3, 4], [15] * 4, [-1, 0, 1, 0], [-15, 2, 2, 2]]),
    Thin((1, 1), 1.5, [3], [[-1]], [[7]]),
]


def products(segments: Sequence[Thin]) -> Vector:
    """scale * sum of 2 ** exponent * left * right, in whole numbers."""
    parts = []
    for one in segments:
        total = np.zeros(one.shape, dtype=np.int64)
        for exponent, left, right in zip(one.exponents, one.left, one.right, strict=True):
            total += np.outer(left, right) << exponent
        parts.append(total.reshape(-1) * one.scale)
    return np.concatenate(parts).astype(np.float32)


def thin_payload(segments: Sequence[Thin]) -> bytes:
    """Byte by byte: no encoder ends on just these numbers."""
    payload = b""
    for one in segments:
        content = struct.pack("<H", len(one.exponents))
        if one.exponents:
            levels = np.concatenate([*one.left, *one.right]).astype(np.int8)
            content += struct.pack("<f", one.scale) + bytes(one.exponents) + levels.tobytes()
        frame = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content)
        payload += struct.pack("<I", len(frame)) + frame
    return payload


def main() -> None:
    """Write what is missing, leave what is there."""
    files = {
        f"{codec}-{name}.payload": thin_payload(ROWS[name]) if codec == "lowrank" else encode(codec, vector)
        for codec in CODECS
        for name, vector in vectors(codec).items()
    }
    files["lowrank-matrices.payload"] = thin_payload(MATRICES)
    for kind, (party, to, message, body) in SEALED.items():
        files[f"{kind}.message"] = party.seal(message, to=to, body=body)
    for name, data in files.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
