"""A site's settings, and the folder they live in.

FOLDER/site.toml    settings, for people
FOLDER/site.key     the site's private key (mode 0600); it never leaves this folder
FOLDER/SITE.request.toml, FOLDER/initial.safetensors    what the coordinator is sent
FOLDER/join.toml    the federation, from the coordinator
FOLDER/broker.url   address and password of the broker (mode 0600), or FEDQUEUE_BROKER_URL
FOLDER/outbox.db    everything this site computed, and what became of it (SQLite)
FOLDER/model/       the model that it holds, and parts of the next: see site_worker/models.py
FOLDER/round/       the round that is half trained, if there is one: see site_worker/checkpoint.py
FOLDER/paused       is there while the worker shall not train
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from broker.codecs import require_choice
from broker.errors import UsageError
from broker.letters import INITIAL_MODEL, Joined
from broker.measures import Metrics
from broker.serving import Tls
from broker.settings import load_settings
from broker.topology import checked_name
from site_worker.availability import Window

Positive = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
DEVICES: Final = r"auto|cpu|cuda(:[0-9]{1,3})?"
PRECISIONS: Final = ("float32", "bf16", "fp16")


class Bounds(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What this hospital lets an announcement ask for; a plan beyond it is not run."""

    max_steps: AtLeastOne = 100_000
    max_batch_size: AtLeastOne = 65_536
    max_learning_rate: Positive = 10.0


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """site.toml.

    `options` are given to the task's function; `codec` "" means what the aggregator asks for; `step_delay_s` makes a
    site slow on purpose; `probe_s` is how long a published update may go unanswered before the worker asks;
    `checkpoint_s` is how often a round is kept while it trains. Training goes on within `windows` (any time if there
    are none) until `max_updates_per_day` are made (0: no limit).
    """

    site: str
    task: str
    codec: str = ""
    seed: Annotated[int, Meta(ge=0)] = 0
    threads: AtLeastOne = 1
    device: str = "auto"
    precision: str = "float32"
    checkpoint_s: Positive = 60.0
    step_delay_s: Annotated[float, Meta(ge=0)] = 0.0
    probe_s: Positive = 30.0
    windows: tuple[str, ...] = ()
    max_updates_per_day: Annotated[int, Meta(ge=0)] = 0
    bounds: Bounds = Bounds()
    metrics: Metrics = Metrics()
    tls: Tls = Tls()
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        checked_name(self.site, "Site")
        for window in self.windows:
            Window.parse(window)
        if self.codec:
            require_choice(self.codec)
        if not re.fullmatch(DEVICES, self.device):
            raise UsageError(f"Device {self.device!r} is not known; choose auto, cpu, cuda or cuda:N.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"Precision {self.precision!r} is not known; choose one of {', '.join(PRECISIONS)}.")


@dataclass(frozen=True)
class Folder:
    """Where a site keeps everything."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """site.toml."""
        return self.path / "site.toml"

    @property
    def key_file(self) -> Path:
        """The private key."""
        return self.path / "site.key"

    @property
    def url_file(self) -> Path:
        """The broker's address with its password."""
        return self.path / "broker.url"

    @property
    def outbox_file(self) -> Path:
        """The outbox."""
        return self.path / "outbox.db"

    @property
    def model_folder(self) -> Path:
        """The model that the site holds."""
        return self.path / "model"

    @property
    def round_folder(self) -> Path:
        """The round that is half trained."""
        return self.path / "round"

    @property
    def join_file(self) -> Path:
        """join.toml."""
        return self.path / "join.toml"

    @property
    def pause_file(self) -> Path:
        """A mark: the worker shall not train."""
        return self.path / "paused"

    @property
    def model_file(self) -> Path:
        """Version 0 as this site's task makes it."""
        return self.path / INITIAL_MODEL

    def request_file(self, site: str) -> Path:
        """What the coordinator is sent."""
        return self.path / f"{site}.request.toml"

    def joined(self) -> Joined:
        """The federation; UsageError if the site has not joined one yet."""
        if not self.join_file.is_file():
            raise UsageError(f"{self.path} has joined no federation yet; run: fedqueue site join {self.path} JOIN_FILE")
        return Joined.read(self.join_file)

    def settings(self) -> Settings:
        """The settings, validated."""
        return load_settings(self.settings_file, Settings)
