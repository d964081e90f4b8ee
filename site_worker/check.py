"""`fedqueue site check`: everything that must hold at a hospital before its worker can run, one check at a time.

Nothing is changed: no update, no sequence number, no hello, nothing acknowledged. One round is done as the worker does
it and thrown away. Of the broker only such things are asked as move no message (broker/probes.py); the announcement
that waits is looked at and put back.

The clock is held against that announcement, which was issued before now: a clock that is behind shows, one that is
ahead does not. There is no other time that a site's account may read. A check that needs a failed one is left out.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import torch

from broker.checks import Check
from broker.errors import FedqueueError, StorageError, UsageError, WireError
from broker.identity import PrivateKey, PublicKey
from broker.letters import Joined
from broker.messages import AGGREGATOR, EVERYONE, Announcement, Peer
from broker.probes import SiteProbe
from broker.serving import address_at, read_url
from broker.topology import SiteNames
from broker.weights import Layout
from site_worker.model import initial_weights
from site_worker.settings import Folder, Settings
from site_worker.tasks.task import Task, load_task
from site_worker.trial import BATCH, Trial, rounds_of, try_round
from site_worker.worker import described

CLOCK_OFF_S: Final = 300.0
MODELS_OF_ROOM: Final = 20
T = TypeVar("T")
Found = tuple[str, Mapping[str, float]]


class _LeftOutError(FedqueueError):
    """What a check needs was not found; that has been said already."""


class SiteCheck:
    """The checks of one site's folder, in order. Each keeps what it found for those after it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._settings: Settings | None = None
        self._joined: Joined | None = None
        self._task: Task | None = None
        self._layout: Layout | None = None
        self._trial: Trial | None = None
        self._probe: SiteProbe | None = None

    def run(self) -> Iterator[Check]:
        """Each check as soon as it is done."""
        yield from self._all(
            settings=self._read_settings,
            key=self._read_key,
            federation=self._read_federation,
            task=self._load_task,
            data=self._count_rows,
            training=self._train,
            layout=self._compare_layout,
            broker=self._log_in,
        )
        if self._probe is not None:
            try:
                yield from self._at_the_broker(self._probe)
            finally:
                self._probe.close()
        yield from self._all(disk=self._measure_room, update=self._measure_update)

    def _all(self, **steps: Callable[[], Found]) -> Iterator[Check]:
        for name, step in steps.items():
            try:
                detail, figures = step()
            except _LeftOutError:
                continue
            except FedqueueError as error:
                yield Check(name, False, str(error))
            else:
                yield Check(name, True, detail, figures)

    # ---- at the hospital

    def _read_settings(self) -> Found:
        self._settings = settings = self._folder.settings()
        torch.set_num_threads(settings.threads)
        return f"site {settings.site}, task {settings.task}", {}

    def _read_key(self) -> Found:
        return f"fingerprint {PrivateKey.load(self._folder.key_file).public.fingerprint}, for its owner alone", {}

    def _read_federation(self) -> Found:
        if not self._folder.join_file.exists():
            return "not joined yet, so broker, rights and clock are not checked", {}
        self._joined = joined = self._folder.joined()
        return f"{joined.federation}, which runs task {joined.task!r}", {}

    def _load_task(self) -> Found:
        settings = _needed(self._settings)
        task = described(lambda: load_task(settings.task, settings.options, base=self._folder.path))
        if self._joined is not None and task.name != self._joined.task:
            raise UsageError(
                f"{self._folder.settings_file} makes task {task.name!r}, the federation runs {self._joined.task!r}."
            )
        self._task = task
        return f"{settings.task} makes task {task.name!r}", {}

    def _count_rows(self) -> Found:
        greeting = described(lambda: rounds_of(_needed(self._settings), _needed(self._task)).greeting())
        features = len(greeting.statistics[0]) if greeting.statistics else 0
        told = f", statistics of {features} features" if features else ""
        return f"{greeting.examples} rows to train on{told}", {"rows": greeting.examples}

    def _train(self) -> Found:
        self._trial = trial = try_round(_needed(self._settings), _needed(self._task))
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in trial.metrics.items())
        speed = f"a step takes {1000 * trial.step_s:.3g} ms, {60 / max(trial.step_s, 1e-9):.0f} steps a minute"
        figures = {
            "step_s": trial.step_s,
            "held_out": trial.held_out,
            **{f"metric {name}": value for name, value in trial.metrics.items()},
        }
        said = f"a new model has {metrics} on {trial.held_out} held-out rows"
        return f"the loss stays finite, {speed} (batches of {BATCH}); {said}", figures

    def _compare_layout(self) -> Found:
        task = _needed(self._task)
        self._layout = layout = Layout.of(described(lambda: initial_weights(task)))
        said = f"{layout.size} parameters in {len(layout.tensors)} tensors"
        wanted = self._joined.layout_digest if self._joined is not None else ""
        if wanted and wanted != layout.digest.hex():
            raise UsageError(f"The task's model ({said}) is not the federation's: compare the versions of the task.")
        told = "as the federation's" if wanted else "not compared: no join file names the federation's"
        return f"{said}, {told}", {"parameters": layout.size}

    # ---- at the broker

    def _log_in(self) -> Found:
        joined, settings = _needed(self._joined), _needed(self._settings)
        address = address_at(read_url(self._folder.url_file), settings.tls)
        self._probe = SiteProbe(address, SiteNames(joined.federation, settings.site))
        return f"{address} takes the login of {address.user!r}", {}

    def _at_the_broker(self, probe: SiteProbe) -> Iterator[Check]:
        passed = True
        try:
            for check in probe.rights():
                passed = passed and check.passed
                yield check
        except FedqueueError as error:
            passed = False
            yield Check("rights", False, str(error))
        if passed:
            yield from self._all(clock=lambda: self._compare_clock(probe))

    def _compare_clock(self, probe: SiteProbe) -> Found:
        joined, now = _needed(self._joined), time.time()
        here = datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC here")
        body = probe.newest_announcement()
        if body is None:
            return f"{here}; no announcement waits to compare it with", {}
        try:
            peer = Peer(joined.federation, AGGREGATOR, PublicKey.from_text(joined.aggregator_key))
            message, _ = peer.open(body, recipients=frozenset({joined.site, EVERYONE}))
        except WireError as error:
            raise UsageError(f"The announcement that waits cannot be used, ask for a new join file: {error}") from error
        if not isinstance(message, Announcement):
            raise UsageError("What waits in the queue of announcements is none; ask the coordinator.")
        behind_s = message.issued_at - now
        if behind_s > CLOCK_OFF_S:
            raise UsageError(f"{here}, {behind_s / 60:.0f} minutes behind the aggregator's clock: set this one by NTP.")
        said = f"{here}, not behind the announcement of version {message.version} (one that is ahead does not show)"
        return said, {"behind_s": max(behind_s, 0.0)}

    # ---- room and sizes

    def _measure_room(self) -> Found:
        _needed(self._settings)
        try:
            free = shutil.disk_usage(self._folder.path).free
            outbox = sum(file.stat().st_size for file in self._folder.path.glob(f"{self._folder.outbox_file.name}*"))
        except OSError as error:
            raise StorageError(f"The disk of {self._folder.path} cannot be measured: {error.strerror}.") from error
        needed = outbox + MODELS_OF_ROOM * 4 * (self._layout.size if self._layout is not None else 0)
        said = f"{_bytes(free)} free; {MODELS_OF_ROOM} models and the outbox once more take {_bytes(needed)}"
        if free < needed:
            raise UsageError(f"The disk is short: {said}; make room or move {self._folder.path} to a larger disk.")
        return said, {"free_bytes": free, "needed_bytes": needed}

    def _measure_update(self) -> Found:
        trial = _needed(self._trial)
        model_bytes, sizes = 4 * trial.parameters, trial.update_bytes
        shown = ", ".join(f"{_bytes(size)} with {name}" for name, size in sizes.items())
        figures = {"model_bytes": model_bytes, **{f"{name}_bytes": size for name, size in sizes.items()}}
        return f"{shown}; the model has {_bytes(model_bytes)}", figures


def _needed(value: T | None) -> T:
    if value is None:
        raise _LeftOutError
    return value


def _bytes(count: float) -> str:
    """1234567 as "1.23 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
