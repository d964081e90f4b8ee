"""How long a crash of the aggregator is felt: `python -m tests.benchmarks.recovery --json FILE`.

Three small sites train all the time. The aggregator is killed with SIGKILL and started again at once; measured is from
the kill to the next version in the journal, so it holds Python's start, the journal, the broker's login, the updates
that waited meanwhile and the merge.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec

from aggregator.status import read_status
from broker.errors import FedqueueError
from broker.processes import wait_until
from deploy.local import LocalFederation, SitePlan

TASK: Final = "site_worker.tasks.synthetic:tiny"
SITES: Final = 3
PATIENCE_S: Final = 60.0
STEP_DELAY_S: Final = 0.01
SETTINGS: Final = """\
federation = "recovery"
task = "tiny"

[plan]
steps = 20

[aggregation]
buffer_size = 3

[start]
min_sites = 3
"""


def next_version_s(federation: LocalFederation, *, after: float) -> float:
    """Seconds from `after` (monotonic) to a version that is not in the journal yet."""
    known = read_status(federation.aggregator).version

    def published() -> bool:
        federation.check()
        return read_status(federation.aggregator).version > known

    if not wait_until(published, PATIENCE_S):
        raise FedqueueError(f"No version followed version {known} within {PATIENCE_S:.0f} s; look at the logs.")
    return time.monotonic() - after


def crash(federation: LocalFederation) -> float:
    """Kill the aggregator, start it again, and wait for its next version."""
    killed = time.monotonic()
    federation.kill("aggregator")
    federation.start_aggregator()
    return next_version_s(federation, after=killed)


def measure(federation: LocalFederation, *, times: int) -> dict[str, Any]:
    """The crashes' seconds, and for comparison how long a version takes when nothing is wrong."""
    federation.start_broker()
    plans = [SitePlan(f"site{number}", {"site": number}, STEP_DELAY_S) for number in range(SITES)]
    federation.set_up(federation="recovery", task=TASK, sites=plans, settings=SETTINGS)
    federation.start_aggregator()
    for plan in plans:
        federation.start_site(plan.name)
    next_version_s(federation, after=time.monotonic())
    undisturbed, crashed = [], []
    for _ in range(times):
        undisturbed += [next_version_s(federation, after=time.monotonic()) for _ in range(3)]
        crashed.append(crash(federation))
    return {
        "recovery_s": round(median(crashed), 3),
        "recovery_s_min": round(min(crashed), 3),
        "recovery_s_max": round(max(crashed), 3),
        "undisturbed_s": round(median(undisturbed), 3),
        "times": times,
        "sites": SITES,
    }


@click.command()
@click.option("--times", default=5, show_default=True, type=click.IntRange(1), help="How many crashes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(times: int, json_file: Path | None) -> None:
    """Seconds from SIGKILL of the aggregator to its next version, after an immediate restart."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-recovery-") as folder:
        federation = LocalFederation(Path(folder))
        try:
            figures = measure(federation, times=times)
        finally:
            federation.close()
    text = msgspec.json.format(msgspec.json.encode(figures)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
