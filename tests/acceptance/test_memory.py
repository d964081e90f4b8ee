"""Promise 6: the aggregator's memory follows from the model, not from the number of sites or of updates."""

import re
import signal
from pathlib import Path
from typing import Final

import numpy as np

from broker.codecs import encode
from deploy.local import SitePlan
from tests.acceptance.byhand import HandSite
from tests.acceptance.federation import Federation

SYNTHETIC: Final = "site_worker.tasks.synthetic:synthetic"
PARAMETERS: Final = 1_000_000
MB: Final = 1e6


def test_memory_is_bounded_whatever_the_number_of_sites(federation: Federation) -> None:
    plans = [SitePlan(f"site{number:02}", {"parameters": PARAMETERS}) for number in range(40)]
    federation.prepare(
        *plans[:4], task=SYNTHETIC, task_name="synthetic", versions=0, buffer_size=8, max_wait_s=60, min_sites=1
    )
    federation.start_aggregator()
    few = [HandSite(federation, plan.name) for plan in plans[:4]]
    few[0].hello(task="synthetic")
    federation.eventually("it starts", lambda: federation.status().started)
    _burst(federation, few, each=20)
    peak_of_4 = _peak(federation)
    for plan in plans[4:]:
        federation.enrol(plan, SYNTHETIC)
    _burst(federation, [HandSite(federation, plan.name) for plan in plans], each=4)
    peak_of_40 = _peak(federation)
    assert peak_of_40 <= 1.25 * peak_of_4 + 20 * MB, f"{peak_of_4 / MB:.0f} MB, then {peak_of_40 / MB:.0f} MB"


def test_memory_is_bounded_over_two_thousand_updates(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=0, buffer_size=50, max_wait_s=60)
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


def _burst(federation: Federation, sites: list[HandSite], *, each: int) -> None:
    """All sites' updates are in their queues before the aggregator reads the first."""
    process = federation.processes["aggregator"]
    model = np.random.default_rng(0).normal(scale=1e-3, size=len(sites[0].initial)).astype(np.float32)
    payload = encode("int8", model)
    wanted = federation.accepted() + each * len(sites)
    process.send_signal(signal.SIGSTOP)
    try:
        for site in sites:
            site.send(*(site.update(payload, codec="int8", task="synthetic") for _ in range(each)))
    finally:
        process.send_signal(signal.SIGCONT)
    federation.eventually(f"{wanted} updates", lambda: federation.accepted() == wanted, timeout_s=60)


def _peak(federation: Federation) -> int:
    """The most memory the aggregator has ever used, in bytes, as Linux keeps it."""
    text = Path(f"/proc/{federation.processes['aggregator'].pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024
