"""Setting up a site: its folder and key at the hospital, then the join file from the coordinator.

The private key is made here and never travels; what the coordinator gets is a request (site_worker/request.py).
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from broker.errors import UsageError
from broker.files import whole_or_nothing, write_file
from broker.identity import PrivateKey, PublicKey
from broker.letters import Joined
from broker.serving import Tls, address_at
from broker.settings import to_toml, write_secret
from broker.topology import checked_name
from site_worker.settings import Folder

SITE_TOML = """\
# One hospital's worker. Times are in seconds. Any value outside a table can be overridden by the environment,
# for example FEDQUEUE_STEP_DELAY_S=0.1.
site = "{site}"
task = "{task}"    # file.py:function, from this folder; or module:function installed at this hospital
codec = ""             # "": what the aggregator asks for; or float32, bf16, int8, int8-coarse, int4, sign,
                       # top5, top1, top0.1, lowrank, or lowrank-330 (330 times smaller; 10 to 10000)
seed = {seed}
threads = 1            # processor threads that training may use
device = "auto"        # auto (CUDA where there is one), cpu, cuda or cuda:N
precision = "float32"  # float32, bf16, or fp16 (on CUDA)
checkpoint_s = 60.0    # how often a round is kept while it trains, so that it can be continued
step_delay_s = {step_delay_s}     # a pause after every step, to spare a machine that others use
probe_s = {probe_s}         # how long a published update may go unanswered before the worker asks
windows = []           # when training may go on, such as ["22:00-06:00 Europe/Paris"]; []: at any time
max_updates_per_day = 0    # 0: no limit

[bounds]               # what an announcement may ask of this hospital
max_steps = 100000
max_batch_size = 65536
max_learning_rate = 10.0

# [metrics]            # for Prometheus: docs/operations.md
# port = 9749          # 0: off; address = "127.0.0.1"

[tls]                  # for an amqps:// address
{tls}
[options]              # given to the task's function
"""


def create(
    folder: Folder,
    *,
    site: str,
    task: str,
    options: Mapping[str, str | float],
    step_delay_s: float = 0.0,
    probe_s: float = 30.0,
    seed: int = 0,
    tls: Tls | None = None,
) -> PublicKey:
    """Make the folder of a new site with a key of its own, and return the public half; a failure leaves nothing."""
    if folder.settings_file.exists():
        raise UsageError(f"{folder.path} holds a site already; 'fedqueue site request' writes its request again.")
    checked_name(site, "Site")
    if '"' in task or "\\" in task:
        raise UsageError(f"Task {task!r} must be written as file.py:function or module:function.")
    files = to_toml(msgspec.structs.asdict(tls or Tls()))
    head = SITE_TOML.format(site=site, task=task, step_delay_s=step_delay_s, probe_s=probe_s, seed=seed, tls=files)
    with whole_or_nothing(folder.path):
        key = PrivateKey.load_or_make(folder.key_file)
        write_file(folder.settings_file, (head + to_toml(options)).encode())
    return key.public


def join(folder: Folder, join_file: Path) -> Joined:
    """Take what the coordinator's join file says; its password goes into a file of mode 0600.

    The same federation may be joined again, for a new address or password. Another one, or another key of its
    aggregator, is a UsageError: this site trusts the first.
    """
    joined, settings = Joined.read(join_file), folder.settings()
    if joined.site != settings.site:
        raise UsageError(f"{join_file} is for site {joined.site}, but {folder.path} is site {settings.site}.")
    if folder.join_file.exists():
        _require_same(joined, folder)
    if joined.broker_url:
        address_at(joined.broker_url, settings.tls)
        write_secret(folder.url_file, joined.broker_url)
    write_file(folder.join_file, msgspec.structs.replace(joined, broker_url="").to_toml().encode())
    return joined


def _require_same(joined: Joined, folder: Folder) -> None:
    before = folder.joined()
    if joined.federation != before.federation:
        raise UsageError(
            f"{folder.path} is in federation {before.federation}; for {joined.federation} make another folder."
        )
    if joined.aggregator_key != before.aggregator_key:
        raise UsageError(
            f"The aggregator of {joined.federation} has another key than the one this site trusts: only if the "
            f"coordinator confirms that it has changed, remove {folder.join_file} and join again."
        )


def found_from_anywhere(task: str) -> str:
    """A file named from the current folder by its whole path: the worker may be started from another folder."""
    file, separator, function = task.rpartition(":")
    if not file.endswith(".py") or not Path(file).is_file():
        return task
    return f"{Path(file).absolute()}{separator}{function}"


def parsed_file(text: str) -> tuple[str, str]:
    """NAME=PATH with the whole path; UsageError if there is nothing at it."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise UsageError(f"Option {text!r} must read NAME=PATH.")
    if not Path(value).exists():
        raise UsageError(f"There is nothing at {value!r}, which is given for {name!r}; correct the path.")
    return name, str(Path(value).absolute())


def parsed_option(text: str) -> tuple[str, str | float]:
    """NAME=VALUE, where a value that reads as a number is one."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise UsageError(f"Option {text!r} must read NAME=VALUE.")
    try:
        parsed = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
    return name, parsed if isinstance(parsed, int | float) else value
