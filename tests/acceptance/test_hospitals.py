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
STEPS_S: Final = {SLOW: 0.5, CUT: 0.1}
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
        for harm in (_cut, _cut_in_an_update, _cut_before_the_answer):
            _trouble(federation, lambda harm=harm: harm(federation, proxy))  # type: ignore[misc]
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
            STEPS_S.get(name, 0.02),
            probe_s=30.0 if name == CUT else 0.5,  # its first message in a silence must be an update, not a hello
        )
        for number, name in enumerate(names)
    ]
    federation.prepare(
        *plans, versions=0, task="site_worker.tasks.synthetic:synthetic", task_name="synthetic", strategy="patient"
    )


def _start(federation: Federation) -> None:
    """The steady ones in one process: what happens to them happens to all."""
    federation.start_aggregator()
    federation.start_together(STEADY)
    for name in (SLOW, CUT, KILLED):
        federation.start_site(name)


def _trouble(federation: Federation, harm: Callable[[], None]) -> None:
    """Kill one in the middle of a round and harm the other's line; both come back, and their work counts."""
    before, losses = _merged(federation), _losses(federation)
    federation.trains(KILLED, timeout_s=PATIENCE_S)
    federation.kill(KILLED)
    harm()
    federation.start_site(KILLED)
    federation.eventually("the line has broken", lambda: _losses(federation) > losses)
    wanted = before + Counter({KILLED: 2, CUT: 2})  # one may have been on its way

    def both_are_in_again() -> bool:
        merged = _merged(federation)
        return all(merged[name] >= wanted[name] for name in (KILLED, CUT))

    federation.eventually("the killed and the cut one are in again", both_are_in_again, PATIENCE_S)


def _cut(_federation: Federation, proxy: Proxy) -> None:
    proxy.cut()


def _cut_in_an_update(_federation: Federation, proxy: Proxy) -> None:
    proxy.cut_after(HALF_AN_UPDATE)


def _cut_before_the_answer(federation: Federation, proxy: Proxy) -> None:
    """An update arrives, its site never hears of it and sends it again: a duplicate, for certain."""
    stalled = False

    def held_up() -> bool:
        """A site that waits for a model when its answers stop would never have an update: only while it trains."""
        nonlocal stalled
        if stalled and _unconfirmed(federation):
            return True
        stalled = federation.site_status(CUT).state == "training"
        (proxy.stall_answers if stalled else proxy.resume)()
        return False

    federation.eventually("an update is made that cannot be confirmed", held_up)
    made, accepted = _unconfirmed(federation), "SELECT 1 FROM updates WHERE site = ? AND sequence = ?"
    federation.eventually("it has arrived", lambda: bool(federation.journal(accepted, CUT, made)))
    proxy.cut()
    proxy.resume()


def _unconfirmed(federation: Federation) -> int | None:
    """The update that the cut-off site is publishing."""
    query = "SELECT min(sequence) FROM updates WHERE state = 'waiting' AND NOT published"
    return next((row[0] for row in federation.outbox(CUT, query)), None)


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
