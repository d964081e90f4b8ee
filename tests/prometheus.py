"""A real Prometheus for tests: found or fetched, run for itself with the repository's configuration and alerts.

    with Prometheus.running(tmp_path, targets={"fedqueue-aggregator": ["127.0.0.1:9748"]}) as prometheus:
        prometheus.until_firing("FedqueueSiteAway", site="NY", within_s=60)

It listens on 127.0.0.1 alone, keeps everything in the folder that it is given, and asks and decides every second; the
time that an alert of deploy/prometheus/alerts.yml waits before it fires is cut to nothing. `python -m tests.prometheus`
sees to it that there is one.
"""

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import pytest
import yaml

from tests.debian import ensure_program
from tests.ports import free_port

PACKAGE: Final = "prometheus"
FOLDER: Final = Path(__file__).parents[1] / "deploy" / "prometheus"
CONFIG: Final = FOLDER / "prometheus.yml"
ALERTS: Final = FOLDER / "alerts.yml"
MISSING: Final = "Prometheus is not installed: run `python -m tests.prometheus`, or apt-get install prometheus."
POLL_S: Final = 0.2
START_S: Final = 60.0
END_S: Final = 10.0


@dataclass(frozen=True)
class Alert:
    """One that fires: its name, the site that it is about ("" if none), its severity, and its texts as expanded."""

    name: str
    site: str
    severity: str
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """What an instant query gives of one series."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """One that runs at `url`; its log is `log`. Safe to be asked by any thread."""

    url: str
    log: Path

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, targets: Mapping[str, Sequence[str]]) -> Iterator["Prometheus"]:
        """Run it for the block. `targets` are HOST:PORT by job of deploy/prometheus/prometheus.yml; others go.

        Without Prometheus it skips the test on a laptop, and fails it where CI is set.
        """
        program, port = required("prometheus"), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alerts.yml").write_text(yaml.safe_dump(at_once(ALERTS)))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(pointed_at(CONFIG, targets)))
        one = cls(f"http://127.0.0.1:{port}", folder / "prometheus.log")
        command = [
            str(program), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ]  # fmt: skip
        with one.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            one._until_ready(process)
            yield one
        finally:
            _end(process)

    def alerts(self) -> set[tuple[str, str]]:
        """(alert, site) of all that fire now."""
        return {(one.name, one.site) for one in self.firing()}

    def firing(self) -> list[Alert]:
        """All that fire now, with their texts."""
        found = self._asked("alerts")["alerts"]
        return [
            Alert(labels["alertname"], labels.get("site", ""), labels.get("severity", ""), one["annotations"])
            for one in found
            if one["state"] == "firing"
            for labels in [one["labels"]]
        ]

    def until_firing(self, alert: str, *, site: str = "", within_s: float) -> float:
        """Wait until it fires for this site; after how many seconds. Fails the test if it does not come."""
        return self.until(f"{alert} of {site!r} fires", lambda: (alert, site) in self.alerts(), within_s)

    def until_quiet(self, alert: str, *, site: str = "", within_s: float) -> float:
        """Wait until it does not fire for this site; after how many seconds."""
        return self.until(f"{alert} of {site!r} is quiet", lambda: (alert, site) not in self.alerts(), within_s)

    def until_exactly(self, *alerts: tuple[str, str], within_s: float) -> float:
        """Wait until these (alert, site) fire and no other; after how many seconds."""
        return self.until(f"just {alerts} fire", lambda: self.alerts() == set(alerts), within_s)

    def until_scraped(self, *, within_s: float) -> float:
        """Wait until every target has answered, or failed to; after how many seconds."""
        return self.until("all were asked", lambda: "unknown" not in self.health().values(), within_s)

    def query(self, expression: str) -> list[Sample]:
        """What an expression gives now; one that does not parse fails the test."""
        found = self._asked("query", query=expression)
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def metric_names(self) -> set[str]:
        """Of all that any target has ever given."""
        return set(self._asked("label/__name__/values"))

    def health(self) -> dict[str, str]:
        """Of each target whether it is "up" or "down", or "unknown" before it was asked."""
        return {one["scrapeUrl"]: one["health"] for one in self._asked("targets")["activeTargets"]}

    def _asked(self, what: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                pytest.fail(f"Prometheus refuses {what} {parameters}: {error.read().decode()}")

    def until(self, what: str, done: Callable[[], bool], within_s: float) -> float:
        """Wait until `done()`; after how many seconds. Fails the test with `what`, and what fires instead."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > within_s:
                pytest.fail(f"Not within {within_s} s: {what}. Firing: {sorted(self.alerts())}; {self.health()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self._ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Prometheus did not start: {self.log.read_text()[-2000:]}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pointed_at(config: Path, targets: Mapping[str, Sequence[str]]) -> Any:
    """A configuration with these targets instead of its own, asked every second; KeyError for a job that it lacks."""
    changed = yaml.safe_load(config.read_text())
    changed["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    changed.pop("alerting", None)
    jobs = {job["job_name"]: job for job in changed["scrape_configs"]}
    changed["scrape_configs"] = [
        jobs[name] | {"static_configs": [{"targets": list(addresses)}]} for name, addresses in targets.items()
    ]
    return changed


def at_once(alerts: Path) -> Any:
    """Rules that fire as soon as their expression holds."""
    rules = yaml.safe_load(alerts.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
    return rules


def required(program: str) -> Path:
    """`prometheus` or `promtool`; without it the test is skipped on a laptop, and fails where CI is set."""
    found = ensure_program(PACKAGE, program)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What promtool says, and its exit code."""
    command = [str(required("promtool")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def main() -> int:
    """Fetch it if it is missing, or say what to install; 1 where CI is set and there is none."""
    if ensure_program(PACKAGE, "prometheus") is None or ensure_program(PACKAGE, "promtool") is None:
        sys.stderr.write(f"{MISSING} Tests of the alerts are skipped without it.\n")
        return 1 if os.environ.get("CI") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
