"""All promises at once, with eight hospitals: one slow, one whose line breaks, one that is killed.

The long version, with figures, is `python -m tests.benchmarks.hospitals`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from deploy.ending import read_ending
from deploy.local import SitePlan
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation
from tests.benchmarks.troubles import lead_through
from tests.link.proxy import Proxy

STEADY: Final = ("s1", "s3", "s5", "s7", "s8")
SLOW, CUT, KILLED = "s2", "s4", "s6"
STEP_S, SLOW_STEP_S = 0.02, 0.5
PARAMETERS: Final = 20_000
PATIENCE_S: Final = 90.0  # Python and torch start three times, on a machine that may be busy
HALF_AN_UPDATE: Final = 5_000  # bytes: a whole one has more than 10,000


def test_eight_hospitals_in_trouble_lose_nothing_and_all_are_in_the_model(federation: Federation) -> None:
    _prepare(federation)
    assert federation.node is not None
    with Proxy(federation.node.amqp_port) as proxy:
        lead_through(proxy, federation.site(CUT).url_file, federation.node)
        _start(federation)
        federation.reaches(1, PATIENCE_S)
        for harm in (proxy.cut, lambda: proxy.cut_after(HALF_AN_UPDATE), proxy.stall):
            _trouble(federation, proxy, harm)
        federation.kill("aggregator")
        known = federation.status().version
        federation.start_aggregator()
        federation.reaches(known + 2, PATIENCE_S)
        federation.eventually("the slow one is in the model", lambda: _merged(federation)[SLOW] > 0)
        _finish(federation)

    ending = read_ending(federation, federation.sites)
    assert (ending.ledger.lost, ending.ledger.doubled, ending.ledger.waiting) == (0, 0, 0), ending.ledger.line
    assert ending.ledger.balanced, ending.ledger.line
    assert ending.replayed
    assert set(_merged(federation)) == set(federation.sites)


def _prepare(federation: Federation) -> None:
    names = sorted((*STEADY, SLOW, CUT, KILLED))
    plans = [
        SitePlan(
            name,
            {"site": number, "parameters": PARAMETERS, "rows": 64},
            SLOW_STEP_S if name == SLOW else STEP_S,
            probe_s=0.5,
        )
        for number, name in enumerate(names)
    ]
    federation.prepare(*plans, versions=0, task="site_worker.tasks.synthetic:synthetic", task_name="synthetic")
    file = federation.aggregator.settings_file
    patient = '[aggregation]\nstrategy = "patient"\nstaleness = "constant"\n'
    file.write_text(file.read_text().replace("[aggregation]\n", patient))


def _start(federation: Federation) -> None:
    """The steady ones in one process: what happens to them happens to all."""
    federation.start_aggregator()
    federation.start_together(STEADY)
    for name in (SLOW, CUT, KILLED):
        federation.start_site(name)


def _trouble(federation: Federation, proxy: Proxy, harm: Callable[[], None]) -> None:
    """Kill one in the middle of a round and harm the other's line; both come back, and their work counts."""
    before = _merged(federation)
    federation.trains(KILLED, timeout_s=PATIENCE_S)
    federation.kill(KILLED)
    lost = _losses(federation)
    harm()
    federation.start_site(KILLED)
    if harm == proxy.stall:
        federation.eventually("an update is held up", lambda: federation.site_status(CUT).waiting > 0)
        proxy.cut()
        proxy.resume()
    federation.eventually("the line has broken", lambda: _losses(federation) > lost)
    wanted = before + Counter({KILLED: 2, CUT: 2})  # one may have been on its way

    def both_are_in_again() -> bool:
        merged = _merged(federation)
        return all(merged[name] >= wanted[name] for name in (KILLED, CUT))

    federation.eventually("the killed and the cut one are in again", both_are_in_again, PATIENCE_S)


def _losses(federation: Federation) -> int:
    """How often the site behind the proxy has noticed that its line was gone."""
    return federation.log(CUT).count("does not answer")


def _merged(federation: Federation) -> Counter[str]:
    """Updates in the model by site."""
    return Counter(row["site"] for row in federation.journal("SELECT site FROM merged WHERE version IS NOT NULL"))


def _finish(federation: Federation) -> None:
    """End training, and wait until everybody has heard it and nothing waits anywhere."""
    wanted = federation.status().version + 1
    assert fedqueue("aggregator", "stop-after", federation.aggregator.path, wanted).returncode == 0
    federation.finished()
    federation.eventually("all is settled", lambda: not federation.waiting() and not federation.status().buffered)
