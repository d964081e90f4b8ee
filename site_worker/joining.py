"""Setting up a site: its folder and key at the hospital, then the join file from the coordinator.

The private key is made here and never travels; what the coordinator gets is one line of text.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from broker.errors import StorageError, UsageError
from broker.identity import PrivateKey, PublicKey
from broker.settings import load_settings, write_secret
from broker.topology import checked_name
from site_worker.settings import Folder, Joined

SITE_TOML = """\
# One hospital's worker. Times are in seconds. Any value outside a table can be overridden by the environment,
# for example FEDQUEUE_STEP_DELAY_S=0.1.
site = "{site}"
task = "{task}"    # file.py:function, from this folder; or module:function installed at this hospital
codec = ""             # "": what the aggregator asks for; or float32, int8
seed = 0
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
) -> PublicKey:
    """Make the folder of a new site with a key of its own, and return the public half."""
    if folder.settings_file.exists():
        raise UsageError(f"{folder.path} holds a site already; choose another folder.")
    checked_name(site, "Site")
    if '"' in task or "\\" in task:
        raise UsageError(f"Task {task!r} must be written as file.py:function or module:function.")
    head = SITE_TOML.format(site=site, task=task, step_delay_s=step_delay_s, probe_s=probe_s)
    try:
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.settings_file.write_text(head + "".join(_line(name, value) for name, value in options.items()))
    except OSError as error:
        raise StorageError(f"{folder.path} could not be written: {error.strerror}.") from error
    key = PrivateKey.generate()
    key.save(folder.key_file)
    return key.public


def join(folder: Folder, join_file: Path) -> Joined:
    """Take what the coordinator's join file says; its password goes into a file of mode 0600."""
    joined = load_settings(join_file, Joined, environ={})
    site = folder.settings().site
    if joined.site != site:
        raise UsageError(f"{join_file} is for site {joined.site}, but {folder.path} is site {site}.")
    if joined.broker_url:
        write_secret(folder.url_file, joined.broker_url)
    kept = msgspec.structs.asdict(joined)
    del kept["broker_url"]
    folder.join_file.write_text("".join(_line(name, value) for name, value in kept.items()))
    return joined


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


def _line(name: str, value: str | float) -> str:
    """One line of TOML; JSON's strings, numbers and booleans are TOML's."""
    return f"{name} = {json.dumps(value)}\n"
