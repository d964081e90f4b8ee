"""A site's settings, and the folder they live in.

FOLDER/site.toml    settings, for people
FOLDER/site.key     the site's private key (mode 0600); it never leaves this folder
FOLDER/broker.url   address and password of the broker (mode 0600), or FEDQUEUE_BROKER_URL
FOLDER/outbox.db    everything this site computed, and what became of it (SQLite)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from broker.codecs import codec_named
from broker.settings import load_settings
from broker.topology import checked_name

Positive = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]


class Bounds(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What this hospital lets an announcement ask for; a plan beyond it is not run."""

    max_steps: AtLeastOne = 100_000
    max_batch_size: AtLeastOne = 65_536
    max_learning_rate: Positive = 10.0


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """site.toml.

    `options` are given to the task's function; `codec` "" means what the aggregator asks for; `step_delay_s` makes a
    site slow on purpose; `probe_s` is how long a published update may go unanswered before the worker asks.
    """

    site: str
    task: str
    federation: str = ""
    aggregator_key: str = ""
    codec: str = ""
    seed: int = 0
    threads: AtLeastOne = 1
    step_delay_s: Annotated[float, Meta(ge=0)] = 0.0
    probe_s: Positive = 30.0
    bounds: Bounds = Bounds()
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        checked_name(self.site, "Site")
        if self.federation:
            checked_name(self.federation, "Federation")
        if self.codec:
            codec_named(self.codec)


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

    def settings(self) -> Settings:
        """The settings, validated."""
        return load_settings(self.settings_file, Settings)
