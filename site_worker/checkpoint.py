"""The unfinished round of a site, so that a machine that is switched off every morning finishes it all the same.

FOLDER/round/announcement.json    what was asked for
FOLDER/round/base.safetensors     the model trained from, written once; FedProx pulls towards it
FOLDER/round/state.safetensors    everything the rest of the round depends on, replaced every `checkpoint_s`

Each file is there whole or not at all, and the state names the announcement it belongs to, so a kill at any moment
leaves the round as it was last kept, or nothing of it. Each has a digest, so damage is noticed, whatever it is. What
cannot be used is moved to FOLDER/round.aside, in place of what lay there; the round begins anew then.

One thread at a time. Of the site's rows there is nothing in these files but what training has made of them: weights.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from broker.errors import FedqueueError, StorageError
from broker.events import event
from broker.files import written_whole
from broker.messages import Announcement
from broker.tensorfile import write_tensors
from broker.weights import Layout, map_model, model_digest, save_model
from site_worker.descent import Progress, State
from site_worker.tensors import bytes_of, entries

log = logging.getLogger(__name__)

FORMAT: Final = 1
Vector = NDArray[np.float32]


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An announcement with its digest: damage must not turn it into another one that one would train by."""

    announcement: Announcement
    digest: str

    @classmethod
    def of(cls, announcement: Announcement) -> "Asked":
        """With the digest that is right."""
        return cls(announcement, hashlib.sha256(msgspec.json.encode(announcement)).hexdigest())


class Facts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is kept of a round beside tensors: `spent_s` is the time that it has taken so far.

    `metrics` and `held_out` were measured before its first step; `seed` and `precision` are the site's settings.
    """

    seed: int
    precision: str
    metrics: list[tuple[str, float]]
    held_out: int
    spent_s: float = 0.0
    progress: Progress = msgspec.field(default_factory=Progress)
    announcement: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Kept:
    """A round as it was kept; without `facts` and `state` only what it began from is whole."""

    announcement: Announcement
    base: Vector
    facts: Facts | None = None
    state: State | None = None


class KeptRound:
    """See the module's docstring. `layout` is that of this site's model."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._announcement = folder / "announcement.json"
        self._base = folder / "base.safetensors"
        self._state = folder / "state.safetensors"
        self._written = ""  # digest of the announcement that the folder now holds with its base

    def announcement(self) -> Announcement | None:
        """What the kept round was asked for, None if there is none or it cannot be used."""
        if not all(file.is_file() for file in (self._announcement, self._base, self._state)):
            return None
        try:
            sealed = msgspec.json.decode(self._announcement.read_bytes(), type=Asked)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self.put_aside(f"its announcement cannot be read: {error}")
            return None
        if sealed != Asked.of(sealed.announcement):
            self.put_aside("its announcement is not what was written")
            return None
        return sealed.announcement

    def read(self) -> Kept | None:
        """The kept round, None if there is none or what it began from cannot be used."""
        announcement = self.announcement()
        if announcement is None:
            return None
        try:
            layout, base = map_model(self._base)
        except FedqueueError as error:
            self.put_aside(str(error))
            return None
        if layout != self._layout or model_digest(layout.digest, base) != announcement.model_digest:
            self.put_aside("the model in it is not the one that was announced")
            return None
        return self._with_state(announcement, base)

    def _with_state(self, announcement: Announcement, base: Vector) -> Kept:
        digest = Asked.of(announcement).digest
        try:
            facts, state = _read_state(self._state)
        except StorageError as error:
            self.put_aside(str(error))
            return Kept(announcement, base)
        if facts.announcement != digest or facts.format != FORMAT:
            self.put_aside("its state belongs to another announcement")
            return Kept(announcement, base)
        self._written = digest
        return Kept(announcement, base, facts, state)

    def write(self, announcement: Announcement, base: Vector, facts: Facts, state: State) -> None:
        """Keep the state of a round, and at first what it began from; StorageError if the disk will not have it."""
        asked = Asked.of(announcement)
        if self._written != asked.digest:
            self.forget()
            _write_bytes(self._announcement, msgspec.json.encode(asked))
            self._write_base(base)
            self._written = asked.digest
        named = msgspec.structs.replace(facts, announcement=asked.digest, progress=state.progress)
        _write_state(self._state, named, state)

    def _write_base(self, base: Vector) -> None:
        """As another name of the model's file if it lies in one, else as a copy."""
        source = _file_of(base, self._layout)
        try:
            if source is not None:
                with written_whole(self._base) as temporary:
                    temporary.hardlink_to(source)
                return
        except OSError as error:
            event(log, "model-copied", folder=str(self._folder), reason=str(error))
        save_model(self._base, self._layout, base)

    def put_aside(self, why: str) -> None:
        """Move the folder out of the way, in place of what was put aside before."""
        if not self._folder.is_dir():
            return
        aside, self._written = self._folder.with_name(f"{self._folder.name}.aside"), ""
        event(log, "round-aside", folder=str(aside), reason=why)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            self._folder.replace(aside)
        except OSError as error:
            event(log, "round-stays", folder=str(self._folder), reason=str(error))

    def forget(self) -> None:
        """Remove the kept round: its update is stored, or another round begins. Removing nothing is no error."""
        self._written = ""
        try:
            self._state.unlink(missing_ok=True)  # first: without it there is no round, whatever else is left
        except OSError as error:
            event(log, "round-stays", folder=str(self._folder), reason=str(error))
        shutil.rmtree(self._folder, ignore_errors=True)


class RoundKeeper:
    """Keeps one round every `every_s` while it trains. A full disk is logged once and holds nothing up."""

    def __init__(self, write: Callable[[State], None], *, every_s: float) -> None:
        self._write, self._every_s = write, every_s
        self._last = time.monotonic()
        self._complained = False

    def due(self) -> bool:
        """Whether `every_s` has passed since the last time."""
        return time.monotonic() - self._last >= self._every_s

    def keep(self, state: State) -> None:
        """Keep it now."""
        self._last = time.monotonic()
        try:
            self._write(state)
        except StorageError as error:
            if not self._complained:
                event(log, "round-unkept", reason=str(error))
            self._complained = True


def _write_bytes(path: Path, data: bytes) -> None:
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error


def _file_of(base: Vector, layout: Layout) -> Path | None:
    """The model file of this layout in which `base` is the vector, None if it lies in no such file."""
    if not isinstance(base, np.memmap) or base.filename is None:
        return None
    path = Path(base.filename)
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    found, vector = map_model(path)
    whole = found == layout and isinstance(vector, np.memmap) and vector.offset == base.offset
    return path if whole else None


def _write_state(path: Path, facts: Facts, state: State) -> None:
    text = msgspec.json.encode(facts).decode()
    metadata = {"facts": text, "digest": _digest(text, state.tensors)}
    write_tensors(path, entries(state.tensors), metadata)


def _read_state(path: Path) -> tuple[Facts, State]:
    """Facts and state, which lies in the file; StorageError if one bit of it is not as it was written."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        text = metadata.get("facts", "")
        if metadata.get("digest") != _digest(text, tensors):
            raise StorageError(f"{path} is not what was written.")
        facts = msgspec.json.decode(text, type=Facts)
    except (OSError, SafetensorError, msgspec.DecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error
    return facts, State(facts.progress, tensors)


def _digest(text: str, tensors: dict[str, torch.Tensor]) -> str:
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        one = tensors[name]
        state.update(f"{name} {one.dtype} {tuple(one.shape)} ".encode())
        state.update(bytes_of(one))
    return state.hexdigest()
