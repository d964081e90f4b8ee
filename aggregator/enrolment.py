"""Setting up: a federation's folder, its queues and account on the broker, and one hospital at a time.

With a private node every account is made here: a site can write only its own routing keys and read only its own queues.
On any other broker its operator makes the accounts with the rights that `fedqueue broker rights` prints.

Whatever fails or is killed here can be done again: the settings file comes last, and what is there already is taken.
"""

import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from aggregator.journal import Journal
from aggregator.opening import initialise, rule_text
from aggregator.settings import Folder, Settings
from broker.accounts import Management, with_login
from broker.errors import LinkError, UsageError
from broker.files import whole_or_nothing, write_file
from broker.identity import PrivateKey
from broker.letters import Joined, Request
from broker.node import Node
from broker.removal import delete_queues
from broker.rights import AGGREGATOR
from broker.serving import Tls, address_at, declare_topology, read_url
from broker.settings import parse_settings, to_toml, write_secret
from broker.topology import (
    WATCHER_RIGHTS,
    Rights,
    SiteNames,
    Topology,
    account_of,
    aggregator_rights,
    checked_name,
    federation_topology,
    site_rights,
    stream_bytes,
    watcher_of,
)
from broker.weights import Layout, load_model

AGGREGATOR_TOML: Final = """\
# The aggregator of federation {federation}. Times are in seconds. Any value can be overridden by the environment,
# for example FEDQUEUE_AGGREGATION__BUFFER_SIZE=4.
federation = "{federation}"
task = "{task}"              # the name all sites' tasks must have
codec = "auto"               # what sites compress with: each chooses; or float32, bf16, int8, int8-coarse, int4, sign,
                             # top5, top1, top0.1, lowrank, or lowrank-330 (330 times smaller; 10 to 10000)
model_codec = "auto"         # how models go to the sites: small ones whole, of others what has changed since the last
versions = 0                 # stop asking for training after so many versions; 0: until stopped

[plan]                       # what a site does in one round
steps = 50
batch_size = 32
learning_rate = 0.1
# optimizer = "sgd"          # sgd, adam or adamw; momentum = 0.0 (of sgd), weight_decay = 0.0
# schedule = "constant"      # constant, cosine or linear, within the round; warmup_steps = 0
# clip_norm = 0.0            # of a step's gradient; 0: none
# patience = 0               # end a round after so many checks without a better validation loss; 0: never
# proximal = 0.0             # mu of FedProx, which holds a round near the model that it began from; 0: off
# equal_time = false         # true: fewer steps for slow sites, which then move the model less (docs/algorithms.md)

[aggregation]                # once updates are in, a change here takes effect by 'fedqueue aggregator switch'
strategy = "patient"         # or fedbuff, fedasync, fedavg, ca2fl ...: docs/algorithms.md compares them
buffer_size = 0              # sites whose updates make a version; 0: a fifth of them, at least two
# server_rate = 1.0          # default: 1.0, 0.6 for fedasync
weighting = "examples"       # examples, equal, or capped at max_share = 0.5 of all rows
# staleness = "polynomial"   # constant, polynomial (power = 0.5) or hinge; of fedbuff, fedasync and fedavg
# max_staleness = 100        # refuse updates whose base is older, in versions
# server_optimizer = "none"  # none, momentum, fedadam, fedyogi or fadas
max_wait_s = 3600.0          # then a version is made of what there is

[start]
min_sites = {min_sites}                # version 0 goes out when so many sites have said hello
start_after_s = 600.0        # ... or so long after the first

[limits]
max_norm = 10000.0           # of a delta; beyond it an update is refused

# [metrics]                  # for Prometheus: docs/operations.md
# port = 9748                # 0: off; address = "127.0.0.1"

[tls]                        # for an amqps:// address
{tls}"""


@dataclass(frozen=True)
class Founding:
    """What a federation begins with; `task` "" is that of the requests, `min_sites` None their number."""

    federation: str
    model: Path
    requests: Sequence[Request] = ()
    task: str = ""
    min_sites: int | None = None
    tls: Tls = field(default_factory=Tls)


def create(folder: Folder, founding: Founding, *, node: Node | None) -> Layout:
    """Make the folder of a new federation with a join file for each request; its queues and accounts at the broker.

    A failure leaves nothing behind in the folder.
    """
    federation = checked_name(founding.federation, "Federation")
    if folder.settings_file.exists():
        raise UsageError(f"{folder.path} holds a federation already: use 'add-site', or choose another folder.")
    layout, vector = load_model(founding.model)
    task = _common_task(founding)
    text = _settings_text(founding, task)
    settings = parse_settings(text, Settings, path=folder.settings_file)
    _check(founding.requests, task, layout.digest)
    with whole_or_nothing(folder.path):
        if node is not None:
            account, rights = account_of(federation, AGGREGATOR), aggregator_rights(federation)
            write_secret(folder.url_file, _account_on(node, account, rights))
            write_secret(folder.console_file, _watcher_on(node, federation))
        PrivateKey.load_or_make(folder.key_file)
        with closing(Journal(folder.journal_file)) as journal:
            initialise(journal, folder, layout, vector, rule_text(settings.aggregation), at=time.time())
            shared = federation_topology(federation, max_models_bytes=stream_bytes(layout.size))
            for joined in _enrol(folder, settings, journal, founding.requests, node=node, shared=shared):
                write_secret(folder.join_file(joined.site), joined.to_toml())
        write_file(folder.settings_file, text.encode())
    return layout


def add_site(folder: Folder, request: Request, *, node: Node | None, account: str | None = None) -> Joined:
    """Enrol one hospital: registry, queues, account. Nobody else is touched. Doing it again gives a new password.

    `account` is its name on a broker that is not private, where that is not FEDERATION.SITE.
    """
    settings = folder.settings()
    with closing(_existing(folder)) as journal:
        _check([request], settings.task, journal.fact("layout") or b"")
        (joined,) = _enrol(folder, settings, journal, [request], shared=Topology(), node=node, account=account)
    return joined


def remove_site(folder: Folder, site: str, *, node: Node | None) -> str:
    """Take a hospital out: account (on a private node), registry, queues; the name of its account.

    What was accepted from it stays in the journal and in the model. A running aggregator notices within seconds. Doing
    it again after a failure goes on where it failed; UsageError at the end if the site was not enrolled.
    """
    settings = folder.settings()
    names = SiteNames(settings.federation, checked_name(site, "Site"))
    address = address_at(read_url(folder.url_file), settings.tls)
    with closing(_existing(folder)) as journal:
        sites = journal.sites()
        account = (sites[site].account if site in sites else None) or account_of(settings.federation, site)
        if node is not None:
            _management(node).delete_user(account)
        journal.begin()
        journal.remove(site)
        journal.commit()
        delete_queues(address, names)
    if site not in sites:
        raise UsageError(f"Site {site} is not enrolled; those that are: {', '.join(sites) or 'none'}.")
    return account


def _common_task(founding: Founding) -> str:
    """The task that all requests name; UsageError says which hospital's differs."""
    named = {request.site: request.task for request in founding.requests if request.task}
    task = founding.task or next(iter(named.values()), "")
    if not task:
        raise UsageError("No request names a task: give --task, the name that all sites' tasks have.")
    if '"' in task or "\\" in task or not task.isprintable():
        raise UsageError(f"Task {task!r} cannot be used: choose a name without quotes and backslashes.")
    return task


def _check(requests: Sequence[Request], task: str, layout_digest: bytes) -> None:
    """UsageError names the hospital whose task or model is not the federation's, or which asks twice."""
    seen = set[str]()
    for request in requests:
        if request.site in seen:
            raise UsageError(f"Two requests are from site {request.site}: keep the one whose fingerprint is confirmed.")
        seen.add(request.site)
        if request.task and request.task != task:
            raise UsageError(f"Site {request.site} runs task {request.task!r}, the federation runs {task!r}.")
        if request.layout_digest and request.layout_digest != layout_digest.hex():
            raise UsageError(
                f"The model of site {request.site} ({request.parameters} parameters) has another layout than the "
                "federation's: compare the versions of the task, and let the hospital make its request again."
            )


def _settings_text(founding: Founding, task: str) -> str:
    return AGGREGATOR_TOML.format(
        federation=founding.federation,
        task=task,
        min_sites=max(1, len(founding.requests)) if founding.min_sites is None else founding.min_sites,
        tls=to_toml(msgspec.structs.asdict(founding.tls)),
    )


def _existing(folder: Folder) -> Journal:
    if not folder.journal_file.is_file():
        raise UsageError(f"There is no {folder.journal_file}; has this folder been initialised?")
    return Journal(folder.journal_file)


def _enrol(
    folder: Folder,
    settings: Settings,
    journal: Journal,
    requests: Sequence[Request],
    *,
    shared: Topology,
    node: Node | None,
    account: str | None = None,
) -> list[Joined]:
    """Keys first, so that a mistake does not lock a real hospital out; then accounts, queues, and the registry last."""
    federation, public = settings.federation, PrivateKey.load(folder.key_file).public.to_text()
    for request in requests:
        journal.check_key(request.site, request.key)
    accounts = {one.site: account or account_of(federation, one.site) for one in requests}
    urls = {
        site: _account_on(node, name, site_rights(federation, site)) if node else "" for site, name in accounts.items()
    }
    own = [SiteNames(federation, site).topology() for site in accounts]
    declare_topology(read_url(folder.url_file), shared.with_all(own), tls=settings.tls)
    journal.begin()
    for request in requests:
        journal.enrol(request.site, request.key, accounts[request.site], at=time.time())
    journal.commit()
    layout_digest = (journal.fact("layout") or b"").hex()
    return [Joined(federation, site, settings.task, public, url, layout_digest) for site, url in urls.items()]


def _account_on(node: Node, account: str, rights: Rights) -> str:
    """Make an account with a new password on a private node; its address."""
    password, management = secrets.token_urlsafe(18), _management(node)
    management.put_user(account, password)
    management.set_rights("/", account, rights)
    return node.amqp_url(account, password)


def _watcher_on(node: Node, federation: str) -> str:
    """Make an account that may look at a private node's console and do nothing; its address."""
    account, password, management = watcher_of(federation), secrets.token_urlsafe(18), _management(node)
    management.put_user(account, password, tags=WATCHER_RIGHTS.tags)
    management.set_rights("/", account, WATCHER_RIGHTS)
    return with_login(node.management_url, account, password)


def _management(node: Node) -> Management:
    if not node.running:
        raise LinkError(f"The broker in {node.folder} does not run: start it with 'fedqueue broker up {node.folder}'.")
    return Management(node.management_url, node.user, node.password)
