"""The alerts are those of the table of causes, in its words, and a real Prometheus fires and ends each."""

import re
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.gauges import Gauges
from broker.exposition import exposed
from broker.measures import Measure, Metrics, Reading
from broker.node import Node
from broker.troubles import CAUSES, Cause, Trouble
from tests.aggregator.bench import bench
from tests.ports import free_port
from tests.prometheus import ALERTS, CONFIG, Prometheus, promtool

WITHIN_S = 60.0
WATERMARKS = ("rabbitmq_alarms_free_disk_space_watermark", "rabbitmq_alarms_memory_used_watermark")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def alert_of(cause: str) -> str:
    """ "site-away" is FedqueueSiteAway."""
    return "Fedqueue" + "".join(word.capitalize() for word in cause.split("-"))


def test_there_is_one_alert_for_each_cause() -> None:
    assert [(one["alert"], one["labels"]["cause"]) for one in rules()] == [(alert_of(one), one) for one in CAUSES]


@pytest.mark.parametrize(("rule", "cause"), list(zip(rules(), CAUSES.values(), strict=False)), ids=list(CAUSES))
def test_an_alert_says_what_its_cause_says_and_calls_nobody_for_what_needs_nobody(
    rule: dict[str, Any], cause: Cause
) -> None:
    named = "{{ with $labels.site }}{{ . }}: {{ end }}"
    assert rule["annotations"] == {"summary": named + cause.means, "remedy": cause.remedy}
    assert rule["labels"]["severity"] in ({"page", "ticket"} if cause.act else {"info"})
    assert f'fedqueue_trouble{{cause="{cause.name}"}}' in rule["expr"]
    assert re.fullmatch(r"\d+[sm]", rule["for"])


def test_promtool_finds_nothing_to_say_against_rules_and_configuration() -> None:
    for done in (promtool("check", "config", CONFIG), promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)):
        assert (done.returncode, done.stderr) == (0, "")


class Services:
    """An aggregator on a hand-made journal, and a broker's exporter; tests say what is wrong."""

    def __init__(self, path: Path) -> None:
        made = bench(path)
        made.close()
        self.wrong: tuple[Trouble, ...] = ()
        self.alarms = dict.fromkeys(WATERMARKS, 0)
        self._gauges = Gauges(made.place, "fed", lambda: self.wrong)
        self._ports = {job: Metrics(port=free_port()) for job in ("fedqueue-aggregator", "rabbitmq")}
        self._reads = {"fedqueue-aggregator": self._gauges.read, "rabbitmq": self._alarms}
        self._running: dict[str, ExitStack] = {}

    def start(self, job: str) -> None:
        self._running[job] = ExitStack()
        self._running[job].enter_context(exposed(self._ports[job], self._reads[job], retry_s=0.1))

    def stop(self, job: str) -> None:
        self._running.pop(job).close()

    def close(self) -> None:
        for job in list(self._running):
            self.stop(job)

    @property
    def targets(self) -> dict[str, list[str]]:
        return {job: [f"127.0.0.1:{metrics.port}"] for job, metrics in self._ports.items()}

    def _alarms(self) -> Iterable[Reading]:
        return [Measure(name, "gauge", (), "An alarm.").of(value) for name, value in self.alarms.items()]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    made = Services(tmp_path_factory.mktemp("services"))
    made.start("fedqueue-aggregator")
    made.start("rabbitmq")
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus.running(tmp_path_factory.mktemp("prometheus"), targets=services.targets) as running:
        running.until_scraped(within_s=WITHIN_S)
        yield running


@pytest.mark.parametrize("cause", CAUSES.values(), ids=list(CAUSES))
def test_a_trouble_makes_its_alert_fire_and_no_other(services: Services, prometheus: Prometheus, cause: Cause) -> None:
    services.wrong = (Trouble(cause, "NY", "whatever"),)
    prometheus.until_exactly((alert_of(cause.name), "NY"), within_s=WITHIN_S)
    (alert,) = prometheus.firing()
    assert alert.annotations == {"summary": f"NY: {cause.means}", "remedy": cause.remedy}


def test_alerts_end_with_their_troubles(services: Services, prometheus: Prometheus) -> None:
    services.wrong = ()
    prometheus.until_exactly(within_s=WITHIN_S)


def test_a_trouble_of_the_whole_federation_names_no_site(services: Services, prometheus: Prometheus) -> None:
    services.wrong = (Trouble(CAUSES["broker-down"]),)
    prometheus.until_exactly(("FedqueueBrokerDown", ""), within_s=WITHIN_S)
    assert prometheus.firing()[0].annotations["summary"] == CAUSES["broker-down"].means
    services.wrong = ()


@pytest.mark.parametrize(
    ("job", "alert"), [("fedqueue-aggregator", "FedqueueAggregatorDown"), ("rabbitmq", "FedqueueBrokerDown")]
)
def test_one_that_does_not_answer_is_down(services: Services, prometheus: Prometheus, job: str, alert: str) -> None:
    services.stop(job)
    prometheus.until_exactly((alert, ""), within_s=WITHIN_S)
    services.start(job)
    prometheus.until_exactly(within_s=WITHIN_S)


@pytest.mark.parametrize("alarm", WATERMARKS)
def test_the_brokers_own_alarms_are_an_alert(services: Services, prometheus: Prometheus, alarm: str) -> None:
    services.alarms[alarm] = 1
    prometheus.until_exactly(("FedqueueBrokerAlarm", ""), within_s=WITHIN_S)
    services.alarms[alarm] = 0
    prometheus.until_exactly(within_s=WITHIN_S)


def test_what_aggregator_and_broker_both_say_is_one_alert(services: Services, prometheus: Prometheus) -> None:
    services.alarms = dict.fromkeys(WATERMARKS, 1)
    prometheus.until_exactly(("FedqueueBrokerAlarm", ""), within_s=WITHIN_S)
    services.wrong = (Trouble(CAUSES["broker-alarm"]),)
    prometheus.until("the aggregator's is fired", lambda: _federations(prometheus) == ["fed"], within_s=WITHIN_S)
    services.wrong, services.alarms = (), dict.fromkeys(WATERMARKS, 0)


def _federations(prometheus: Prometheus) -> list[str]:
    """Of each alert that fires; "" for one by the broker's own metrics."""
    return [one.labels.get("federation", "") for one in prometheus.query('ALERTS{alertstate="firing"}')]


def test_the_broker_exposes_these_alarms_under_these_names(node: Node) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.prometheus_port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    assert {f"{name} 0" for name in WATERMARKS} <= set(lines)
