"""Encoding a version for the sites, chunk by chunk from file to file: a keyframe, or the difference to what they hold.

FOLDER/published/VERSION.safetensors     what sites hold of it, while differences lead on from it
FOLDER/published/VERSION.payload         a keyframe that is being written to the stream; gone once it is there
FOLDER/published/VERSION-BASE.payload    a difference

With a lossy codec, what sites hold follows from the differences: p' = p + decoded(codec(x - p)), x the model. What a
difference leaves out is in the next one, since that is taken to p' (error feedback at the server: Tang et al. 2019,
DoubleSqueeze, algorithm 1). The digest of p' is announced: it proves that both ends hold the same bits.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aggregator.publications import NOTHING, Published
from aggregator.settings import Folder
from broker.codecs import Vector, chosen
from broker.differences import KEYFRAME_CODEC, Stretches, difference, keyframe, led_on
from broker.errors import StorageError, UsageError
from broker.files import make_durable, written_whole
from broker.messages import part_bounds
from broker.weights import FileVector, Layout, save_model, save_stretches


@dataclass(frozen=True)
class Wanted:
    """What is to be published of a version: from `base`, the newest that was, with `codec`; a `key`frame as well?

    `digest` is that of `model`, the aggregator's own.
    """

    version: int
    digest: bytes
    model: Vector = field(repr=False)
    base: Published | None
    codec: str
    key: bool
    at: float


class Downlink:
    """See the module's docstring."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self.folder, self._layout = folder, layout

    def encode(self, wanted: Wanted) -> list[Published]:
        """Write what is to be published of a version; StorageError if the disk will not have it.

        A keyframe where sites hold nothing that a difference could lead on from, or the codec is lossless. Nothing if
        the version has been published already and what sites hold of it is gone: then the next version has to do.
        """
        held, base, lossless = self._held(wanted), wanted.base, chosen(wanted.codec).codec.lossless
        if base is not None and base.version == wanted.version:
            return [] if held is None else [self._keyframe(wanted, held, base.digest)]
        if held is None or base is None or lossless:
            if not lossless:
                self._keep_whole(wanted)
            return [self._keyframe(wanted, wanted.model, wanted.digest)]
        difference = self._difference(wanted, held, base)
        if not wanted.key:
            return [difference]
        held = FileVector(self.folder.published(wanted.version))
        return [difference, self._keyframe(wanted, held, difference.digest)]

    def part(self, row: Published, part: int) -> bytes | None:
        """One part of what `encode` has written; None if the file is gone."""
        first, size = part_bounds(part)
        try:
            with self.folder.payload(*row.name).open("rb") as file:
                file.seek(first)
                return file.read(size) or None
        except OSError:
            return None

    def clean(self, row: Published) -> None:
        """All of it is in the stream: remove what is no longer needed. A file that stays costs room only."""
        older = (path for path in self.folder.published_files() if path[0] < row.version)
        for path in (self.folder.payload(*row.name), *(path for _, path in older)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _held(self, wanted: Wanted) -> Stretches | None:
        """What sites hold of the newest version that was published; None if nothing, or if the file is gone."""
        if wanted.base is None:
            return None
        if wanted.base.digest == wanted.digest:
            return wanted.model
        with suppress(UsageError, StorageError):
            return FileVector(self.folder.published(wanted.base.version))
        return None

    def _keep_whole(self, wanted: Wanted) -> None:
        """What sites hold is the model itself: its snapshot, under a second name, if it is on the disk."""
        path = self.folder.published(wanted.version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            path.hardlink_to(self.folder.snapshot(wanted.digest))
            make_durable(path)  # nobody checks it when it is read, as a snapshot is
            make_durable(path.parent)
        except OSError:
            save_model(path, self._layout, wanted.model)

    def _keyframe(self, wanted: Wanted, held: Stretches, digest: bytes) -> Published:
        size = _write(self.folder.payload(wanted.version, NOTHING), keyframe(held))
        return Published(wanted.version, NOTHING, digest, b"", KEYFRAME_CODEC, size, 0.0, wanted.at)

    def _difference(self, wanted: Wanted, held: Stretches, base: Published) -> Published:
        path = self.folder.payload(wanted.version, base.version)
        codec, form = chosen(wanted.codec).name, self._layout.form
        size = _write(path, difference(wanted.codec, wanted.model, held, form))
        seen = _Seen(wanted.model, held, self._layout.digest)
        coming = seen.through(led_on(codec, _pieces(path), held, form))
        save_stretches(self.folder.published(wanted.version), self._layout, coming)
        digest = seen.digest.digest()
        return Published(wanted.version, base.version, digest, base.digest, codec, size, seen.error, wanted.at)


class _Seen:
    """Looks at what sites will hold while it goes by: its digest, and how far it is from the model."""

    def __init__(self, model: Vector, held: Stretches, layout_digest: bytes) -> None:
        self._model, self._held = model, held
        self.digest = hashlib.sha256(layout_digest)
        self._left_out = self._due = 0.0

    def through(self, stretches: Iterable[Vector]) -> Iterator[Vector]:
        start = 0
        for stretch in stretches:
            place = slice(start, start + len(stretch))
            self.digest.update(np.ascontiguousarray(stretch, dtype="<f4").data)
            self._left_out += _square_norm(self._model[place] - stretch)
            self._due += _square_norm(self._model[place] - self._held[place])
            start = place.stop
            yield stretch

    @property
    def error(self) -> float:
        """What is left out, relative to what was due."""
        return math.sqrt(self._left_out / self._due) if self._due else 0.0


def _square_norm(vector: Vector) -> float:
    return float(np.dot(vector, vector))


def _write(path: Path, pieces: Iterable[bytes]) -> int:
    """How many bytes."""
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            return file.tell()
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
