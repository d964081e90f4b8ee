"""Fetching one announced model from the stream: parts by number, digest checked, nothing trusted but the signature.

Stream offsets are not contiguous and an evicted offset silently starts at the oldest message, so parts are taken by
version, digest and number. A stream that starts beyond the offset, or ends without the parts, means the model was
evicted: the site then says hello and asks for it again.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs import decoded, max_payload_bytes
from broker.errors import WireError
from broker.link import Delivery
from broker.messages import EVERYONE, Announcement, ModelPart, Peer, part_count
from broker.weights import model_digest

Vector = NDArray[np.float32]
STALLED_S: Final = 60.0


class Download:
    """The parts of the model of one announcement. Raises WireError if the announcement itself cannot be right."""

    def __init__(self, announcement: Announcement, aggregator: Peer, *, now: float) -> None:
        self.announcement = announcement
        self._aggregator = aggregator
        self._parts: dict[int, bytes] = {}
        self._first = True
        self.evicted = False
        self.stalled_at = now + STALLED_S
        if announcement.model_codec != "float32":
            raise WireError(f"Models in codec {announcement.model_codec!r} cannot be read by this version.")
        allowed = max_payload_bytes(announcement.model_codec, announcement.parameters)
        if announcement.model_bytes > allowed or announcement.parts != part_count(announcement.model_bytes):
            raise WireError("The announced model's size does not fit its parameters.")

    def take(self, delivery: Delivery, *, now: float) -> bool:
        """Keep a part, ignore everything else; True once all are there."""
        announcement = self.announcement
        if self._first and delivery.offset is not None and delivery.offset > announcement.offset:
            self.evicted = True
        self._first = False
        try:
            message, body = self._aggregator.open(delivery.body, recipients=frozenset({EVERYONE}))
        except WireError:
            return False
        ours = isinstance(message, ModelPart) and message.model_digest == announcement.model_digest
        if not isinstance(message, ModelPart) or not ours or message.part >= announcement.parts:
            return False
        self._parts[message.part] = body
        self.stalled_at = now + STALLED_S
        return len(self._parts) == announcement.parts

    def model(self) -> Vector:
        """The model, shape (parameters,); WireError unless it is bit for bit the announced one."""
        announcement = self.announcement
        payload = b"".join(self._parts[part] for part in range(announcement.parts))
        self._parts.clear()
        vector = decoded(announcement.model_codec, payload, announcement.parameters)
        if model_digest(announcement.layout_digest, vector) != announcement.model_digest:
            raise WireError(f"The model of version {announcement.version} is not the announced one.")
        return vector
