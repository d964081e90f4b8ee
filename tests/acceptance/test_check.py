"""`site check` against a real broker: what is right passes, what is wrong is named, and looking changes nothing."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from broker.checks import Check
from broker.identity import PrivateKey
from broker.node import Node
from broker.settings import write_secret
from broker.topology import site_rights
from deploy.local import SitePlan
from site_worker.check import SiteCheck
from site_worker.joining import create
from site_worker.settings import Folder
from tests.acceptance.administrator import Administrator
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation

NAMES = [
    "settings", "key", "federation", "task", "data", "training", "layout", "broker", "read rounds", "read receipts",
    "read models", "publish", "others", "clock", "disk", "update",
]  # fmt: skip


def away(federation: Federation) -> Folder:
    """Site a, joined, not running, and with an announcement that waits for it."""
    federation.prepare(SitePlan("a", {"site": 1}), SitePlan("b", {"site": 2}), versions=0, min_sites=1)
    federation.start_aggregator()
    federation.start_site("b")
    federation.reaches(2)
    assert federation.stop("b") == 0
    assert federation.stop("aggregator") == 0
    return federation.site("a")


def failed(folder: Folder) -> dict[str, str]:
    return {check.name: check.detail for check in SiteCheck(folder).run() if not check.passed}


def clock(folder: Folder) -> Check:
    return next(check for check in SiteCheck(folder).run() if check.name == "clock")


def with_url(folder: Folder, change: Callable[[str], str]) -> Callable[[], None]:
    """Change the broker's address; the function that puts it back."""
    url = folder.url_file.read_text().strip()
    write_secret(folder.url_file, change(url))
    return lambda: write_secret(folder.url_file, url)


def test_all_is_well_and_looking_changes_nothing(federation: Federation, administrator: Administrator) -> None:
    folder = away(federation)
    queues = [queue.name for site in "ab" for queue in federation.names(site).topology().queues]

    def state() -> object:
        files = {path.name: path.read_bytes() for path in folder.path.iterdir()}
        return files, {queue: administrator.ready(queue) for queue in queues}, federation.status().refused

    before = state()
    shown = fedqueue("site", "check", folder.path)
    assert shown.returncode == 0, shown.stdout
    lines = [line.partition(":")[0] for line in shown.stdout.splitlines()]
    assert lines == [f"ok      {name}" for name in NAMES]
    assert re.search(r"not behind the announcement of version \d", shown.stdout)
    assert state() == before
    assert administrator.ready(federation.names("a").rounds) == 1

    as_json = fedqueue("site", "check", folder.path, "--json")
    assert [check["name"] for check in json.loads(as_json.stdout)] == NAMES


def test_a_site_that_runs_is_not_disturbed(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}, step_delay_s=60.0), versions=1)
    federation.start()
    federation.trains("a")
    assert fedqueue("site", "check", federation.site("a").path).returncode == 0
    assert federation.site_status("a").state == "training"
    assert federation.status().refused == 0


def test_what_is_wrong_at_the_broker_is_named(
    federation: Federation, administrator: Administrator, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = away(federation)
    account, rights = f"{federation.name}.a", site_rights(federation.name, "a")
    cases: dict[str, tuple[Callable[[str], str], str]] = {
        "password": (lambda url: re.sub(r":[^:@/]+@", ":wrong@", url), "refuses the login"),
        "stopped": (lambda url: url.replace(f":{node.amqp_port}/", ":1/"), "Nothing answers at 127.0.0.1:1"),
        "vhost": (lambda url: url.replace("/%2F", "/nowhere"), "has no virtual host 'nowhere'"),
    }
    for change, said in cases.values():
        undo = with_url(folder, change)
        found = failed(folder)
        assert list(found) == ["broker"]
        assert said in found["broker"]
        undo()

    for read, name in (
        (rights.read.replace("rounds|", ""), "read rounds"),
        (rf"^fq\.{federation.name}\..*$", "others"),
    ):
        administrator.management.set_rights("/", account, replace(rights, read=read))
        shown = fedqueue("site", "check", folder.path)
        assert shown.returncode == 1
        assert re.findall(r"^FAILED  (.*?):", shown.stdout, re.MULTILINE) == [name]
    administrator.management.set_rights("/", account, rights)

    real = time.time()
    monkeypatch.setattr("site_worker.check.time", SimpleNamespace(time=lambda: real - 3600.0))
    assert "minutes behind the aggregator's clock: set this one by NTP" in failed(folder)["clock"]
    monkeypatch.setattr("site_worker.check.time", SimpleNamespace(time=lambda: real + 3600.0))
    assert failed(folder) == {}

    joined = folder.joined()
    other = msgspec.structs.replace(joined, aggregator_key=PrivateKey.generate().public.to_text())
    folder.join_file.write_text(other.to_toml())
    assert "ask for a new join file" in failed(folder)["clock"]


def hanging() -> Any:
    """A task that never comes back."""
    sys.stdout.write("hanging\n")
    sys.stdout.flush()
    threading.Event().wait()


def test_ctrl_c_stops_it(tmp_path: Path) -> None:
    create(Folder(tmp_path / "a"), site="a", task="tests.acceptance.test_check:hanging", options={})
    command = [sys.executable, "-m", "deploy.cli", "site", "check", str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line == "hanging\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == "stopped"
