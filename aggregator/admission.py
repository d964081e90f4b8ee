"""Which updates are let in: checks in the order of what they cost, each with the sentence its site will read.

Signature, sender and schema were checked when the message was opened (broker/messages.py). All functions are pure.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aggregator.settings import Limits
from broker.codecs import CODECS, Bytes, Decoder, Form, max_payload_bytes
from broker.errors import RefusedUpdate, WireError
from broker.messages import UpdatePart, part_count

MAX_LEAP: Final = 100_000


@dataclass(frozen=True)
class Terms:
    """What an update is held against: `form` is the model's, `digests` maps every version to its model's digest.

    `version` is the newest, whose model may not be made yet. `max_staleness` is in versions, None for no limit.
    """

    task: str
    form: Form
    digests: Mapping[int, bytes]
    limits: Limits
    version: int
    max_staleness: int | None = None


def check_fields(update: UpdatePart, terms: Terms) -> None:
    """Refuse an update whose fields cannot be right, before its payload is looked at."""
    if update.task != terms.task:
        raise RefusedUpdate(f"task {update.task!r} is not this federation's task {terms.task!r}")
    if update.base_version not in terms.digests:
        raise RefusedUpdate(f"base version {update.base_version} was never published")
    if terms.digests[update.base_version] != update.base_digest:
        raise RefusedUpdate(f"its base is not this federation's version {update.base_version}")
    staleness = terms.version - update.base_version
    if terms.max_staleness is not None and staleness > terms.max_staleness:
        raise RefusedUpdate(
            f"its base, version {update.base_version}, is {staleness} versions old; this federation takes at most "
            f"{terms.max_staleness}"
        )
    if update.examples > terms.limits.max_examples:
        raise RefusedUpdate(f"{update.examples} examples are over the limit of {terms.limits.max_examples}")
    if update.codec not in CODECS:
        raise RefusedUpdate(f"codec {update.codec!r} is unknown here")
    if update.payload_bytes > max_payload_bytes(update.codec, terms.form):
        raise RefusedUpdate(f"{update.payload_bytes} bytes are more than {terms.form.size} parameters can need")
    if update.parts != part_count(update.payload_bytes) or update.part >= update.parts:
        raise RefusedUpdate(f"part {update.part} of {update.parts} does not fit {update.payload_bytes} bytes")


class Check:
    """A payload held against what was signed and against the limits, piece by piece in order; memory is one segment.

    `digest` is that of the whole payload, where somebody has taken it.
    """

    def __init__(self, update: UpdatePart, terms: Terms, *, digest: bytes | None = None) -> None:
        self._update, self._limits, self._known = update, terms.limits, digest
        self._decoder = Decoder(update.codec, terms.form)
        self._digest, self._bytes, self._squares = hashlib.sha256(), 0, 0.0

    def feed(self, piece: Bytes, *, begun: Bytes = b"") -> None:
        """The next piece; `begun` is what `drop` has let go before it. RefusedUpdate at the first thing wrong."""
        if self._known is None:
            self._digest.update(piece)
        self._bytes += len(piece)
        try:
            for source in (begun, piece):
                for _start, values in self._decoder.feed(source):
                    self._squares += values.square_norm()
        except WireError as error:
            raise RefusedUpdate(f"the payload does not decode: {error}") from error
        self._require_norm()

    def drop(self) -> int:
        """Let go of the beginning of a frame that is not complete: so many bytes, to be given again."""
        return self._decoder.drop()

    def finish(self) -> float:
        """The L2 norm of the delta."""
        digest = self._known or self._digest.digest()
        if self._bytes != self._update.payload_bytes or digest != self._update.payload_digest:
            raise RefusedUpdate("its parts are not the payload that was signed")
        try:
            self._decoder.finish()
        except WireError as error:
            raise RefusedUpdate(f"the payload does not decode: {error}") from error
        return math.sqrt(self._squares)

    def _require_norm(self) -> None:
        if not math.isfinite(self._squares):
            raise RefusedUpdate("the delta has numbers that are not finite, or far too large")
        norm = math.sqrt(self._squares)
        if norm > self._limits.max_norm:
            raise RefusedUpdate(f"the delta's norm {norm:.3g} is over the limit of {self._limits.max_norm:.3g}")
