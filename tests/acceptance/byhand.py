"""An enrolled site without a worker: the test makes its messages with the site's own key, account and routing keys."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pika
from pika.adapters.blocking_connection import BlockingChannel

from broker.codecs import encode
from broker.identity import PrivateKey
from broker.messages import AGGREGATOR, Hello, Message, Party, UpdatePart, part_count, parts_of
from broker.topology import updates_exchange
from broker.weights import load_model
from tests.acceptance.federation import Federation


@dataclass
class HandSite:
    """Site `name` of a federation whose worker does not run."""

    federation: Federation
    name: str

    def __post_init__(self) -> None:
        folder = self.federation.site(self.name)
        self.url = folder.url_file.read_text().strip()
        self.party = Party(self.federation.name, self.name, PrivateKey.load(folder.key_file))
        self.incarnation, self.sequence = os.urandom(16), 0
        self.layout, self.initial = load_model(self.federation.path / "initial.safetensors")
        self.account = f"{self.federation.name}.{self.name}"
        self._base = bytes(self.federation.journal("SELECT digest FROM versions WHERE version = 0")[0][0])

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """A channel of the site's own account that confirms."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel

    def send(self, *bodies: bytes, hello: bool = False, user_id: str | None = "") -> None:
        """Publish in order; `user_id` "" is the site's own account."""
        names = self.federation.names(self.name)
        key = names.hello_key if hello else names.update_key
        properties = pika.BasicProperties(user_id=self.account if user_id == "" else user_id, delivery_mode=2)
        with self.channel() as channel:
            for body in bodies:
                channel.basic_publish(updates_exchange(self.federation.name), key, body, properties, mandatory=True)

    def hello(self, *, task: str = "tiny", nonce: int = 1) -> None:
        """Say hello."""
        layout, examples = self.layout.digest, 10
        self.send(self.seal(Hello(task, self.incarnation, nonce, 0, 0, layout, examples, [], False)), hello=True)

    def seal(self, message: Message, body: bytes = b"") -> bytes:
        """Signed bytes of a message."""
        return self.party.seal(message, to=AGGREGATOR, body=body)

    def update(self, delta: float | bytes = 0.01, *, codec: str = "float32", **changes: Any) -> bytes:
        """The next update, from version 0: a constant delta, or a payload as it is; `changes` of its fields."""
        payload = encode(codec, np.full_like(self.initial, delta)) if isinstance(delta, float) else delta
        return self.seal(msgspec.structs.replace(self._next(payload, codec), **changes), payload)

    def parts(self, payload: bytes, *, codec: str = "float32", **changes: Any) -> list[bytes]:
        """The next update, as `update` makes it, in as many messages as its payload needs."""
        whole = msgspec.structs.replace(self._next(payload, codec), **changes)
        return [
            self.seal(msgspec.structs.replace(whole, part=part), body) for part, body in enumerate(parts_of(payload))
        ]

    def _next(self, payload: bytes, codec: str) -> UpdatePart:
        self.sequence += 1
        return UpdatePart(
            task="tiny",
            incarnation=self.incarnation,
            sequence=self.sequence,
            base_version=0,
            base_digest=self._base,
            examples=10,
            steps=1,
            metrics=[("loss", 0.5)],
            held_out=5,
            codec=codec,
            payload_bytes=len(payload),
            payload_digest=hashlib.sha256(payload).digest(),
            part=0,
            parts=part_count(len(payload)),
            settled=0,
            made_at=1.0,
            training_s=0.1,
        )
