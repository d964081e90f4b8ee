"""Setting up: a federation's folder, its queues and account on the broker, and one more hospital at a time.

With a private node (or any broker whose management API one may use) every site gets an account of its own that can
write only its own routing keys and read only its own queues. Without it, the operator of the broker makes accounts and
the coordinator names them here.
"""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from aggregator.journal import Journal
from aggregator.opening import initialise, rule_text
from aggregator.settings import Folder, Settings
from broker.accounts import Management
from broker.errors import UsageError
from broker.identity import PrivateKey, PublicKey
from broker.node import Node
from broker.serving import URL_VARIABLE, declare_topology
from broker.settings import read_secret, write_secret
from broker.topology import (
    Rights,
    SiteNames,
    aggregator_rights,
    checked_name,
    federation_topology,
    site_rights,
    stream_bytes,
)
from broker.weights import Layout, load_model

AGGREGATOR_TOML = """\
# The aggregator of federation {federation}. Times are in seconds. Any value can be overridden by the environment,
# for example FEDQUEUE_AGGREGATION__BUFFER_SIZE=4.
federation = "{federation}"
task = "{task}"              # the name all sites' tasks must have
codec = "int8"               # what sites compress with: float32 or int8
versions = 0                 # stop asking for training after so many versions; 0: until stopped

[plan]                       # what a site does in one round
steps = 50
batch_size = 32
learning_rate = 0.1
# optimizer = "sgd"          # sgd, adam or adamw; momentum = 0.0 (of sgd), weight_decay = 0.0
# schedule = "constant"      # constant, cosine or linear, within the round; warmup_steps = 0
# clip_norm = 0.0            # of a step's gradient; 0: none
# patience = 0               # end a round after so many checks without a better validation loss; 0: never

[aggregation]
strategy = "fedbuff"         # fedbuff or fedasync
buffer_size = 3              # updates a version is made of
# server_rate = 1.0          # default: 1.0 for fedbuff, 0.6 for fedasync
weighting = "examples"       # examples or equal
staleness = "polynomial"     # constant, polynomial or hinge
power = 0.5
max_wait_s = 3600.0          # then a version is made of what there is

[start]
min_sites = {min_sites}                # version 0 goes out when so many sites have said hello
start_after_s = 600.0        # ... or so long after the first

[limits]
max_norm = 10000.0           # of a delta; beyond it an update is refused
"""


@dataclass(frozen=True)
class Joining:
    """What a hospital needs from the coordinator, as one small TOML file; `broker_url` "" if it gets it elsewhere."""

    federation: str
    site: str
    task: str
    aggregator_key: str
    broker_url: str

    def to_toml(self) -> str:
        """The join file. It holds a password if it has a broker_url: hand it over accordingly."""
        names = ("federation", "site", "task", "aggregator_key", "broker_url")
        return "".join(f'{name} = "{getattr(self, name)}"\n' for name in names)


def create(folder: Folder, *, federation: str, task: str, model: Path, node: Node | None, min_sites: int) -> Layout:
    """Make the folder of a new federation around a model file, and declare what its sites share."""
    checked_name(federation, "Federation")
    if folder.settings_file.exists():
        raise UsageError(f"{folder.path} holds a federation already; choose another folder.")
    layout, vector = load_model(model)
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if node is not None:
        password = secrets.token_urlsafe(18)
        account = f"{federation}.aggregator"
        _give_account(node, account, password, aggregator_rights(federation))
        write_secret(folder.url_file, node.amqp_url(account, password))
    declare_topology(_url(folder), federation_topology(federation, max_models_bytes=stream_bytes(layout.size)))
    journal = Journal(folder.journal_file)
    try:
        PrivateKey.generate().save(folder.key_file)
        initialise(journal, folder, layout, vector, rule_text(Settings(federation, task).aggregation), at=time.time())
    finally:
        journal.close()
    folder.settings_file.write_text(AGGREGATOR_TOML.format(federation=federation, task=task, min_sites=min_sites))
    return layout


def add_site(folder: Folder, site: str, key: PublicKey, *, node: Node | None, account: str | None) -> Joining:
    """Enrol one hospital: registry, queues, account. Nobody else is touched. Doing it again gives a new password."""
    settings = folder.settings()
    names = SiteNames(settings.federation, checked_name(site, "Site"))
    url = ""
    journal = Journal(folder.journal_file)
    try:
        journal.check_key(site, key)  # before anything changes: a mistake here must not lock the real hospital out
        if node is not None:
            account, password = f"{settings.federation}.{site}", secrets.token_urlsafe(18)
            _give_account(node, account, password, site_rights(settings.federation, site))
            url = node.amqp_url(account, password)
        declare_topology(_url(folder), names.topology())
        journal.begin()
        journal.enrol(site, key, account, at=time.time())
        journal.commit()
    finally:
        journal.close()
    public = PrivateKey.load(folder.key_file).public.to_text()
    return Joining(settings.federation, site, settings.task, public, url)


def _give_account(node: Node, account: str, password: str, rights: Rights) -> None:
    management = Management(node.management_url, node.user, node.password)
    management.put_user(account, password)
    management.set_rights("/", account, rights)


def _url(folder: Folder) -> str:
    return read_secret(folder.url_file, URL_VARIABLE, "The broker's address")
