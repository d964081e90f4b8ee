"""Promise 6: the aggregator's memory follows from the model, not from the number of sites or of updates."""

import re
from pathlib import Path
from typing import Final

import numpy as np

from broker.codecs import encode
from broker.messages import part_count
from deploy.local import SitePlan
from tests.acceptance.byhand import HandSite
from tests.acceptance.federation import Federation

SYNTHETIC: Final = "site_worker.tasks.synthetic:synthetic"
PARAMETERS: Final = 1_265_000  # an update is a part of 4 MiB and a small one that completes it
MB: Final = 1e6


def test_memory_is_bounded_whatever_the_number_of_sites(federation: Federation) -> None:
    """40 updates wait when the aggregator connects: ten of each of 4 sites, then one of each of 40 (a flood of 170 MB).

    Meanwhile it makes versions of four updates, or of more that came while the last was made, and asks every 0.3 s who
    is present. Peaks of equal runs differ by a few of these parts, as buffers of megabytes happen to be held at the
    same time or not.
    """
    plans = [SitePlan(f"site{number:02}", {"parameters": PARAMETERS}) for number in range(40)]
    federation.prepare(
        *plans[:4], task=SYNTHETIC, task_name="synthetic", versions=0, buffer_size=4, max_wait_s=600, min_sites=1,
        strategy="patient",
    )  # fmt: skip
    federation.start_aggregator()
    few = [HandSite(federation, plan.name) for plan in plans[:4]]
    few[0].hello(task="synthetic")
    federation.eventually("it starts", lambda: federation.status().started)
    peak_of_4 = _peak_of(federation, few, each=10)
    for plan in plans[4:]:
        federation.enrol(plan, SYNTHETIC)
    peak_of_40 = _peak_of(federation, few + [HandSite(federation, plan.name) for plan in plans[4:]], each=1)
    assert 5 <= federation.status().version <= 20
    assert peak_of_40 <= peak_of_4 + 16 * MB, f"{peak_of_4 / MB:.0f} MB, then {peak_of_40 / MB:.0f} MB"


def test_memory_is_bounded_over_two_thousand_updates(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=0, buffer_size=50, max_wait_s=60, strategy="patient")
    federation.start_aggregator()
    site = HandSite(federation, "a")
    site.hello()
    site.send(*(site.update() for _ in range(200)))
    federation.eventually("200 updates", lambda: federation.accepted() == 200)
    before = _peak(federation)
    site.send(*(site.update() for _ in range(1800)))
    federation.eventually("2,000 updates", lambda: federation.accepted() == 2000)
    after = _peak(federation)
    assert after <= before + 3 * MB, f"{before / MB:.1f} MB, then {after / MB:.1f} MB"


def _peak_of(federation: Federation, sites: list[HandSite], *, each: int) -> int:
    """The most memory of an aggregator that finds `each` updates of each site when it starts, and accepts them all."""
    federation.stop("aggregator")
    delta = np.random.default_rng(0).normal(scale=1e-3, size=len(sites[0].initial)).astype(np.float32)
    payload = encode("float32", delta)
    assert part_count(len(payload)) == 2
    wanted = federation.accepted() + each * len(sites)
    for site in sites:
        site.send(*(part for _ in range(each) for part in site.parts(payload, task="synthetic")))
    federation.start_aggregator()
    federation.eventually(f"{wanted} updates", lambda: federation.accepted() == wanted, timeout_s=120)
    return _peak(federation)


def _peak(federation: Federation) -> int:
    """The most memory the aggregator has ever used, in bytes, as Linux keeps it."""
    text = Path(f"/proc/{federation.processes['aggregator'].pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024
