"""The model that a site holds, and the parts of those that it is fetching: kept over restarts, so nothing comes twice.

FOLDER/model/VERSION.safetensors          what it holds, while differences may lead on from it
FOLDER/model/DIGEST-BASE/PART-OFFSET      parts of a transfer, each whole; gone once the model is made of them

A part that was not on the disk yet when the power failed is noticed with the model's digest, and all of them are then
fetched again. The model of a round is the held file itself, mapped into memory.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from broker.codecs import Form, Vector
from broker.differences import in_full, led_on
from broker.errors import StorageError, UsageError, WireError
from broker.weights import Layout, map_model, save_stretches


class Leg(msgspec.Struct, frozen=True):
    """One transfer on the way to a model: a keyframe, or the difference from the model with `base_digest`."""

    version: int
    digest: bytes
    codec: str
    payload_bytes: int
    parts: int
    offset: int
    base_digest: bytes = b""

    @property
    def name(self) -> str:
        """What tells it from other transfers."""
        return f"{self.digest.hex()[:32]}-{self.base_digest.hex()[:32] or 'whole'}"


@dataclass(frozen=True)
class Held:
    """A model that is here in full."""

    version: int
    digest: bytes


class Models(Protocol):
    """See the module's docstring; in the simulator they are kept in memory."""

    @property
    def form(self) -> Form:
        """That of the tensors of all of them."""

    def held(self) -> Held | None:
        """The model that is here in full."""

    def parts(self, leg: Leg) -> dict[int, int]:
        """The numbers of the parts that are here, with their offsets in the stream."""

    def keep(self, leg: Leg, part: int, offset: int, body: bytes) -> None:
        """Keep a part; StorageError if the disk will not have it."""

    def make(self, legs: Sequence[Leg]) -> Vector:
        """The model at the end of `legs`, each of which is here in full; it is what is held from now on.

        Without any, the model that is held. WireError if it is not, bit for bit, what its digest says: then what was
        fetched is thrown away.
        """


class ModelFolder:
    """Models on disk."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout

    @property
    def form(self) -> Form:
        """See Models."""
        return self._layout.form

    def held(self) -> Held | None:
        """See Models; the digest is taken from the file's name for it, and proved when the next model is made of it."""
        files = sorted(self._folder.glob("*.safetensors"), key=_version_of)
        if not files:
            return None
        version, _, digest = files[-1].stem.partition("-")
        return Held(int(version), bytes.fromhex(digest))

    def parts(self, leg: Leg) -> dict[int, int]:
        """See Models."""
        files = (path.name.partition("-") for path in (self._folder / leg.name).glob("[0-9]*-[0-9]*"))
        return {int(part): int(offset) for part, _, offset in files}

    def keep(self, leg: Leg, part: int, offset: int, body: bytes) -> None:
        """See Models."""
        folder = self._folder / leg.name
        path = folder / f"{part}-{offset}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}")
            temporary.write_bytes(body)
            temporary.replace(path)
        except OSError as error:
            raise StorageError(f"{path} could not be written: {error.strerror}.") from error

    def make(self, legs: Sequence[Leg]) -> Vector:
        """See Models."""
        held = self.held()
        for leg in legs:
            held = self._make(leg, held)
        if held is None:
            raise WireError("There is no model here; fetch it again.")
        self._clean(held)
        return self._map(held)

    def _make(self, leg: Leg, held: Held | None) -> Held:
        made, seen = Held(leg.version, leg.digest), _Digested(self._layout.digest)
        new = self._path(made).with_suffix(".new")
        try:
            save_stretches(new, self._layout, seen.through(self._stretches(leg, held)))
            seen.require(leg)
        except WireError:
            self._throw_away(leg, held)
            raise
        new.replace(self._path(made))
        if held is not None and held != made:
            self._path(held).unlink(missing_ok=True)
        return made

    def _stretches(self, leg: Leg, held: Held | None) -> Iterator[Vector]:
        pieces = self._pieces(leg)
        if not leg.base_digest:
            return in_full(pieces, self._layout.size)
        if held is None or held.digest != leg.base_digest:
            raise WireError(f"The model that version {leg.version} leads on from is not here.")
        return led_on(leg.codec, pieces, self._map(held), self.form)

    def _pieces(self, leg: Leg) -> Iterator[bytes]:
        offsets = self.parts(leg)
        for part in range(leg.parts):
            if part not in offsets:
                raise WireError(f"Part {part} of version {leg.version} is not here any more.")
            yield (self._folder / leg.name / f"{part}-{offsets[part]}").read_bytes()

    def _map(self, held: Held) -> Vector:
        try:
            layout, vector = map_model(self._path(held))
        except (UsageError, StorageError) as error:
            self._throw_away(None, held)
            raise WireError(f"The model that was kept here cannot be read; it is fetched again. {error}") from error
        if layout != self._layout:
            self._throw_away(None, held)
            raise WireError("The model that was kept here is of another layout; it is fetched again.")
        return vector

    def _path(self, held: Held) -> Path:
        return self._folder / f"{held.version}-{held.digest.hex()}.safetensors"

    def _throw_away(self, leg: Leg | None, held: Held | None) -> None:
        """Whichever of them is damaged, the next attempt begins with a keyframe."""
        if held is not None:
            with suppress(OSError):
                self._path(held).unlink(missing_ok=True)
        if leg is not None:
            shutil.rmtree(self._folder / leg.name, ignore_errors=True)

    def _clean(self, held: Held) -> None:
        """Remove all but what is held."""
        for path in self._folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self._path(held):
                with suppress(OSError):
                    path.unlink()


class ModelMemory:
    """Models in memory, for a site without a folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: tuple[Held, Vector] | None = None
        self._parts: dict[str, dict[int, tuple[int, bytes]]] = {}

    @property
    def form(self) -> Form:
        """See Models."""
        return self._layout.form

    def held(self) -> Held | None:
        """See Models."""
        return None if self._held is None else self._held[0]

    def parts(self, leg: Leg) -> dict[int, int]:
        """See Models."""
        return {part: offset for part, (offset, _) in self._parts.get(leg.name, {}).items()}

    def keep(self, leg: Leg, part: int, offset: int, body: bytes) -> None:
        """See Models."""
        self._parts.setdefault(leg.name, {})[part] = (offset, body)

    def make(self, legs: Sequence[Leg]) -> Vector:
        """See Models."""
        for leg in legs:
            kept = self._parts.get(leg.name, {})
            pieces = [kept[part][1] for part in range(leg.parts)]
            seen = _Digested(self._layout.digest)
            whole = not leg.base_digest
            size, codec = self._layout.size, leg.codec
            stretches = in_full(pieces, size) if whole else led_on(codec, pieces, self._base(leg), self.form)
            try:
                vector = np.concatenate(list(seen.through(stretches)))
                seen.require(leg)
            except WireError:
                self._parts.clear()
                raise
            self._held = Held(leg.version, leg.digest), vector
        if self._held is None:
            raise WireError("There is no model here; fetch it again.")
        self._parts.clear()
        return self._held[1].copy()

    def _base(self, leg: Leg) -> Vector:
        if self._held is None or self._held[0].digest != leg.base_digest:
            raise WireError(f"The model that version {leg.version} leads on from is not here.")
        return self._held[1]


class _Digested:
    """A model's digest, taken while its stretches go by."""

    def __init__(self, layout_digest: bytes) -> None:
        self._state = hashlib.sha256(layout_digest)

    def through(self, stretches: Iterable[Vector]) -> Iterator[Vector]:
        """The stretches as they come."""
        for stretch in stretches:
            self._state.update(np.ascontiguousarray(stretch, dtype="<f4").data)
            yield stretch

    def require(self, leg: Leg) -> None:
        """WireError unless all that has gone by is the model that the leg leads to."""
        if self._state.digest() != leg.digest:
            raise WireError(f"The model of version {leg.version} is not the announced one.")


def _version_of(path: Path) -> int:
    return int(path.stem.partition("-")[0])
