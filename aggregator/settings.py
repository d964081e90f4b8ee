"""The aggregator's settings, and the folder they live in.

FOLDER/aggregator.toml   settings, for people
FOLDER/aggregator.key    the aggregator's private key (mode 0600)
FOLDER/broker.url        address and password of the broker (mode 0600), or FEDQUEUE_BROKER_URL
FOLDER/SITE.join.toml    what each hospital is given; may hold its password (mode 0600)
FOLDER/journal.db        sites, accepted updates, versions, refusals (SQLite)
FOLDER/models/           snapshots by digest, and what a strategy keeps with them (safetensors)
FOLDER/published/        what sites hold, where that differs, and what is on its way to them: aggregator/downlink.py
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from aggregator.optimizers import ServerOptimizer, optimizer_named
from aggregator.shares import Share, share_named
from aggregator.staleness import Discount, discount_named
from aggregator.strategies import Strategy, Worth, strategy_named
from broker.codecs import AUTO, Form, require_choice
from broker.errors import UsageError
from broker.measures import Metrics
from broker.messages import MAX_DIFFERENCES
from broker.plan import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from broker.serving import Tls
from broker.settings import load_settings
from broker.topology import checked_name

Seconds = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
_DISCOUNTING: Final = ("fedbuff", "fedasync", "fedasync-mixing")  # as their papers do
_ALWAYS: Final = ("steps", "batch_size", "learning_rate", "optimizer", "momentum", "weight_decay")


class Plan(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What sites are asked to do in a round; each site holds it against its own bounds.

    `patience` ends a round early at a site whose validation loss no longer falls, 0 never. `proximal` is mu of FedProx.
    `equal_time` gives slow sites fewer steps (aggregator/budgets.py); the aggregator keeps it to itself.
    """

    steps: AtLeastOne = 50
    batch_size: AtLeastOne = 32
    learning_rate: Annotated[float, Meta(gt=0)] = 0.1
    optimizer: Optimizer = "sgd"
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    schedule: Schedule = "constant"
    warmup_steps: Annotated[int, Meta(ge=0)] = 0
    clip_norm: Annotated[float, Meta(ge=0)] = 0.0
    patience: Annotated[int, Meta(ge=0)] = 0
    proximal: Annotated[float, Meta(ge=0)] = 0.0
    equal_time: bool = False

    def __post_init__(self) -> None:
        if self.warmup_steps >= self.steps:
            raise UsageError(f"The plan's warmup_steps is {self.warmup_steps} of {self.steps} steps; choose fewer.")

    def to_wire(self) -> list[tuple[str, float]]:
        """Names and numbers, as an announcement carries them.

        What came after the first release travels only where it is not as before, so that its sites take the plan.
        """
        words = {"optimizer": OPTIMIZERS.index(self.optimizer), "schedule": SCHEDULES.index(self.schedule)}
        fields = msgspec.structs.asdict(self) | words
        del fields["equal_time"]
        return [(name, float(value)) for name, value in fields.items() if value or name in _ALWAYS]

    def shortened(self, steps: int) -> "Plan":
        """The same for `steps`, at most its own; the warm-up keeps its share of them, rounded down."""
        return msgspec.structs.replace(self, steps=steps, warmup_steps=self.warmup_steps * steps // self.steps)


class Aggregation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How updates become versions, and when; docs/algorithms.md has the formulas.

    `buffer_size` is in sites, 0 a fifth of the enrolled ones and at least two. `quorum` is fedavg's: a round ends with
    so many sites, 0 with all. `deadline_s` after a version the next is made of what there is. `max_wait_s` after the
    first update it is made in any case, so that nobody waits for ever. Without `server_rate` or `staleness` the
    strategy's own holds.
    """

    strategy: str = "patient"
    buffer_size: Annotated[int, Meta(ge=0)] = 0
    quorum: Annotated[int, Meta(ge=0)] = 0
    deadline_s: Seconds | None = None
    server_rate: Annotated[float, Meta(gt=0)] | None = None
    weighting: str = "examples"
    max_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    one_place: bool = True
    staleness: str | None = None
    power: Annotated[float, Meta(ge=0)] = 0.5
    slope: Annotated[float, Meta(gt=0)] = 10.0
    grace: Annotated[int, Meta(ge=0)] = 4
    normalised: bool = False
    max_staleness: Annotated[int, Meta(ge=0)] | None = None
    server_optimizer: str = "none"
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    epsilon: Annotated[float, Meta(gt=0)] = 1e-3
    max_wait_s: Seconds = 3600.0

    def discount(self) -> Discount:
        """The staleness rule with the options that it knows."""
        options: dict[str, dict[str, float]] = {
            "polynomial": {"power": self.power},
            "hinge": {"slope": self.slope, "grace": self.grace},
        }
        name = self.staleness or ("polynomial" if self.strategy in _DISCOUNTING else "constant")
        return discount_named(name, **options.get(name, {}))

    def share(self) -> Share:
        """What a site counts for."""
        return share_named(self.weighting, **({"max_share": self.max_share} if self.weighting == "capped" else {}))

    def stepping(self) -> ServerOptimizer:
        """What a direction goes through, with the options that it knows."""
        moments = {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}
        options = {"none": {}, "momentum": {"beta1": self.beta1}}
        return optimizer_named(self.server_optimizer, **options.get(self.server_optimizer, moments))

    def build(self) -> Strategy:
        """The strategy with all that goes with it; UsageError names what does not exist, or does nothing here."""
        direct, discount = strategy_named(self.strategy), self.discount()
        self._refuse_what_does_nothing()
        single = self.strategy.startswith("fedasync")
        share = share_named("equal") if single else self.share()
        default_rate = 0.6 if single else 1.0
        return Strategy(
            direct,
            Worth(discount, share, normalised=self.normalised, one_place=self.one_place),
            server_rate=default_rate if self.server_rate is None else self.server_rate,
            buffer_size=1 if single else self.buffer_size,
            rounds=self.strategy == "fedavg",
            quorum=self.quorum,
            bases=self.strategy == "fedasync-mixing",
            remembers=self._remembers,
            optimizer=self.stepping(),
        )

    @property
    def _remembers(self) -> bool:
        return self.strategy in ("ca2fl", "calibrated", "patient")

    def _refuse_what_does_nothing(self) -> None:
        if self._remembers and (self.staleness not in (None, "constant") or self.normalised):
            raise UsageError(f"Strategy {self.strategy!r} takes no staleness rule and no normalising; leave them out.")
        if self.quorum and self.strategy != "fedavg":
            raise UsageError(f"A quorum is of 'fedavg'; strategy {self.strategy!r} has buffer_size.")


class Start(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """When version 0 goes out: `min_sites` have said hello, or `start_after_s` has passed since the first hello."""

    min_sites: AtLeastOne = 1
    start_after_s: Seconds = 600.0


class Storage(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What may stay on the aggregator's disk: `journal_gb` of updates' payloads, 0 without a limit."""

    journal_gb: Annotated[float, Meta(ge=0)] = 50.0


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What an update may be: beyond it, it is refused with a reason."""

    max_norm: Seconds = 1e4
    max_examples: AtLeastOne = 10_000_000


WHOLE_BYTES: Final = 1 << 20


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """aggregator.toml. `versions` 0 means until stopped; `codec` is what sites are asked to compress with.

    `model_codec` is for the differences between models that go to the sites; "auto" sends small models whole.
    Every `keyframe_every` versions, and when a site asks, a model goes out in full. A snapshot of the newest version is
    written `snapshot_every_s` after the last, 0 of every version: after a crash what came since is folded again.
    The broker is asked who is there every `presence_s`, its console every `console_s`.
    """

    federation: str
    task: str
    codec: str = AUTO
    model_codec: str = AUTO
    keyframe_every: Annotated[int, Meta(ge=1, le=MAX_DIFFERENCES)] = 20
    versions: Annotated[int, Meta(ge=0)] = 0
    presence_s: Seconds = 5.0
    console_s: Seconds = 15.0
    snapshot_every_s: Annotated[float, Meta(ge=0)] = 10.0
    plan: Plan = Plan()
    aggregation: Aggregation = Aggregation()
    start: Start = Start()
    limits: Limits = Limits()
    storage: Storage = Storage()
    metrics: Metrics = Metrics()
    tls: Tls = Tls()

    def __post_init__(self) -> None:
        checked_name(self.federation, "Federation")
        require_choice(self.codec)
        require_choice(self.model_codec)
        self.aggregation.build()

    def codec_of_models(self, form: Form) -> str:
        """What differences between models are compressed with; a lossless codec means that models go out whole.

        Differences bear a low rank, which what sites send mostly has already; see docs/algorithms.md for figures.
        """
        if self.model_codec != AUTO:
            return self.model_codec
        if 4 * form.size <= WHOLE_BYTES:
            return "float32"
        return "lowrank-100" if any(len(shape) > 1 for shape in form.shapes) else "int8-coarse"


@dataclass(frozen=True)
class Folder:
    """Where an aggregator keeps everything."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """aggregator.toml."""
        return self.path / "aggregator.toml"

    @property
    def key_file(self) -> Path:
        """The private key."""
        return self.path / "aggregator.key"

    @property
    def url_file(self) -> Path:
        """The broker's address with its password."""
        return self.path / "broker.url"

    @property
    def console_file(self) -> Path:
        """The address of the broker's management API with an account and its password; need not be there."""
        return self.path / "console.url"

    @property
    def journal_file(self) -> Path:
        """The journal."""
        return self.path / "journal.db"

    def join_file(self, site: str) -> Path:
        """What a hospital is given to join; may hold its password."""
        return self.path / f"{site}.join.toml"

    @property
    def models(self) -> Path:
        """Snapshots."""
        return self.path / "models"

    def snapshot(self, digest: bytes) -> Path:
        """The snapshot of the model with this digest."""
        return self.models / f"{digest.hex()}.safetensors"

    def state(self, digest: bytes) -> Path:
        """What a strategy keeps besides the model, by its digest."""
        return self.models / f"state-{digest.hex()}.safetensors"

    @property
    def publishing(self) -> Path:
        """What sites hold, and what is on its way to them."""
        return self.path / "published"

    def published(self, version: int) -> Path:
        """What sites hold of a version, where that is not the aggregator's own model."""
        return self.publishing / f"{version}.safetensors"

    def published_files(self) -> list[tuple[int, Path]]:
        """All of these, with their versions."""
        return [(int(path.stem), path) for path in self.publishing.glob("[0-9]*.safetensors")]

    def payload(self, version: int, base: int) -> Path:
        """What is being published of a version: see aggregator/publications.py."""
        return self.publishing / f"{version}{f'-{base}' if base >= 0 else ''}.payload"

    def settings(self) -> Settings:
        """The settings, validated."""
        return load_settings(self.settings_file, Settings)
