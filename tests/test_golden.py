"""What was once on the wire stays readable: committed payloads decode, committed messages open.

Messages are also sealed again to the same bytes, because Ed25519 and msgpack are deterministic. Payloads are not, for
a newer zstd may compress better; only decoding is held.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from broker.codecs import CODECS, decoded, encode
from broker.messages import KINDS, Peer
from tests.golden import plain
from tests.golden.make import FOLDER, MATRICES, MATRICES_FORM, NAMES, SEALED, products, vectors

WIRE_FORMAT = Path(__file__).parents[1] / "docs" / "wire-format.md"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_old_payloads_decode_to_the_same_bits(codec: str, name: str) -> None:
    vector = vectors(codec)[name]
    found = decoded(codec, (FOLDER / f"{codec}-{name}.payload").read_bytes(), len(vector))
    np.testing.assert_array_equal(found, vector, strict=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_the_description_is_enough_to_read_them(codec: str, name: str) -> None:
    vector = vectors(codec)[name]
    found = plain.payload(codec, (FOLDER / f"{codec}-{name}.payload").read_bytes(), len(vector))
    assert found == vector.tolist()


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_the_description_is_enough_to_read_what_is_drawn(codec: str) -> None:
    """Golden vectors are held exactly, so they have no odd steps and no rounding; these have."""
    vector = np.random.default_rng(9).standard_cauchy(5001).astype(np.float32)
    payload = encode(codec, vector)
    assert plain.payload(codec, payload, 5001) == decoded(codec, payload, 5001).tolist()


def test_matrices_are_read_by_their_form_and_by_the_description_alone() -> None:
    payload = (FOLDER / "lowrank-matrices.payload").read_bytes()
    expected = products(MATRICES)
    assert decoded("lowrank", payload, MATRICES_FORM).tobytes() == expected.tobytes()
    assert plain.matrices(payload, [one.shape for one in MATRICES]) == expected.tolist()


@pytest.mark.parametrize("kind", sorted(SEALED))
def test_old_messages_open_and_are_sealed_to_the_same_bytes(kind: str) -> None:
    party, to, message, body = SEALED[kind]
    data = (FOLDER / f"{kind}.message").read_bytes()
    peer = Peer(party.federation, party.name, party.key.public)
    assert peer.open(data, recipients=frozenset({to})) == (message, body)
    assert party.seal(message, to=to, body=body) == data


def test_the_written_example_is_the_golden_hello() -> None:
    text = WIRE_FORMAT.read_text().split("<!-- tests/golden/hello.message -->")[1].split("```")[1]
    digits = "".join(re.findall(r"^([0-9a-f]+(?: [0-9a-f]+)*)", text, re.MULTILINE)).replace(" ", "")
    assert bytes.fromhex(digits) == (FOLDER / "hello.message").read_bytes()


def test_every_golden_file_is_read() -> None:
    payloads = {f"{codec}-{name}.payload" for codec in CODECS for name in NAMES}
    payloads.add("lowrank-matrices.payload")
    assert set(SEALED) > set(KINDS)
    messages = {f"{kind}.message" for kind in SEALED}
    found = {path.name for path in FOLDER.iterdir() if path.suffix in {".payload", ".message"}}
    assert found == payloads | messages
