"""Where somebody on call would look, and which (cause, site) each place names now."""

import re
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final

from broker.troubles import CAUSES
from tests.drill.hospitals import Hospitals
from tests.prometheus import Prometheus

Named = set[tuple[str, str]]
SERIES: Final = re.compile(r"^fedqueue_trouble\{(?P<labels>[^}]*)\} 1(\.0)?$", re.MULTILINE)
LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class Places:
    """Each command's exit code is held to what it says: 1 if somebody has to act."""

    def __init__(self, hospitals: Hospitals, prometheus: Prometheus) -> None:
        self._hospitals, self._prometheus = hospitals, prometheus

    def status(self) -> Named:
        """`fedqueue status` of the aggregator."""
        code, seen = self._hospitals.said("status", self._hospitals.aggregator.path)
        return _named(seen[0]["troubles"], code)

    def queues(self) -> Named:
        """`fedqueue broker queues`."""
        assert self._hospitals.node is not None
        code, seen = self._hospitals.said("broker", "queues", self._hospitals.node.folder)
        of_federation = seen["federations"].get(self._hospitals.name, {"troubles": []})
        return _named([*seen["troubles"], *of_federation["troubles"]], code)

    def metric(self) -> Named:
        """`fedqueue_trouble` of the aggregator; a service that does not answer is down, as Prometheus' `up` says."""
        assert self._hospitals.metrics is not None
        try:
            url = f"http://127.0.0.1:{self._hospitals.metrics['aggregator']}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return {("aggregator-down", "")}
        found = [dict(LABEL.findall(match["labels"])) for match in SERIES.finditer(text)]
        return {(one["cause"], one["site"]) for one in found}

    def alert(self) -> Named:
        """What fires in Prometheus, which must tell the remedy in the words of the runbook."""
        firing = self._prometheus.firing()
        for one in firing:
            assert one.annotations["remedy"] == CAUSES[cause_of(one.name)].remedy
        return {(cause_of(one.name), one.site) for one in firing}


def cause_of(alert: str) -> str:
    """Of FedqueueSiteAway it is site-away."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert.removeprefix("Fedqueue")).lower()


def _named(troubles: Sequence[Any], code: int) -> Named:
    assert code == int(any(one["act"] for one in troubles))
    return {(one["cause"], one["site"]) for one in troubles}


def looks(places: Places) -> dict[str, Callable[[], Named]]:
    """Each place by its name."""
    return {"status": places.status, "broker queues": places.queues, "metric": places.metric, "alert": places.alert}
