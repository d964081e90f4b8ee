"""The two small files that a hospital and the coordinator send each other, as TOML that people can read.

A request goes to the coordinator, by mail: who wants to join, with which key, and which model its task has. Nothing in
it is secret; that the key is the hospital's own is confirmed by telephone. A join file comes back. It may hold a
password, and the aggregator's key in it is what the site will trust.
"""

from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
from msgspec import Meta

from broker.errors import UsageError
from broker.identity import PublicKey
from broker.settings import load_settings, to_toml
from broker.topology import checked_name

INITIAL_MODEL: Final = "initial.safetensors"  # version 0, which travels with a request
LayoutDigest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a hospital asks with. Without a model `task` and `layout_digest` (hexadecimal) are "", `parameters` is 0."""

    site: str
    public_key: str
    task: Annotated[str, Meta(max_length=64)] = ""
    layout_digest: LayoutDigest = ""
    parameters: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        checked_name(self.site, "Site")
        PublicKey.from_text(self.public_key)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The request in a file; UsageError says what is wrong with it."""
        if not path.exists():
            raise UsageError(f"There is no request file {path}; the hospital makes it with 'fedqueue site init'.")
        return load_settings(path, cls, environ={})

    @property
    def key(self) -> PublicKey:
        """The site's key."""
        return PublicKey.from_text(self.public_key)

    def to_toml(self) -> str:
        """The file's text; it begins with the fingerprint, for the telephone."""
        head = f"# A request to join a federation. Fingerprint to compare by telephone: {self.key.fingerprint}\n"
        return head + to_toml(msgspec.structs.asdict(self))


class Joined(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a hospital needs from the coordinator; `broker_url` "" if it gets that elsewhere.

    `layout_digest` (hexadecimal) is of the federation's model; "" in older files.
    """

    federation: str
    site: str
    task: str
    aggregator_key: str
    broker_url: str = ""
    layout_digest: LayoutDigest = ""

    def __post_init__(self) -> None:
        checked_name(self.federation, "Federation")
        PublicKey.from_text(self.aggregator_key)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The join file; UsageError says what is wrong with it."""
        if not path.exists():
            raise UsageError(f"There is no join file {path}; the coordinator makes it with 'aggregator add-site'.")
        return load_settings(path, cls, environ={})

    def to_toml(self) -> str:
        """The file's text. It holds a password if there is a `broker_url`: hand it over accordingly."""
        return to_toml(msgspec.structs.asdict(self))
